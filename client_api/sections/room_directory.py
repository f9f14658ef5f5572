"""Room aliases.

https://spec.matrix.org/v1.19/client-server-api/#room-aliases
"""

from typing import Any, Final

from homeserver.core.ids import RoomAlias, RoomId
from homeserver.services.rooms.directory import RoomDirectory
from homeserver.web.endpoint import EMPTY, Access, RateLimit, Request, Response, Section

ALIAS: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["room_id"],
    "properties": {"room_id": {"type": "string"}},
}
_ALIAS: Final = "/_matrix/client/v3/directory/room/{room_alias}"
_OLD_ALIAS: Final = "/_matrix/client/r0/directory/room/{room_alias}"


def section(directory: RoomDirectory) -> Section:
    """The endpoints over their use cases."""
    s = Section("Room directory")

    @s.endpoint(
        "PUT",
        _ALIAS,
        aliases=(_OLD_ALIAS,),
        body=ALIAS,
        rate_limit=RateLimit.WRITE,
        suspended_allowed=False,
    )
    async def set_room_alias(request: Request) -> Response:
        """Points a new alias to a room."""
        alias, room_id = RoomAlias.parse(request.path["room_alias"]), RoomId.parse(request.body["room_id"])
        await directory.set_alias(request.requester, alias, room_id)
        return EMPTY

    @s.endpoint("GET", _ALIAS, aliases=(_OLD_ALIAS,), access=Access.PUBLIC, rate_limit=RateLimit.READ)
    async def get_room_id_by_alias(request: Request) -> Response:
        """The room that an alias points to, and servers through which it can be joined."""
        found = await directory.resolve(RoomAlias.parse(request.path["room_alias"]))
        return Response({"room_id": found.room_id, "servers": found.servers})

    @s.endpoint("DELETE", _ALIAS, aliases=(_OLD_ALIAS,), rate_limit=RateLimit.WRITE, suspended_allowed=False)
    async def delete_room_alias(request: Request) -> Response:
        """Removes an alias."""
        await directory.delete_alias(request.requester, RoomAlias.parse(request.path["room_alias"]))
        return EMPTY

    @s.endpoint(
        "GET",
        "/_matrix/client/v3/rooms/{room_id}/aliases",
        aliases=("/_matrix/client/r0/rooms/{room_id}/aliases",),
        rate_limit=RateLimit.READ,
    )
    async def get_local_aliases(request: Request) -> Response:
        """This server's aliases of a room."""
        room_id = RoomId.parse(request.path["room_id"])
        return Response({"aliases": await directory.aliases_of(request.requester, room_id)})

    return s
