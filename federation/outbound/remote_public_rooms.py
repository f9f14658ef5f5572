"""The directories of other servers (`homeserver.services.ports.RemotePublicRooms`).

https://spec.matrix.org/v1.19/server-server-api/#public-room-directory
"""

from collections.abc import Mapping
from typing import Any, Final

from federation.outbound.answer_shapes import events, json_object
from federation.outbound.client import FederationClient
from federation.wire.paths import federation_path
from homeserver.core.canonical_json import INTEGER_MAX
from homeserver.core.errors import InvalidParam
from homeserver.core.ids import RoomId, ServerName
from homeserver.services.ports import PublicRoomsRequest

TIMEOUT_SECONDS: Final = 20.0
PAGE_BYTES_MAX: Final = 4 * 1024 * 1024
TOKEN_CHARACTERS_MAX: Final = 10_000


class FederationPublicRooms:
    """Asks for one page."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def public_rooms(self, server_name: ServerName, request: PublicRoomsRequest) -> Mapping[str, Any]:
        """A page of another server's public rooms, in the form of the client-server API.

        Raises:
            RemoteUnavailable, RemoteRefused: the server cannot be asked, or refuses.
        """
        path = federation_path("v1", "publicRooms")
        fields, filters = _fields(request), _filter(request)
        if filters:
            body = {**fields, "filter": filters}
            answer = await self._client.post(
                server_name, path, body, timeout_seconds=TIMEOUT_SECONDS, bytes_max=PAGE_BYTES_MAX
            )
        else:
            query = {name: str(value).lower() if type(value) is bool else str(value) for name, value in fields.items()}
            answer = await self._client.get(
                server_name, path, query=query, timeout_seconds=TIMEOUT_SECONDS, bytes_max=PAGE_BYTES_MAX
            )
        return _page(server_name, answer, limit=request.limit)


def _fields(request: PublicRoomsRequest) -> dict[str, Any]:
    fields: dict[str, Any] = {"limit": request.limit, "include_all_networks": request.all_networks}
    if request.since is not None:
        fields["since"] = request.since
    if request.third_party_instance_id is not None:
        fields["third_party_instance_id"] = request.third_party_instance_id
    return fields


def _filter(request: PublicRoomsRequest) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    if request.search_term is not None:
        filters["generic_search_term"] = request.search_term
    if request.room_types is not None:
        filters["room_types"] = list(request.room_types)
    return filters


def _page(server: ServerName, answer: object, *, limit: int) -> dict[str, Any]:
    """What clients may be shown of the answer: rooms that have an id, tokens and a number of a sane form."""
    page: dict[str, Any] = {"chunk": [room for room in events(server, answer, "chunk", limit=limit) if _has_id(room)]}
    members = json_object(server, answer)
    for name in ("next_batch", "prev_batch"):
        token = members.get(name)
        if isinstance(token, str) and len(token) <= TOKEN_CHARACTERS_MAX:
            page[name] = token
    estimate = members.get("total_room_count_estimate")
    if type(estimate) is int and 0 <= estimate <= INTEGER_MAX:
        page["total_room_count_estimate"] = estimate
    return page


def _has_id(room: Mapping[str, Any]) -> bool:
    try:
        RoomId.parse(room.get("room_id"))
    except InvalidParam:
        return False
    return True
