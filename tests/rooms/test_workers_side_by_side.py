"""Several workers that add events to one room at the same time."""

import asyncio
from collections import Counter
from collections.abc import Collection
from contextvars import Context

import pytest

from homeserver.core.ids import RoomId
from homeserver.core.pdu import StateKey
from homeserver.core.room_versions import DEFAULT_ROOM_VERSION, ROOM_VERSIONS
from homeserver.services.rooms.batches import make_batch
from homeserver.services.rooms.drafts import Draft, PushOutcome
from homeserver.services.rooms.event_chain import EventChain, Place, draft_slots
from homeserver.services.rooms.heads import Head, Heads
from homeserver.services.rooms.resolution import StateResolver
from storage.append import RoomChanged, append_events
from storage.database import Connection
from storage.errors import UniqueViolation
from storage.rooms import get_room
from storage.state import StateStore, derive_state
from tests.rooms.consistency import all_events, check_consistent
from tests.rooms.workers import ALICE, BOB, KEY, SERVER, Worker, member, message, power_levels


async def test_messages_of_two_workers_are_neither_lost_nor_doubled(worker: Worker, other_worker: Worker) -> None:
    room_id = await worker.create_room()
    users = [f"@user{number}:example.org" for number in range(8)]
    await worker.add(room_id, *(member(type(ALICE)(user), "join") for user in users))

    async def send(number: int) -> None:
        own = (worker, other_worker)[number % 2]
        for serial in range(12):
            await own.add(room_id, message(f"{number}/{serial}", sender=type(ALICE)(users[number])))

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(send(number))
    bodies = [event.content["body"] for event in await all_events(worker.db, room_id) if event.type == "m.room.message"]
    assert Counter(bodies) == Counter(f"{number}/{serial}" for number in range(8) for serial in range(12))
    for number in range(8):
        own = [body for body in bodies if body.startswith(f"{number}/")]
        assert own == sorted(own, key=lambda body: int(body.partition("/")[2]))
    await check_consistent(worker.db, room_id)
    async with worker.db.connection() as conn:
        assert len((await get_room(conn, room_id)).forward_extremities) <= 2


async def test_an_older_transaction_does_not_write_after_a_newer_one(worker: Worker, other_worker: Worker) -> None:
    """The id of a transaction is its position in the streams: a room has its events in the order of these ids."""
    room_id = await worker.create_room()
    draft = message("late")
    slots = draft_slots(draft, DEFAULT_ROOM_VERSION)
    async with worker.db.transaction() as conn:
        await conn.execute("SELECT pg_current_xact_id()")
        await asyncio.create_task(other_worker.add(room_id, message("early")), context=Context())
        head = await worker.heads.read(conn, room_id, slots)
        place = Place(room_id, head.room_version, head.extremities, {slot: head.entries[slot] for slot in slots}, {})
        chain = [EventChain(place, server_name=SERVER, key=KEY, now_ms=worker.clock.now_ms()).add(draft)]
        with pytest.raises(RoomChanged):
            await append_events(conn, make_batch(head, chain, [PushOutcome()], [draft], server_name=SERVER))
    await worker.add(room_id, draft)
    bodies = [event.content["body"] for event in await all_events(worker.db, room_id) if event.type == "m.room.message"]
    assert bodies == ["early", "late"]
    await check_consistent(worker.db, room_id)


async def test_state_changes_of_two_workers_follow_each_other(worker: Worker, other_worker: Worker) -> None:
    room_id = await worker.create_room()

    async def rename(own: Worker, name: str) -> None:
        for serial in range(10):
            draft = Draft(type="m.room.name", sender=ALICE, state_key="", content={"name": f"{name}{serial}"})
            await own.add(room_id, draft)
            await own.add(room_id, message(f"{name}{serial}"))

    async with asyncio.TaskGroup() as group:
        group.create_task(rename(worker, "a"))
        group.create_task(rename(worker, "b"))
        group.create_task(rename(other_worker, "c"))
    events = await all_events(worker.db, room_id)
    names = [event for event in events if event.type == "m.room.name"]
    assert len(names) == 30
    await check_consistent(worker.db, room_id)
    async with worker.db.connection() as conn:
        name = await conn.fetchval(
            "SELECT name FROM room_summaries JOIN rooms USING (room_nid) WHERE room_id = $1", room_id
        )
    assert name == names[-1].content["name"]


