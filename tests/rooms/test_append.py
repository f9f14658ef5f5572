"""Adding events to rooms."""

import asyncio

import pytest

from homeserver.core.errors import Forbidden, TooLarge
from homeserver.core.room_versions import ROOM_VERSIONS
from storage.database import measure_database
from storage.errors import UniqueViolation
from storage.events import list_events, list_pdus
from storage.memberships import list_joined_users
from storage.rooms import get_room
from storage.state import StateStore
from tests.rooms.consistency import all_events, check_consistent
from tests.rooms.workers import ALICE, BOB, Worker, member, message


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_a_room_of_each_version_takes_members_and_messages(worker: Worker, version: str) -> None:
    room_id = await worker.create_room(room_version=ROOM_VERSIONS[version])
    await worker.add(room_id, member(BOB, "join"))
    added = await worker.add(room_id, message("hello", sender=BOB))
    async with worker.db.connection() as conn:
        room = await get_room(conn, room_id)
        events = await list_events(conn, added.event_nids)
        pdus = await list_pdus(conn, added.event_nids)
        assert await list_joined_users(conn, room.room_nid) == [ALICE, BOB]
    assert room.forward_extremities == list(added.event_nids)
    assert events[0].content["body"] == "hello"
    assert pdus[events[0].event_nid].json == added.events[0].json


async def test_a_stranger_may_not_send(worker: Worker) -> None:
    room_id = await worker.create_room()
    with pytest.raises(Forbidden):
        await worker.add(room_id, message("hello", sender=BOB))


async def test_messages_that_wait_together_are_each_answered(worker: Worker) -> None:
    """Among them one that is not allowed, one that is too large, and one that was sent before."""
    room_id = await worker.create_room()
    await worker.appender.append_message(room_id, message("0", transaction_id="0"))
    drafts = [message(str(number), transaction_id=str(number)) for number in range(40)]
    drafts[7] = message("7", sender=BOB, transaction_id="7")
    drafts[9] = message("9" * 70_000, transaction_id="9")
    outcomes: dict[int, object] = {}

    async def send(number: int) -> None:
        try:
            added = await worker.appender.append_message(room_id, drafts[number])
        except (Forbidden, TooLarge, UniqueViolation) as error:
            outcomes[number] = type(error)
        else:
            outcomes[number] = added.events[0].content["body"]

    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(send(number))
    refused = {0: UniqueViolation, 7: Forbidden, 9: TooLarge}
    assert outcomes == {number: refused.get(number, str(number)) for number in range(40)}
    events = await all_events(worker.db, room_id)
    bodies = [event.content["body"] for event in events if event.type == "m.room.message"]
    assert bodies == [str(number) for number in range(40) if number not in (7, 9)]
    await check_consistent(worker.db, room_id)


async def test_many_messages_need_few_statements(worker: Worker) -> None:
    room_id = await worker.create_room()
    with measure_database() as usage:
        async with asyncio.TaskGroup() as group:
            for number in range(32):
                draft = message(str(number), transaction_id=str(number))
                group.create_task(worker.appender.append_message(room_id, draft))
    assert usage.statements <= 4
    assert len(await all_events(worker.db, room_id)) == 4 + 32


async def test_state_is_kept_as_snapshots(worker: Worker) -> None:
    room_id = await worker.create_room()
    added = await worker.add(room_id, member(BOB, "join"))
    states = StateStore()
    async with worker.db.connection() as conn:
        room = await get_room(conn, room_id)
        event = (await list_events(conn, added.event_nids))[0]
        assert event.state_id is not None
        assert room.state_id is not None
        loaded = await states.load_many(conn, [event.state_id, room.state_id])
        slots = await states.find_slots(conn, [("m.room.member", BOB)])
    before, after = loaded[event.state_id], loaded[room.state_id]
    slot = slots[("m.room.member", BOB)]
    assert slot not in before
    assert after[slot] == event.event_nid
    assert after.changes_since(before) == {slot: event.event_nid}
    assert before.changes_since(after) == {slot: None}
