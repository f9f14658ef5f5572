"""The rooms that the user shares with another.

https://spec.matrix.org/v1.19/client-server-api/#mutual-rooms
"""

from typing import Any

from homeserver.core.ids import UserId
from homeserver.services.rooms.mutual_rooms import MutualRooms
from homeserver.web.endpoint import RateLimit, Request, Response, Section


def section(mutual_rooms: MutualRooms) -> Section:
    """The endpoint over its use case."""
    s = Section("Mutual rooms")

    @s.endpoint(
        "GET",
        "/_matrix/client/v1/mutual_rooms",
        aliases=("/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms",),
        rate_limit=RateLimit.READ,
    )
    async def get_mutual_rooms(request: Request) -> Response:
        """The rooms that both users are in."""
        user_id = UserId.parse(request.query_required("user_id"))
        # The unstable form called the parameter differently.
        token = request.query_text("from") or request.query_text("batch_token")
        page = await mutual_rooms.page(request.requester, user_id, from_token=token)
        body: dict[str, Any] = {"joined": page.joined, "count": page.count}
        if page.next_batch is not None:
            body["next_batch"] = page.next_batch
        return Response(body)

    return s
