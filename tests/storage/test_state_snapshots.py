"""Snapshots of states: whatever is stored reads back, equal states are one, and chains stay short."""

import math
import random
from collections.abc import Mapping

import pytest

from homeserver.core.ids import RoomId
from homeserver.core.room_versions import DEFAULT_ROOM_VERSION
from storage.database import Connection, Database
from storage.rooms import insert_room
from storage.state import StateStore, derive_state


async def _room(db: Database, name: str = "!a:example.org") -> int:
    async with db.connection() as conn:
        room_nid = await insert_room(conn, RoomId.parse(name), DEFAULT_ROOM_VERSION)
    assert room_nid is not None
    return room_nid


async def _chain_length(conn: Connection, state_id: int) -> int:
    length = 0
    next_id: int | None = state_id
    while next_id is not None:
        next_id = await conn.fetchval("SELECT parent_id FROM state_snapshots WHERE state_id = $1", next_id)
        length += 1
    return length


def _changed(state: Mapping[int, int], changes: Mapping[int, int | None]) -> dict[int, int]:
    merged = {**state, **changes}
    return {slot_id: event_nid for slot_id, event_nid in merged.items() if event_nid is not None}


@pytest.mark.parametrize("seed", range(6))
async def test_any_sequence_of_states_reads_back(db: Database, seed: int) -> None:
    """Changes of random sizes, on top of the last state or of any other, slots set, changed and emptied.

    Who has written them need not read them, and knows the same as who does.
    """
    rng = random.Random(seed)
    slots = rng.choice((5, 60, 400))
    room_nid = await _room(db)
    known: dict[int, dict[int, int]] = {}
    last: int | None = None
    writer, forgetful = StateStore(), StateStore(snapshots_size_bytes_max=60_000)
    for event_nid in range(1, 150):
        base_id = rng.choice([*known]) if known and rng.random() < 0.15 else last
        base = {} if base_id is None else known[base_id]
        count = 1 if rng.random() < 0.8 else rng.randrange(0, 30)
        changes: dict[int, int | None] = {}
        for _ in range(count):
            changes[rng.randrange(1, slots)] = None if rng.random() < 0.2 else event_nid * 100 + len(changes)
        async with db.transaction() as conn:
            last = await derive_state(conn, room_nid=room_nid, base_state_id=base_id, changes=changes)
        for store in (writer, forgetful):
            store.remember(last, base_state_id=base_id, changes=changes)
        state = _changed(base, changes)
        assert known.setdefault(last, state) == state, f"seed {seed}"
    fresh, kept = StateStore(), StateStore(snapshots_size_bytes_max=60_000)
    async with db.connection() as conn:
        loaded = await fresh.load_many(conn, list(known))
        for state_id, state in known.items():
            assert dict(loaded[state_id]) == state
            assert await kept.load(conn, state_id) == state
            assert await writer.load(conn, state_id) == state
            assert await forgetful.load(conn, state_id) == state
            assert await _chain_length(conn, state_id) <= math.log2(max(len(state), 1)) + 3
        ids = list(known)
        for _ in range(100):
            one, other = rng.choice(ids), rng.choice(ids)
            newer = await writer.load(conn, one) if rng.random() < 0.5 else loaded[one]
            changes = newer.changes_since(loaded[other])
            assert _changed(known[other], changes) == known[one]
            assert all(known[other].get(slot_id) != event_nid for slot_id, event_nid in changes.items())


async def test_equal_states_are_one_however_they_came_about(db: Database) -> None:
    room_nid, other_room_nid = await _room(db), await _room(db, "!b:example.org")
    async with db.transaction() as conn:
        empty = await derive_state(conn, room_nid=room_nid, base_state_id=None, changes={})
        forwards = await derive_state(conn, room_nid=room_nid, base_state_id=None, changes={1: 10, 2: 20})
        one = await derive_state(conn, room_nid=room_nid, base_state_id=None, changes={2: 20, 3: 30})
        two = await derive_state(conn, room_nid=room_nid, base_state_id=one, changes={1: 11})
        backwards = await derive_state(conn, room_nid=room_nid, base_state_id=two, changes={3: None, 1: 10})
        unchanged = await derive_state(conn, room_nid=room_nid, base_state_id=two, changes={1: 11, 9: None})
        emptied = await derive_state(conn, room_nid=room_nid, base_state_id=forwards, changes={1: None, 2: None})
    async with db.transaction() as conn:
        elsewhere = await derive_state(conn, room_nid=other_room_nid, base_state_id=None, changes={1: 10, 2: 20})
    assert forwards == backwards
    assert two == unchanged
    assert empty == emptied
    assert elsewhere != forwards


async def test_a_large_room_stays_small(db: Database) -> None:
    """Two thousand joins one after the other: each entry is rewritten a logarithmic number of times."""
    room_nid = await _room(db)
    state_id: int | None = None
    count = 2000
    async with db.connection() as conn:
        for number in range(1, count):
            state_id = await conn.fetchval(
                "SELECT derive_state($1, $2, ARRAY[$3::integer], ARRAY[0::bigint], ARRAY[$3::bigint])",
                room_nid,
                state_id,
                number,
            )
        stored = await conn.fetchval("SELECT sum(entry_count) FROM state_snapshots")
        assert state_id is not None
        longest = await _chain_length(conn, state_id)
        snapshot = await StateStore().load(conn, state_id)
    assert dict(snapshot) == {number: number for number in range(1, count)}
    assert longest <= math.log2(count) + 2
    assert stored <= 2 * count * math.log2(count)


async def test_unknown_snapshots_are_an_error(db: Database) -> None:
    async with db.connection() as conn:
        with pytest.raises(LookupError):
            await StateStore().load(conn, 12345)


async def test_slots_have_numbers_for_ever(db: Database) -> None:
    slots = [("m.room.member", "@a:example.org"), ("m.room.name", ""), ("org.example", "a/b")]
    store = StateStore(slots_max=2)
    async with db.connection() as conn:
        for event_type, state_key in slots:
            await conn.execute("INSERT INTO state_slots (type, state_key) VALUES ($1, $2)", event_type, state_key)
        found = await store.find_slots(conn, [*slots, ("m.room.topic", "")])
        assert set(found) == set(slots)
        assert await store.slot_names(conn, found.values()) == {number: slot for slot, number in found.items()}
        assert await StateStore().find_slots(conn, slots) == found
