"""What must hold of every room at rest."""

from homeserver.core.ids import RoomId
from homeserver.services.rooms.resolution import StateResolver
from storage.database import Database
from storage.events import StoredEvent, stored_event
from storage.rooms import get_room
from storage.state import StateStore


async def all_events(db: Database, room_id: RoomId) -> list[StoredEvent]:
    """All events of a room, in the order of their arrival."""
    async with db.connection() as conn:
        rows = await conn.fetch("SELECT * FROM stored_events WHERE room_id = $1 ORDER BY event_nid", room_id)
    return [stored_event(row) for row in rows]


async def check_consistent(db: Database, room_id: RoomId) -> None:
    """What must hold of every room at rest: order, graph, and the state in all the places where it is kept."""
    events = await all_events(db, room_id)
    accepted = [event for event in events if event.is_accepted and event.state_id is not None]
    streamed = [event for event in accepted if event.position is not None]
    positions = [event.position for event in streamed if event.position is not None]
    assert positions == sorted(positions)
    topological = [event.topological for event in streamed if event.topological is not None]
    assert topological == sorted(set(topological))
    assert len(topological) == len(streamed)
    states = StateStore()
    async with db.connection() as conn:
        room = await get_room(conn, room_id)
        assert room.state_id is not None
        edges = await conn.fetch("SELECT unnest(prev_event_nids) AS nid FROM events WHERE room_nid = $1", room.room_nid)
        followed = {row["nid"] for row in edges}
        assert set(room.forward_extremities) == {event.event_nid for event in accepted} - followed
        rows = await conn.fetch("SELECT slot_id, event_nid FROM current_state WHERE room_nid = $1", room.room_nid)
        current = {row["slot_id"]: row["event_nid"] for row in rows}
        assert (await states.load(conn, room.state_id)).entries() == current
        resolved = await StateResolver(states=states).state_before(conn, room.room_version, room.forward_extremities)
        base = (await states.load(conn, resolved.base_state_id)).entries()
        merged = {slot: nid for slot, nid in {**base, **resolved.changes}.items() if nid is not None}
        assert merged == current
        history = await conn.fetchval(
            "SELECT state_id FROM state_history WHERE room_nid = $1 ORDER BY position DESC, serial DESC LIMIT 1",
            room.room_nid,
        )
        assert history == room.state_id
