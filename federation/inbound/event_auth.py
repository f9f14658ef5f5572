"""Auth chains.

https://spec.matrix.org/v1.19/server-server-api/#retrieving-event-authorisation-information
"""

from federation.inbound.event_lists import encode_lists
from federation.inbound.origin import origin_of
from homeserver.core.ids import EventId, RoomId
from homeserver.services.rooms.served_events import ServedEvents
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section


def section(events: ServedEvents) -> Section:
    """The endpoint over its use case."""
    s = Section("Retrieving event authorisation information")

    @s.endpoint(
        "GET",
        "/_matrix/federation/v1/event_auth/{room_id}/{event_id}",
        access=Access.SERVER,
        rate_limit=RateLimit.FEDERATION,
    )
    async def get_event_auth(request: Request) -> Response:
        """The auth chain of an event."""
        room_id, event_id = RoomId.parse(request.path["room_id"]), EventId.parse(request.path["event_id"])
        chain = await events.auth_chain(origin_of(request), room_id, event_id)
        return Response(encode_lists({"auth_chain": chain}), headers={"Content-Type": "application/json"})

    return s
