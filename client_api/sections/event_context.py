"""What happened around an event.

https://spec.matrix.org/v1.19/client-server-api/#event-context
"""

from typing import Final

from client_api.pagination import filter_parameter
from homeserver.core.ids import EventId, RoomId
from homeserver.services.rooms.context import EventContexts
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

LIMIT_DEFAULT: Final = 10
LIMIT_MAX: Final = 100


def section(contexts: EventContexts) -> Section:
    """The endpoint over its use case."""
    s = Section("Event context")

    @s.endpoint(
        "GET",
        "/_matrix/client/v3/rooms/{room_id}/context/{event_id}",
        aliases=("/_matrix/client/r0/rooms/{room_id}/context/{event_id}",),
        access=Access.GUEST,
        rate_limit=RateLimit.READ,
    )
    async def get_event_context(request: Request) -> Response:
        """An event with the events around it, and the state of the room at the last of them."""
        context = await contexts.context(
            request.requester,
            RoomId.parse(request.path["room_id"]),
            EventId.parse(request.path["event_id"]),
            event_filter=filter_parameter(request),
            limit=request.query_integer("limit", LIMIT_DEFAULT, maximum=LIMIT_MAX, clamp=True),
        )
        return Response(
            {
                "start": context.start.format(),
                "end": context.end.format(),
                "event": context.event,
                "events_before": context.events_before,
                "events_after": context.events_after,
                "state": context.state,
            }
        )

    return s
