"""States that nothing refers to are collected; those that somebody uses, or is about to, are not."""

import asyncio
import contextvars
import random
from collections.abc import Mapping

import pytest

from homeserver.core.ids import RoomId, UserId
from homeserver.services.rooms.drafts import Draft
from homeserver.services.rooms.state_collection import AGE_MS_MIN, StateCollection
from storage.append import Batch, NewEvent, RoomChanged, append_events
from storage.database import Connection, Database
from storage.errors import ConstraintViolation
from storage.room_import import INSERT_STATE_HISTORY
from storage.rooms import RoomRow, find_room
from storage.state import LOCK_ROOM, StateStore, are_stored, derive_state
from storage.state_collection import Collected, collect, list_due
from tests.fast_clock import FastClock
from tests.rooms.workers import ALICE, Worker, member, message


def _collection(worker: Worker) -> StateCollection:
    return StateCollection(db=worker.db, clock=FastClock())


async def _sweep(worker: Worker, *, age_ms: int = 0) -> tuple[int, int]:
    """Walks over all states and removes what has been found; how many were found and removed."""
    collection = _collection(worker)
    found = await collection.walk(interval_ms=0)
    return found, await collection.collect(age_ms=age_ms)


async def _derive(
    db: Database, room_nid: int, changes: Mapping[int, int | None], *, base_state_id: int | None = None
) -> int:
    async with db.transaction() as conn:
        return await derive_state(conn, room_nid=room_nid, base_state_id=base_state_id, changes=changes)


async def _refer(conn: Connection, room_nid: int, state_id: int) -> bool:
    """Refers to a state that was found out earlier, as all do who write in rooms; False if it has been collected."""
    await conn.fetchval(LOCK_ROOM, room_nid)
    if not await are_stored(conn, [state_id]):
        return False
    await conn.execute(INSERT_STATE_HISTORY, room_nid, state_id)
    return True


async def _room(worker: Worker, room_id: RoomId) -> RoomRow:
    async with worker.db.connection() as conn:
        room = await find_room(conn, room_id)
    assert room is not None
    return room


async def _state_ids(worker: Worker) -> set[int]:
    async with worker.db.connection() as conn:
        return {row["state_id"] for row in await conn.fetch("SELECT state_id FROM state_snapshots")}


async def test_states_of_events_and_rooms_stay(worker: Worker) -> None:
    rooms = [await worker.create_room() for _ in range(2)]
    for number in range(12):
        for room_id in rooms:
            await worker.add(room_id, member(UserId(f"@u{number}:example.org"), "join"), message("hello"))
            topic = Draft(type="m.room.topic", sender=ALICE, state_key="", content={"topic": str(number)})
            await worker.add(room_id, topic)
    before = await _state_ids(worker)
    assert await _sweep(worker) == (0, 0)
    assert await _state_ids(worker) == before
    # An event's state alone is a reference, without the room ever having been in it.
    async with worker.db.connection() as conn:
        await conn.execute("DELETE FROM state_history")
    await _sweep(worker)
    async with worker.db.connection() as conn:
        used = {row["state_id"] for row in await conn.fetch("SELECT DISTINCT state_id FROM events")}
        assert used <= await _state_ids(worker)
        states = await StateStore().load_many(conn, used)
    assert {len(state) for state in states.values()} > {0, 10}


async def test_what_nothing_refers_to_goes_when_it_is_old_enough(worker: Worker) -> None:
    room = await _room(worker, await worker.create_room())
    before = await _state_ids(worker)
    state_id: int | None = None
    for number in range(101, 140):  # differences to each other, of several sizes
        state_id = await _derive(worker.db, room.room_nid, {number: number}, base_state_id=state_id)
    assert await _sweep(worker, age_ms=AGE_MS_MIN) == (39, 0)
    assert await _sweep(worker) == (0, 39)
    assert await _state_ids(worker) == before


async def test_a_state_that_is_found_again_survives(worker: Worker) -> None:
    room = await _room(worker, await worker.create_room())
    kept = await _derive(worker.db, room.room_nid, {1: 10, 2: 20})
    lost = await _derive(worker.db, room.room_nid, {1: 11})
    collection = _collection(worker)
    assert await collection.walk(interval_ms=0) == 2
    assert await _derive(worker.db, room.room_nid, {2: 20, 1: 10}) == kept
    assert await collection.collect(age_ms=0) == 1
    async with worker.db.connection() as conn:
        assert await are_stored(conn, [kept])
        assert not await are_stored(conn, [kept, lost])
        assert dict(await StateStore().load(conn, kept)) == {1: 10, 2: 20}


async def test_a_state_that_is_found_again_at_the_last_moment_survives(worker: Worker) -> None:
    room = await _room(worker, await worker.create_room())
    kept = await _derive(worker.db, room.room_nid, {1: 10})
    await _collection(worker).walk(interval_ms=0)
    async with worker.db.connection() as conn:
        assert await list_due(conn, age_ms=0, limit=10) == {room.room_nid: [kept]}
    assert await _derive(worker.db, room.room_nid, {1: 10}) == kept
    async with worker.db.transaction() as conn:
        assert await collect(conn, room.room_nid, [kept], age_ms=0) == Collected()
        assert await are_stored(conn, [kept])


