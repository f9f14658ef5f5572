"""Which servers to ask for the history of a room, the most promising first."""

from collections.abc import Sequence
from itertools import islice
from typing import Final

from homeserver.core.ids import ServerName
from storage.backfill import find_event_at, list_servers_of_members
from storage.database import Connection
from storage.discovery import list_servers
from storage.partial_rooms import find_partial_room
from storage.rooms import RoomRow
from storage.state import StateStore

SERVERS_MAX: Final = 12
_MEMBERS_MAX: Final = 20_000
"""How many entries of a state are looked at; of a larger one these are those of the longest known slots."""


async def find_history_servers(
    conn: Connection, states: StateStore, room: RoomRow, *, topological: int, failures: int, server_name: ServerName
) -> Sequence[ServerName]:
    """Servers that should have what precedes a place in a room's history.

    The server that sent what stands at the place had seen what it follows. Then come those that were in the room at
    that time, first those that still are; then those that are now.

    Args:
        conn: to read with.
        states: the states of rooms.
        room: the room.
        topological: the place.
        failures: how often they have been asked in vain; each time one begins with another one.
        server_name: ours, which is left out.
    """
    at_place = await find_event_at(conn, room.room_nid, topological)
    then: Sequence[ServerName] = ()
    if at_place is not None and at_place.state_id is not None:
        entries = (await states.load(conn, at_place.state_id)).entries()
        then = await list_servers_of_members(conn, [*islice(entries.values(), _MEMBERS_MAX)], limit=SERVERS_MAX)
    now = await list_servers(conn, room.room_id, limit=SERVERS_MAX)
    partial = await find_partial_room(conn, room.room_nid)
    found = [
        *([] if at_place is None else [at_place.sender.server_name]),
        *(() if partial is None else partial.servers[:SERVERS_MAX]),
        *(server for server in then if server in now),
        *then,
        *now,
    ]
    servers = [server for server in dict.fromkeys(found) if server != server_name][:SERVERS_MAX]
    start = failures % len(servers) if servers else 0
    return [*servers[start:], *servers[:start]]
