"""Removes the device lists of other servers' users with whom no room is shared any more, be it for a moment.

Only servers that share a room are told of changed devices. So a list that is kept over a time without a shared room may
have missed something, and nothing would tell. What clients are told of such users comes from the memberships alone.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from typing import Final

from homeserver.core.ids import ServerName
from homeserver.services.stream.follower import Batch
from storage.database import Database
from storage.remote_device_lists import SHARING_FOLLOWER, delete_unshared_lists

NAME: Final = SHARING_FOLLOWER
KEYS: Final = frozenset(("state:",))
GATHER_SECONDS: Final = 0.1


class SharedRooms:
    """The consumer of a `Follower`."""

    def __init__(self, *, db: Database, server_name: ServerName) -> None:
        self._db = db
        self._server_name = server_name

    async def handle(self, batch: Batch) -> int:
        """Looks at all memberships that have changed."""
        async with self._db.transaction() as conn:
            await delete_unshared_lists(conn, since=batch.since, upto=batch.upto, server_name=self._server_name)
            await batch.save(conn, batch.upto)
        return batch.upto
