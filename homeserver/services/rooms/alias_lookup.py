"""Where room aliases point to.

What other servers have answered is good for a minute, but not for entering a room.

https://spec.matrix.org/v1.19/client-server-api/#room-aliases
"""

from collections.abc import Collection, Sequence
from typing import Final, Protocol

from homeserver.core.clock import Clock
from homeserver.core.errors import BadAlias, NotFound
from homeserver.core.ids import RoomAlias, RoomId, ServerName
from homeserver.services.expiring_cache import ExpiringCache
from storage.aliases import find_rooms_of_aliases
from storage.database import Database

_REMEMBERED_MAX: Final = 10_000
_REMEMBERED_SECONDS: Final = 60.0
_SERVERS_MAX: Final = 100


class RemoteAliases(Protocol):
    """The aliases of other servers."""

    async def find_room(self, alias: RoomAlias) -> tuple[RoomId, Sequence[ServerName]] | None:
        """Asks the alias's server where it points to, and which servers are in the room; None if nowhere."""
        ...


class NoRemoteAliases:
    """For a server that asks no others."""

    async def find_room(self, alias: RoomAlias) -> None:
        """Says that there is no such alias."""


class AliasLookup:
    """Resolves aliases, of this server and of others."""

    def __init__(self, *, db: Database, clock: Clock, server_name: ServerName, remote: RemoteAliases) -> None:
        self._db = db
        self._server_name = server_name
        self._remote = remote
        self._remembered: ExpiringCache[RoomAlias, tuple[RoomId, Sequence[ServerName]]] = ExpiringCache(
            "remote_aliases", clock=clock, weight_max=_REMEMBERED_MAX
        )

    async def resolve(self, alias: RoomAlias, *, asked_anew: bool = False) -> tuple[RoomId, Sequence[ServerName]]:
        """Where an alias points to, and servers that are in the room.

        Args:
            alias: of this server or another.
            asked_anew: the other server is asked, whatever it has said a moment ago.

        Raises:
            NotFound: there is no such alias.
        """
        if alias.server_name == self._server_name:
            async with self._db.connection() as conn:
                room_id = (await find_rooms_of_aliases(conn, [alias])).get(alias)
            if room_id is not None:
                return room_id, (self._server_name,)
        elif (found := await self._find_elsewhere(alias, asked_anew=asked_anew)) is not None:
            return found
        raise NotFound(f"Room alias {alias} not found")

    async def _find_elsewhere(
        self, alias: RoomAlias, *, asked_anew: bool
    ) -> tuple[RoomId, Sequence[ServerName]] | None:
        """What the alias's server says, or has said a moment ago. That there is no such alias is not remembered."""
        found = None if asked_anew else self._remembered.get(alias)
        if found is None and (answer := await self._remote.find_room(alias)) is not None:
            room_id, servers = answer
            found = room_id, servers[:_SERVERS_MAX]
            self._remembered.put(alias, found, lifetime_seconds=_REMEMBERED_SECONDS)
        return found

    async def check_point_to(self, aliases: Collection[RoomAlias], room_id: RoomId) -> None:
        """Checks that aliases point to a room.

        Raises:
            BadAlias: one does not.
        """
        for alias in aliases:
            try:
                target, _ = await self.resolve(alias)
            except NotFound as error:
                raise BadAlias(f"The alias {alias} does not exist") from error
            if target != room_id:
                raise BadAlias(f"The alias {alias} points to another room")