async def test_a_state_that_has_come_into_use_meanwhile_survives(worker: Worker) -> None:
    """By an event of the history, by another state's difference to it."""
    room = await _room(worker, await worker.create_room())
    used = await _derive(worker.db, room.room_nid, {1: 10})
    parent = await _derive(worker.db, room.room_nid, {number: number for number in range(1, 30)})
    collection = _collection(worker)
    assert await collection.walk(interval_ms=0) == 2
    child = await _derive(worker.db, room.room_nid, {50: 50}, base_state_id=parent)
    async with worker.db.transaction() as conn:
        assert await _refer(conn, room.room_nid, used)
        assert await _refer(conn, room.room_nid, child)
    assert await collection.collect(age_ms=0) == 0
    async with worker.db.connection() as conn:
        assert await are_stored(conn, [used, parent, child])
        marked = await conn.fetchval("SELECT count(*) FROM state_snapshots WHERE unreferenced_since IS NOT NULL")
    assert marked == 0, "They are not looked at each time"


async def test_a_collected_state_is_not_built_upon(worker: Worker) -> None:
    room_id = await worker.create_room()
    room = await _room(worker, room_id)
    gone = await _derive(worker.db, room.room_nid, {1: 10})
    await _sweep(worker)
    with pytest.raises(ConstraintViolation):
        await _derive(worker.db, room.room_nid, {2: 20}, base_state_id=gone)
    event = NewEvent(
        event_id="$late",
        type="m.room.message",
        state_key=None,
        sender=ALICE,
        depth=9,
        origin_server_ts=1,
        client_json="{}",
        federation_json="{}",
        prev_events=room.forward_extremities,
        auth_events=(),
    )
    batch = Batch(room_nid=room.room_nid, state_version=room.state_version, events=[event], state_before_id=gone)
    async with worker.db.connection() as conn:
        with pytest.raises(RoomChanged):
            await append_events(conn, batch)


async def test_nothing_is_removed_while_somebody_writes_in_the_room(worker: Worker) -> None:
    room = await _room(worker, await worker.create_room())
    other = await _room(worker, await worker.create_room())
    busy = await _derive(worker.db, room.room_nid, {1: 10})
    idle = await _derive(worker.db, other.room_nid, {1: 10})
    collection = _collection(worker)
    await collection.walk(interval_ms=0)
    outside = contextvars.copy_context()
    async with worker.db.transaction() as conn:
        await conn.fetchval(LOCK_ROOM, room.room_nid)
        async with asyncio.TaskGroup() as tasks:
            removing = tasks.create_task(collection.collect(age_ms=0), context=outside)
        assert removing.result() == 1
        assert await are_stored(conn, [busy])
        assert not await are_stored(conn, [idle])


async def test_what_a_deleted_room_has_left_goes(worker: Worker) -> None:
    await worker.create_room()
    async with worker.db.connection() as conn:
        for statement in ("DELETE FROM rooms", "DELETE FROM events", "DELETE FROM state_history"):
            await conn.execute(statement)
    found, removed = await _sweep(worker)
    assert found == removed > 0
    assert await _state_ids(worker) == set()


async def test_the_walk_goes_on_where_it_was_and_begins_anew_when_it_is_time(
    worker: Worker, other_worker: Worker
) -> None:
    room = await _room(worker, await worker.create_room())
    for number in range(101, 108):
        await _derive(worker.db, room.room_nid, {number: number})
    hour_ms = 3_600_000
    assert await _collection(worker).walk(interval_ms=hour_ms, page_size=2, pages_max=4) == 4
    assert await _collection(other_worker).walk(interval_ms=hour_ms, page_size=2) == 3
    await _derive(worker.db, room.room_nid, {199: 199})
    assert await _collection(other_worker).walk(interval_ms=hour_ms) == 0
    assert await _collection(other_worker).walk(interval_ms=0) == 1


@pytest.mark.parametrize("seed", range(3))
async def test_writers_and_the_collection_side_by_side(worker: Worker, other_worker: Worker, seed: int) -> None:
    """States are found out, found again and referred to some time later, while all that can be is removed at once."""
    rng = random.Random(seed)
    room = await _room(worker, await worker.create_room())
    referred: list[tuple[int, Mapping[int, int]]] = []
    refused = 0
    done = asyncio.Event()

    async def write() -> None:
        nonlocal refused
        for _ in range(40):
            state = {slot: rng.randrange(1, 4) for slot in range(1, rng.choice((3, 5, 30)))}
            state_id = await _derive(worker.db, room.room_nid, state)
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
            async with worker.db.transaction() as conn:
                if await _refer(conn, room.room_nid, state_id):
                    referred.append((state_id, state))
                else:
                    refused += 1

    async def sweep() -> int:
        removed = 0
        while not done.is_set():
            removed += (await _sweep(other_worker))[1]
            async with other_worker.db.transaction() as conn:
                # What is referred to is given up again now and then: another source of what is to be removed.
                given_up = "DELETE FROM state_history WHERE state_id = ANY ($1::bigint[])"
                index = rng.randrange(len(referred) + 1)
                await conn.fetchval(LOCK_ROOM, room.room_nid)
                lost = {state_id for state_id, _ in referred[:index]}
                await conn.execute(given_up, list(lost))
            referred[:] = [each for each in referred if each[0] not in lost]
        return removed

    async with asyncio.TaskGroup() as tasks:
        sweeping = tasks.create_task(sweep())
        async with asyncio.TaskGroup() as writers:
            for _ in range(4):
                writers.create_task(write())
        done.set()
    assert sweeping.result() > 0
    async with worker.db.connection() as conn:
        kept = {row["state_id"] for row in await conn.fetch("SELECT state_id FROM state_history")}
        states = await StateStore().load_many(conn, kept)
    for state_id, state in referred:
        if state_id in kept:
            assert dict(states[state_id]) == state, f"seed {seed}"
    assert refused < 160, "Most are there when they are needed"
