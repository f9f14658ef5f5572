"""Who is told of what passes: the servers in a room, or those that share a room with a user.

https://spec.matrix.org/v1.19/server-server-api/#edus
"""

from collections import Counter
from collections.abc import Collection, Sequence

from federation.outbound.room_servers import RoomServers
from federation.wire.allowed_servers import AllowedServers
from homeserver.core.ids import ServerName, UserId
from storage.database import Connection
from storage.outgoing_edus import Newcomer, PresenceChange, ReceiptChange, list_joined_rooms


class EduAudience:
    """Finds servers for what passes; those that this server may not talk with are none of them."""

    def __init__(self, *, server_name: ServerName, room_servers: RoomServers, allowed: AllowedServers) -> None:
        self._server_name = server_name
        self._room_servers = room_servers
        self._allowed = allowed

    async def of_rooms(self, conn: Connection, room_nids: Collection[int]) -> dict[int, frozenset[ServerName]]:
        """The other servers in rooms that this server is in, by `room_nid`."""
        if not room_nids:
            return {}
        return {
            room_nid: frozenset(server for server in servers if self._allowed.allows(server))
            for room_nid, servers in (await self._room_servers.current(conn, room_nids)).items()
        }

    async def of_users(self, conn: Connection, user_ids: Collection[UserId]) -> dict[UserId, frozenset[ServerName]]:
        """The other servers that share a room with each user of this server."""
        if not user_ids:
            return {}
        rooms_of = await list_joined_rooms(conn, user_ids)
        servers_in = await self.of_rooms(conn, {room_nid for rooms in rooms_of.values() for room_nid in rooms})
        return {
            user_id: frozenset[ServerName]().union(*(servers_in.get(room_nid, frozenset()) for room_nid in rooms))
            for user_id, rooms in rooms_of.items()
        }

    async def of_rooms_for(
        self, conn: Connection, server: ServerName, receipts: Sequence[ReceiptChange]
    ) -> list[ReceiptChange]:
        """Those receipts that one server is told of."""
        servers_in = await self.of_rooms(conn, {receipt.room_nid for receipt in receipts})
        return [receipt for receipt in receipts if server in servers_in.get(receipt.room_nid, frozenset())]

    async def of_users_for(
        self, conn: Connection, server: ServerName, changes: Sequence[PresenceChange]
    ) -> list[PresenceChange]:
        """Those changes of presence that one server is told of."""
        servers_of = await self.of_users(conn, {change.user_id for change in changes})
        return [change for change in changes if server in servers_of.get(change.user_id, frozenset())]

    async def new_servers(self, conn: Connection, newcomers: Sequence[Newcomer]) -> dict[int, frozenset[ServerName]]:
        """The servers that have just come into rooms: there are no users of them in the room but the newcomers."""
        arrived = Counter(
            (newcomer.room_nid, newcomer.user_id.server_name)
            for newcomer in newcomers
            if newcomer.user_id.server_name != self._server_name
        )
        counts = await self._room_servers.user_counts(conn, {room_nid for room_nid, _ in arrived})
        allowed = await self.of_rooms(conn, counts)
        found: dict[int, frozenset[ServerName]] = {}
        for (room_nid, server), count in arrived.items():
            if counts.get(room_nid, {}).get(server, 0) <= count and server in allowed.get(room_nid, ()):
                found[room_nid] = found.get(room_nid, frozenset()) | {server}
        return found
