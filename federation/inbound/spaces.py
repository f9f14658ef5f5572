"""Spaces and their children, for other servers.

https://spec.matrix.org/v1.19/server-server-api/#spaces
"""

from federation.inbound.origin import origin_of
from homeserver.core.ids import RoomId
from homeserver.services.rooms.served_hierarchy import ServedHierarchies
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section


def section(hierarchies: ServedHierarchies) -> Section:
    """The endpoint over its use case."""
    s = Section("Spaces")

    @s.endpoint(
        "GET", "/_matrix/federation/v1/hierarchy/{room_id}", access=Access.SERVER, rate_limit=RateLimit.FEDERATION
    )
    async def get_space_hierarchy(request: Request) -> Response:
        """A room and, if it is a space, its direct children."""
        answer = await hierarchies.hierarchy(
            origin_of(request),
            RoomId.parse(request.path["room_id"]),
            suggested_only=request.query_boolean("suggested_only"),
        )
        return Response(
            {
                "room": answer.room,
                "children": answer.children,
                "inaccessible_children": answer.inaccessible_children,
            }
        )

    return s
