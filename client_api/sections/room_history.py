"""The history of rooms.

https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from typing import Any, Final

from client_api.pagination import direction_parameter, filter_parameter, token_parameter
from homeserver.core.ids import RoomId
from homeserver.services.rooms.history import HistoryRequest, RoomHistory
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

LIMIT_DEFAULT: Final = 10
LIMIT_MAX: Final = 1000


def section(history: RoomHistory) -> Section:
    """The endpoint over its use case."""
    s = Section("Room history")

    @s.endpoint(
        "GET",
        "/_matrix/client/v3/rooms/{room_id}/messages",
        aliases=("/_matrix/client/r0/rooms/{room_id}/messages",),
        access=Access.GUEST,
        rate_limit=RateLimit.READ,
    )
    async def get_room_events(request: Request) -> Response:
        """A page of a room's history, forwards or backwards."""
        asked = HistoryRequest(
            direction=direction_parameter(request),
            from_token=token_parameter(request, "from"),
            to_token=token_parameter(request, "to"),
            limit=request.query_integer("limit", LIMIT_DEFAULT, maximum=LIMIT_MAX, clamp=True),
            event_filter=filter_parameter(request),
        )
        page = await history.messages(request.requester, RoomId.parse(request.path["room_id"]), asked)
        body: dict[str, Any] = {"start": page.start.format(), "chunk": page.chunk}
        if page.end is not None:
            body["end"] = page.end.format()
        if page.state:
            body["state"] = page.state
        return Response(body)

    return s
