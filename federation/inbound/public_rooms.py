"""The directory of public rooms, for other servers.

https://spec.matrix.org/v1.19/server-server-api/#published-room-directory
"""

from collections.abc import Mapping
from typing import Any, Final

from homeserver.config.schema import DirectoryConfig
from homeserver.core.errors import Forbidden
from homeserver.services.ports import PublicRoomsRequest
from homeserver.services.rooms.public_rooms import LIMIT_MAX, PublicRooms
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

_PATH: Final = "/_matrix/federation/v1/publicRooms"
_TEXT: Final = {"type": ["string", "null"], "maxLength": 512}
SEARCH: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "limit": {"type": "integer", "minimum": 0},
        "since": _TEXT,
        "filter": {
            "type": ["object", "null"],
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
        "third_party_instance_id": _TEXT,
    },
}


def section(rooms: PublicRooms, config: DirectoryConfig) -> Section:
    """The endpoints over their use case."""
    s = Section("Published room directory")

    @s.endpoint("GET", _PATH, access=Access.SERVER, rate_limit=RateLimit.FEDERATION)
    async def get_public_rooms(request: Request) -> Response:
        """A page of this server's public rooms."""
        asked = PublicRoomsRequest(
            limit=request.query_integer("limit", 0) or LIMIT_MAX,
            since=request.query_text("since"),
            all_networks=request.query_boolean("include_all_networks"),
            third_party_instance_id=request.query_text("third_party_instance_id"),
        )
        return await page(asked)

    @s.endpoint("POST", _PATH, access=Access.SERVER, rate_limit=RateLimit.FEDERATION, body=SEARCH, writes=False)
    async def query_public_rooms(request: Request) -> Response:
        """A page of those public rooms that are searched for."""
        return await page(_search(request.body))

    async def page(asked: PublicRoomsRequest) -> Response:
        if not config.search_by_servers:
            raise Forbidden("The list of public rooms is not told to other servers")
        return Response(await rooms.local_page(asked))

    return s


def _search(body: Mapping[str, Any]) -> PublicRoomsRequest:
    wanted = body.get("filter") or {}
    return PublicRoomsRequest(
        limit=body.get("limit", 0) or LIMIT_MAX,
        since=body.get("since"),
        search_term=wanted.get("generic_search_term"),
        room_types=wanted.get("room_types"),
        all_networks=body.get("include_all_networks", False),
        third_party_instance_id=body.get("third_party_instance_id"),
    )
