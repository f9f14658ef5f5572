"""Summaries of rooms.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias
"""

from homeserver.core.ids import RoomAlias, RoomId
from homeserver.services.rooms.room_summary import RoomSummaries
from homeserver.services.rooms.space_children import server_names
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section


def section(summaries: RoomSummaries) -> Section:
    """The endpoint over its use case."""
    s = Section("Room summaries")

    @s.endpoint(
        "GET",
        "/_matrix/client/v1/room_summary/{room_id_or_alias}",
        access=Access.OPTIONAL,
        rate_limit=RateLimit.READ,
    )
    async def get_room_summary(request: Request) -> Response:
        """What a room is, for those who may join it, ask to, or read it."""
        name = request.path["room_id_or_alias"]
        room = RoomAlias.parse(name) if name.startswith("#") else RoomId.parse(name)
        via = server_names(request.query.get("via", ()))
        return Response(await summaries.summary(request.caller, room, via=via))

    return s