async def test_what_another_worker_has_changed_is_seen(worker: Worker, other_worker: Worker) -> None:
    room_id = await worker.create_room()
    await worker.add(room_id, member(BOB, "join"))
    await worker.add(room_id, message("in", sender=BOB))
    await other_worker.add(room_id, member(BOB, "leave"))
    await other_worker.add(room_id, member(BOB, "join"))
    await worker.add(room_id, message("in again", sender=BOB))
    await other_worker.add(room_id, message("there too", sender=BOB))
    await check_consistent(worker.db, room_id)


async def test_one_request_to_two_workers_makes_one_event(worker: Worker, other_worker: Worker) -> None:
    room_id = await worker.create_room()
    outcomes: list[str] = []

    async def send(own: Worker) -> None:
        try:
            await own.add(room_id, message("once", transaction_id="t"))
        except UniqueViolation as error:
            outcomes.append(error.constraint)
        else:
            outcomes.append("sent")

    async with asyncio.TaskGroup() as group:
        for own in (worker, other_worker, worker, other_worker):
            group.create_task(send(own))
    assert sorted(outcomes) == ["events_transaction"] * 3 + ["sent"]


async def test_a_worker_that_was_away_does_not_write_into_the_past(worker: Worker, other_worker: Worker) -> None:
    room_id = await worker.create_room()
    await other_worker.add(room_id, message("first"))
    for number in range(30):
        await worker.add(room_id, message(str(number)))
    added = await other_worker.add(room_id, message("last"))
    events = await all_events(worker.db, room_id)
    assert events[-1].event_nid == added.event_nids[0]
    assert events[-1].depth > events[-2].depth - 20
    await check_consistent(worker.db, room_id)


@pytest.mark.parametrize("version", ["1", "2", "6", "11", "12"])
async def test_states_that_differ_are_resolved(worker: Worker, version: str) -> None:
    """Two heads of the graph with different names and members, as servers make them that do not see each other."""
    room_version = ROOM_VERSIONS[version]
    room_id = await worker.create_room(room_version=room_version)
    levels = {**power_levels(ALICE, room_version), "ban": 60}
    nids: list[int] = []
    for draft in (
        Draft(type="m.room.name", sender=ALICE, state_key="", content={"name": "one"}),
        member(BOB, "join"),
        Draft(type="m.room.name", sender=ALICE, state_key="", content={"name": "two"}),
        Draft(type="m.room.power_levels", sender=ALICE, state_key="", content=levels),
    ):
        nids += (await worker.add(room_id, draft)).event_nids
    resolver, states = StateResolver(states=StateStore()), StateStore()
    async with worker.db.connection() as conn:
        room = await get_room(conn, room_id)
        resolved = await resolver.state_before(conn, room_version, [nids[0], nids[3]])
        base = (await states.load(conn, resolved.base_state_id)).entries()
        merged = {slot: nid for slot, nid in {**base, **resolved.changes}.items() if nid is not None}
        assert room.state_id is not None
        assert merged == (await states.load(conn, room.state_id)).entries()
    async with worker.db.transaction() as conn:
        state_id = await derive_state(
            conn, room_nid=room.room_nid, base_state_id=resolved.base_state_id, changes=resolved.changes
        )
    assert state_id == room.state_id


class OvertakenHeads(Heads):
    """Something is always sent between reading a room and adding to it, as long as the room is not locked."""

    def __init__(self, other: Worker) -> None:
        super().__init__()
        self._other = other
        self.overtaken = 0

    async def read(self, conn: Connection, room_id: RoomId, slots: Collection[StateKey]) -> Head:
        """Reads the room, and lets the other worker go first."""
        head = await super().read(conn, room_id, slots)
        if not conn.is_in_transaction():
            self.overtaken += 1
            await self._other.add(room_id, message(f"between {self.overtaken}"))
        return head


async def test_a_busy_room_takes_changes_of_state(worker: Worker, other_worker: Worker) -> None:
    room_id = await other_worker.create_room()
    heads = OvertakenHeads(other_worker)
    await Worker(worker.db, heads=heads).add(
        room_id, Draft(type="m.room.name", sender=ALICE, state_key="", content={"name": "two"})
    )
    assert heads.overtaken > 2
    async with worker.db.connection() as conn:
        assert len((await get_room(conn, room_id)).forward_extremities) == 1
    await check_consistent(worker.db, room_id)
