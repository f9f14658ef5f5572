"""Spaces.

https://spec.matrix.org/v1.19/client-server-api/#spaces
"""

from typing import Any

from homeserver.core.ids import RoomId
from homeserver.services.rooms.hierarchy import DEPTH_MAX, LIMIT_MAX, HierarchyRequest, SpaceHierarchies
from homeserver.web.endpoint import RateLimit, Request, Response, Section


def section(hierarchies: SpaceHierarchies) -> Section:
    """The endpoint over its use case."""
    s = Section("Spaces")

    @s.endpoint("GET", "/_matrix/client/v1/rooms/{room_id}/hierarchy", rate_limit=RateLimit.READ)
    async def get_space_hierarchy(request: Request) -> Response:
        """A page of the rooms in the tree of a space."""
        asked = HierarchyRequest(
            suggested_only=request.query_boolean("suggested_only"),
            max_depth=request.query_integer("max_depth", DEPTH_MAX, maximum=DEPTH_MAX, clamp=True),
            from_token=request.query_text("from"),
            limit=request.query_integer("limit", LIMIT_MAX, minimum=1, maximum=LIMIT_MAX, clamp=True),
        )
        page = await hierarchies.page(request.requester, RoomId.parse(request.path["room_id"]), asked)
        body: dict[str, Any] = {"rooms": page.rooms}
        if page.next_batch is not None:
            body["next_batch"] = page.next_batch
        return Response(body)

    return s
