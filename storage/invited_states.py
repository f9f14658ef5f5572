"""What other servers say of rooms that this one is not in, beside an invitation or in answer to a knock.

https://spec.matrix.org/v1.19/client-server-api/#stripped-state
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import ServerName
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class InvitedState:
    """What is known of a room by one member event.

    Attributes:
        events: stripped state events as a JSON array; they may say anything.
        servers: servers that are in the room, as far as that is known.
    """

    events: str
    servers: Sequence[ServerName]


UPSERT_INVITED_STATE: Final = """
    INSERT INTO invited_states (event_nid, events, servers) VALUES ($1, $2, $3)
    ON CONFLICT (event_nid) DO UPDATE SET events = excluded.events, servers = excluded.servers
"""


async def put_invited_state(conn: Connection, event_nid: int, state: InvitedState) -> None:
    """Keeps what came with a member event."""
    await conn.execute(UPSERT_INVITED_STATE, event_nid, state.events, list(state.servers))


SELECT_INVITED_STATES: Final = (
    "SELECT event_nid, events, servers FROM invited_states WHERE event_nid = ANY ($1::bigint[])"
)


async def list_invited_states(conn: Connection, event_nids: Collection[int]) -> dict[int, InvitedState]:
    """What came with member events, by their numbers; absent where nothing did."""
    if not event_nids:
        return {}
    rows = await conn.fetch(SELECT_INVITED_STATES, list(event_nids))
    return {
        row["event_nid"]: InvitedState(row["events"], [ServerName(name) for name in row["servers"]]) for row in rows
    }


DELETE_INVITED_STATES: Final = "DELETE FROM invited_states WHERE event_nid = ANY ($1::bigint[])"


async def delete_invited_states(conn: Connection, event_nids: Collection[int]) -> None:
    """Forgets what came with member events that hold no longer."""
    await conn.execute(DELETE_INVITED_STATES, list(event_nids))
