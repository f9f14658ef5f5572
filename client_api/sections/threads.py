"""The threads of rooms.

https://spec.matrix.org/v1.19/client-server-api/#threading
"""

from typing import Any, Final

from homeserver.core.ids import RoomId
from homeserver.core.tokens import HistoryToken
from homeserver.services.rooms.threads import Threads
from homeserver.web.endpoint import RateLimit, Request, Response, Section

LIMIT_DEFAULT: Final = 20
LIMIT_MAX: Final = 100


def section(threads: Threads) -> Section:
    """The endpoint over its use case."""
    s = Section("Threads")

    @s.endpoint("GET", "/_matrix/client/v1/rooms/{room_id}/threads", rate_limit=RateLimit.READ)
    async def get_thread_roots(request: Request) -> Response:
        """The roots of a room's threads, that with the latest event first."""
        token = request.query_text("from")
        found = await threads.threads(
            request.requester,
            RoomId.parse(request.path["room_id"]),
            from_token=None if token is None else HistoryToken.parse(token),
            limit=request.query_integer("limit", LIMIT_DEFAULT, minimum=1, maximum=LIMIT_MAX, clamp=True),
            participated_only=request.query_choice("include", ("all", "participated"), "all") == "participated",
        )
        body: dict[str, Any] = {"chunk": found.chunk}
        if found.next_batch is not None:
            body["next_batch"] = found.next_batch.format()
        return Response(body)

    return s
