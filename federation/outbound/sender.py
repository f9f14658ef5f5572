"""Follows the stream of events and queues those that this server has to send, for each server that is to get them.

The rows of the queues and the follower's position are saved in one transaction: no event is forgotten, and none is
queued twice.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from typing import Final

from federation.outbound.destination_wakes import wake_destinations
from federation.outbound.room_servers import RoomServers
from federation.wire.allowed_servers import AllowedServers
from homeserver.core.ids import ServerName
from homeserver.services.stream.follower import Batch
from storage.bus.base import Bus
from storage.database import Database
from storage.destination_queues import QueuedEvent, upsert_queued_events
from storage.outgoing_events import list_outgoing

NAME: Final = "federation_sender"
KEYS: Final = frozenset(("room:",))
GATHER_SECONDS: Final = 0.01
"""How long the follower gathers what comes together; a message should leave at once."""

EVENTS_MAX: Final = 200
# A transaction holds back all readers of the streams while it is open, so it writes no more rows than this at once.
ROWS_MAX: Final = 3_000


class Sender:
    """The consumer of a `Follower`."""

    def __init__(
        self, *, server_name: ServerName, db: Database, bus: Bus, room_servers: RoomServers, allowed: AllowedServers
    ) -> None:
        """Takes its means.

        Args:
            server_name: this server.
            db: the database.
            bus: wakes the queues of all workers.
            room_servers: finds the servers for each event.
            allowed: the servers that this one may talk with; nothing is queued for others.
        """
        self._server_name = server_name
        self._db = db
        self._bus = bus
        self._room_servers = room_servers
        self._allowed = allowed

    async def handle(self, batch: Batch) -> int:
        """Queues the events of a batch, or as many of the first as one transaction should write."""
        async with self._db.connection() as conn:
            events, reached = await list_outgoing(
                conn, self._server_name, since=batch.since, upto=batch.upto, limit=EVENTS_MAX
            )
            servers = await self._room_servers.destinations(conn, events) if events else {}
        rows: list[QueuedEvent] = []
        position = batch.since
        for event in sorted(events, key=lambda event: (event.position, event.event_nid)):
            # Only whole positions are handled: of one that is cut in two, the second half would be passed over.
            if len(rows) >= ROWS_MAX and event.position > position:
                reached = event.position
                break
            position = event.position
            rows += [
                QueuedEvent(server, event.room_nid, event.event_nid)
                for server in servers.get(event.event_nid, ())
                if self._allowed.allows(server)
            ]
        if rows:
            async with self._db.transaction() as conn:
                await upsert_queued_events(conn, rows)
                await batch.save(conn, reached)
            await wake_destinations(self._bus, {row.destination for row in rows})
        return reached
