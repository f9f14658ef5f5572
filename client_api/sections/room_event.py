"""Single events.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid
"""

from homeserver.core.ids import EventId, RoomId
from homeserver.services.rooms.context import EventContexts
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section


def section(contexts: EventContexts) -> Section:
    """The endpoint over its use case."""
    s = Section("Room events")

    @s.endpoint(
        "GET",
        "/_matrix/client/v3/rooms/{room_id}/event/{event_id}",
        aliases=("/_matrix/client/r0/rooms/{room_id}/event/{event_id}",),
        access=Access.GUEST,
        rate_limit=RateLimit.READ,
    )
    async def get_one_room_event(request: Request) -> Response:
        """One event of a room."""
        room_id, event_id = RoomId.parse(request.path["room_id"]), EventId.parse(request.path["event_id"])
        return Response(await contexts.event(request.requester, room_id, event_id))

    return s
