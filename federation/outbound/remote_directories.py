"""What other servers know of rooms that this one is not in (`homeserver.services.remote.RemoteDirectories`).

https://spec.matrix.org/v1.19/server-server-api/#spaces
https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from federation.outbound.answer_shapes import json_object, member, nonsense, server_names
from federation.outbound.client import FederationClient
from federation.wire.paths import federation_path
from homeserver.core.errors import InvalidParam, RemoteRefused, RemoteUnavailable
from homeserver.core.ids import RoomAlias, RoomId, ServerName
from homeserver.services.remote import HierarchyAnswer

TIMEOUT_SECONDS: Final = 15.0
ALIAS_BYTES_MAX: Final = 4 * 1024 * 1024
ALIAS_SERVERS_MAX: Final = 1000
HIERARCHY_BYTES_MAX: Final = 8 * 1024 * 1024
CHILDREN_MAX: Final = 1000


class FederationDirectories:
    """Aliases and spaces of other servers."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def find_room(self, alias: RoomAlias) -> tuple[RoomId, Sequence[ServerName]] | None:
        """Where an alias points to, and which servers are in the room; None if it does not exist or cannot be asked."""
        server = alias.server_name
        try:
            answer = await self._client.get(
                server,
                federation_path("v1", "query", "directory"),
                query={"room_alias": alias},
                timeout_seconds=TIMEOUT_SECONDS,
                bytes_max=ALIAS_BYTES_MAX,
                retry_failed=True,
            )
            room_id = RoomId.parse(member(server, answer, "room_id"))
        except (RemoteRefused, RemoteUnavailable, InvalidParam):
            return None
        return room_id, server_names(member(server, answer, "servers"), limit=ALIAS_SERVERS_MAX)

    async def hierarchy(self, via: ServerName, room_id: RoomId, *, suggested_only: bool) -> HierarchyAnswer:
        """A room and, if it is a space, its direct children."""
        answer = await self._client.get(
            via,
            federation_path("v1", "hierarchy", room_id),
            query={"suggested_only": "true" if suggested_only else "false"},
            timeout_seconds=TIMEOUT_SECONDS,
            bytes_max=HIERARCHY_BYTES_MAX,
        )
        room = json_object(via, member(via, answer, "room"))
        if room.get("room_id") != room_id:
            raise nonsense(via)
        return HierarchyAnswer(
            room=room,
            children=_rooms(member(via, answer, "children")),
            inaccessible_children=_room_ids(member(via, answer, "inaccessible_children")),
        )


def _rooms(value: object) -> Sequence[Mapping[str, Any]]:
    """The entries of a list that name a room."""
    entries = value[:CHILDREN_MAX] if isinstance(value, list) else ()
    return [entry for entry in entries if isinstance(entry, dict) and _room_ids([entry.get("room_id")])]


def _room_ids(value: object) -> Sequence[RoomId]:
    found = []
    for entry in value[:CHILDREN_MAX] if isinstance(value, list) else ():
        try:
            found.append(RoomId.parse(entry))
        except InvalidParam:
            continue
    return found
