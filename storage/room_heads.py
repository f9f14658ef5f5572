"""Reading what an event is made on: the ends of a room's graph and entries of its current state, in one statement."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId, RoomId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.room_versions import RoomVersion, room_version_named
from storage.append import Extremity
from storage.database import Connection
from storage.events import stored_pdu


@dataclass(frozen=True, slots=True)
class RoomHead:
    """A room as it is at one moment.

    Attributes:
        state_id: the snapshot of the current state; None while this server has no part in the room.
        is_here: this server knows the room as it is now: it is in there, or everybody had left when it last was.
        entries: the slots that were asked for, each with its event's number and the event; None if it is empty.
    """

    room_nid: int
    room_version: RoomVersion
    state_version: int
    state_id: int | None
    is_here: bool
    extremities: tuple[Extremity, ...]
    entries: Mapping[StateKey, tuple[int, Pdu] | None]

    def find(self, slot: StateKey) -> Pdu | None:
        """The event at a slot that was asked for; None if the slot is empty."""
        entry = self.entries[slot]
        return None if entry is None else entry[1]


LOCK_ROOM: Final = "SELECT room_nid FROM rooms WHERE room_id = $1 FOR NO KEY UPDATE"


async def lock_room(conn: Connection, room_id: RoomId) -> None:
    """Keeps everybody else from adding events to a room until the transaction ends."""
    await conn.fetchval(LOCK_ROOM, room_id)


# As it stands, the plan is the same however many slots are wanted, so that it is made once; and it goes by the indexes,
# also where it was made when the tables were small.
SELECT_HEAD: Final = """
    WITH room AS MATERIALIZED (
        SELECT r.room_id, r.room_nid, r.room_version, r.state_version, r.state_id, ends.nids, ends.ids, ends.depths,
            r.state_id IS NOT NULL AND EXISTS (
                SELECT FROM room_summaries s
                WHERE s.room_nid = r.room_nid AND (s.local_joined_members > 0 OR s.joined_members = 0)
            ) AS is_here
        FROM rooms r, LATERAL (
            SELECT array_agg(e.event_nid) AS nids, array_agg(e.event_id) AS ids, array_agg(e.depth) AS depths
            FROM events e WHERE e.event_nid = ANY (r.forward_extremities)
        ) AS ends
        WHERE r.room_id = $1
    )
    SELECT room.*, wanted.type, wanted.state_key, e.event_nid, e.event_id, e.client_json, e.federation_json
    FROM room
    LEFT JOIN unnest((SELECT $2::text[]), (SELECT $3::text[])) AS wanted (type, state_key) ON true
    LEFT JOIN LATERAL (
        SELECT e.event_nid, e.event_id, e.client_json, e.federation_json
        FROM state_slots s JOIN current_state c USING (slot_id) JOIN events e USING (event_nid)
        WHERE s.type = wanted.type AND s.state_key = wanted.state_key AND c.room_nid = room.room_nid
        OFFSET 0
    ) AS e ON true
"""


async def find_head(conn: Connection, room_id: RoomId, slots: Collection[StateKey]) -> RoomHead | None:
    """A room with entries of its current state; None if the room is not known."""
    types = [event_type for event_type, _ in slots]
    state_keys = [state_key for _, state_key in slots]
    rows = await conn.fetch(SELECT_HEAD, room_id, types, state_keys)
    if not rows:
        return None
    first = rows[0]
    entries: dict[StateKey, tuple[int, Pdu] | None] = dict.fromkeys(slots)
    for row in rows:
        if row["event_nid"] is not None:
            entries[(row["type"], row["state_key"])] = (row["event_nid"], stored_pdu(row))
    ends = zip(first["nids"] or (), first["ids"] or (), first["depths"] or (), strict=True)
    return RoomHead(
        room_nid=first["room_nid"],
        room_version=room_version_named(first["room_version"]),
        state_version=first["state_version"],
        state_id=first["state_id"],
        is_here=first["is_here"],
        extremities=tuple(Extremity(nid, EventId(event_id), depth) for nid, event_id, depth in ends),
        entries=entries,
    )


SELECT_SLOTS_OF_TYPE: Final = """
    SELECT s.type, s.state_key FROM current_state c JOIN state_slots s USING (slot_id)
    WHERE c.room_nid = $1 AND s.type = $2
    ORDER BY c.event_nid
    LIMIT $3
"""


async def list_slots_of_type(conn: Connection, room_nid: int, event_type: str, *, limit: int) -> list[StateKey]:
    """The slots of an event type in the current state, the one set longest ago first."""
    rows = await conn.fetch(SELECT_SLOTS_OF_TYPE, room_nid, event_type, limit)
    return [(row["type"], row["state_key"]) for row in rows]


SELECT_IS_CURRENT: Final = """
    SELECT EXISTS (
        SELECT FROM events e
        JOIN state_slots s ON s.type = e.type AND s.state_key = e.state_key
        JOIN current_state c ON c.room_nid = e.room_nid AND c.slot_id = s.slot_id
        WHERE e.event_nid = $1 AND c.event_nid = e.event_nid
    )
"""


async def is_current(conn: Connection, event_nid: int) -> bool:
    """Whether an event is a part of its room's current state."""
    return bool(await conn.fetchval(SELECT_IS_CURRENT, event_nid))
