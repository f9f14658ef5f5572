"""The directory of public rooms.

https://spec.matrix.org/v1.19/client-server-api/#published-room-directory
"""

from collections.abc import Mapping
from typing import Any, Final

from homeserver.config.schema import DirectoryConfig
from homeserver.core.errors import MissingToken
from homeserver.core.ids import RoomId
from homeserver.services.ports import PublicRoomsRequest
from homeserver.services.rooms.directory import RoomDirectory
from homeserver.services.rooms.public_rooms import LIMIT_MAX, PublicRooms
from homeserver.web.endpoint import EMPTY, Access, RateLimit, Request, Response, Section

SEARCH: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "limit": {"type": "integer", "minimum": 0},
        "since": {"type": ["string", "null"]},
        "filter": {
            "type": "object",
            "properties": {
                "generic_search_term": {"type": ["string", "null"], "maxLength": 255},
                "room_types": {
                    "type": ["array", "null"],
                    "maxItems": 100,
                    "items": {"type": ["string", "null"], "maxLength": 255},
                },
            },
        },
        "include_all_networks": {"type": "boolean"},
        "third_party_instance_id": {"type": ["string", "null"], "maxLength": 512},
    },
}
VISIBILITY: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"visibility": {"enum": ["public", "private"]}},
}
_ROOMS: Final = "/_matrix/client/v3/publicRooms"
_OLD_ROOMS: Final = "/_matrix/client/r0/publicRooms"
_LISTED: Final = "/_matrix/client/v3/directory/list/room/{room_id}"
_OLD_LISTED: Final = "/_matrix/client/r0/directory/list/room/{room_id}"


def section(rooms: PublicRooms, directory: RoomDirectory, config: DirectoryConfig) -> Section:
    """The endpoints over their use cases."""
    s = Section("Published room directory")

    @s.endpoint("GET", _ROOMS, aliases=(_OLD_ROOMS,), access=Access.OPTIONAL, rate_limit=RateLimit.READ)
    async def get_public_rooms(request: Request) -> Response:
        """A page of the public rooms of this or another server."""
        if request.caller is None and not config.search_without_login:
            raise MissingToken("The list of public rooms is for users only")
        asked = PublicRoomsRequest(limit=_limit(request.query_integer("limit", 0)), since=request.query_text("since"))
        return Response(await rooms.page(asked, server_name=request.query_text("server")))

    @s.endpoint(
        "POST",
        _ROOMS,
        aliases=(_OLD_ROOMS,),
        access=Access.GUEST,
        body=SEARCH,
        rate_limit=RateLimit.READ,
        writes=False,
    )
    async def query_public_rooms(request: Request) -> Response:
        """A page of those public rooms that are searched for."""
        return Response(await rooms.page(_search(request.body), server_name=request.query_text("server")))

    @s.endpoint("GET", _LISTED, aliases=(_OLD_LISTED,), access=Access.PUBLIC, rate_limit=RateLimit.READ)
    async def get_room_visibility_on_directory(request: Request) -> Response:
        """Whether the public directory lists a room."""
        listed = await directory.is_listed(RoomId.parse(request.path["room_id"]))
        return Response({"visibility": "public" if listed else "private"})

    @s.endpoint(
        "PUT",
        _LISTED,
        aliases=(_OLD_LISTED,),
        body=VISIBILITY,
        rate_limit=RateLimit.WRITE,
        suspended_allowed=False,
    )
    async def set_room_visibility_on_directory(request: Request) -> Response:
        """Lists a room in the public directory, or no longer."""
        listed = request.body.get("visibility", "public") == "public"
        await directory.set_listed(request.requester, RoomId.parse(request.path["room_id"]), listed=listed)
        return EMPTY

    return s


def _search(body: Mapping[str, Any]) -> PublicRoomsRequest:
    wanted = body.get("filter", {})
    return PublicRoomsRequest(
        limit=_limit(body.get("limit", 0)),
        since=body.get("since"),
        search_term=wanted.get("generic_search_term"),
        room_types=wanted.get("room_types"),
        all_networks=body.get("include_all_networks", False),
        third_party_instance_id=body.get("third_party_instance_id"),
    )


def _limit(limit: int) -> int:
    """The limit to work with; clients say 0 for no limit of theirs."""
    return min(limit or LIMIT_MAX, LIMIT_MAX)
