"""The state of a room at an event: that before it, and what the event itself changes."""

from collections.abc import Mapping

from homeserver.core.pdu import StateKey
from storage.database import Connection
from storage.events import StoredEvent
from storage.state import StateStore


async def state_after(conn: Connection, states: StateStore, event: StoredEvent) -> Mapping[int, int]:
    """The entries (`event_nid` by slot) of the state after an event; empty if it is not known.

    It must not be changed.
    """
    if event.state_id is None:
        return {}
    snapshot = await states.load(conn, event.state_id)
    if event.state_key is None:
        return snapshot.entries()
    slot: StateKey = (event.type, event.state_key)
    slot_ids = await states.find_slots(conn, [slot])
    own = {slot_ids[slot]: event.event_nid} if slot in slot_ids else {}
    return {**snapshot.entries(), **own}
