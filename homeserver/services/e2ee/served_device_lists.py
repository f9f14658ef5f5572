"""The devices of this server's users, as other servers may know them.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Mapping
from typing import Any

from homeserver.core.errors import Forbidden
from homeserver.core.ids import ServerName, UserId
from homeserver.services.e2ee.key_queries import KeyQueries
from storage.database import Database
from storage.device_updates import ToldUpdate, list_told_updates
from storage.server_memberships import shares_room_with_server


class ServedDeviceLists:
    """Tells lists."""

    def __init__(self, *, db: Database, server_name: ServerName, queries: KeyQueries) -> None:
        self._db = db
        self._server_name = server_name
        self._queries = queries

    async def read(self, origin: ServerName, user_id: UserId) -> Mapping[str, Any]:
        """The list of a user with whom the asking server shares a room, as an answer to it.

        Raises:
            Forbidden: it shares none, or there is no such user here; which of both is not told.
        """
        async with self._db.connection() as conn:
            is_own = user_id.server_name == self._server_name
            if not is_own or not await shares_room_with_server(conn, user_id=user_id, server_name=origin):
                raise Forbidden("The server shares no room with such a user")
            # Read before the list, which then may be newer than this says, but never older.
            told = await list_told_updates(conn, [user_id])
        found = await self._queries.local({user_id: ()}, seen_by=None)
        answer: dict[str, Any] = {
            "user_id": user_id,
            "stream_id": told.get(user_id, ToldUpdate()).stream_id,
            "devices": [_listed(device_id, keys) for device_id, keys in found.device_keys.get(user_id, {}).items()],
        }
        for name, keys_of in (("master_key", found.master_keys), ("self_signing_key", found.self_signing_keys)):
            if user_id in keys_of:
                answer[name] = keys_of[user_id]
        return answer


def _listed(device_id: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """A device in the list; its name stands beside the keys."""
    signed = {name: value for name, value in keys.items() if name != "unsigned"}
    return {"device_id": device_id, "keys": signed, **keys.get("unsigned", {})}
