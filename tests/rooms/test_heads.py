"""What one task has read of a room is there for the next, as long as the room's state is the same."""

import asyncio

from homeserver.core.event_auth.auth_events import member_slot
from homeserver.core.ids import RoomId, UserId
from storage.database import measure_database
from tests.rooms.workers import ALICE, BOB, Worker, member, message

CAROL = UserId("@carol:example.org")


async def _look(worker: Worker, room_id: RoomId, user_id: UserId) -> None:
    async with worker.db.connection() as conn:
        head = await worker.heads.look(conn, room_id, [member_slot(user_id)])
    assert head is not None
    assert head.is_here
    assert head.find(member_slot(user_id)) is None


async def test_what_several_have_looked_at_stays_known_while_events_are_added(worker: Worker) -> None:
    room_id = await worker.create_room()
    await _look(worker, room_id, BOB)
    await _look(worker, room_id, CAROL)
    both = [member_slot(BOB), member_slot(CAROL)]
    assert worker.heads.find_cached(room_id, both) is not None
    await worker.add(room_id, message("hello"))
    await worker.add(room_id, member(BOB, "join"))
    head = worker.heads.find_cached(room_id, both)
    assert head is not None
    joined = head.find(member_slot(BOB))
    assert joined is not None
    assert joined.membership == "join"
    assert head.find(member_slot(CAROL)) is None


async def test_a_look_does_not_give_up_what_was_added_meanwhile(worker: Worker, other_worker: Worker) -> None:
    room_id = await worker.create_room()
    added = [await worker.add(room_id, message(str(number))) for number in range(3)]
    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(_look(worker, room_id, BOB))
            tasks.create_task(worker.add(room_id, member(ALICE, "join"), message("beside")))
    head = worker.heads.find_cached(room_id, [])
    assert head is not None
    assert min(end.event_nid for end in head.extremities) > max(added[-1].event_nids)
    # What another worker adds is found by a look, and the next event is made on it at once.
    others = await other_worker.add(room_id, message("elsewhere"))
    await _look(worker, room_id, BOB)
    with measure_database() as usage:
        await worker.add(room_id, message("here"))
    assert usage.statements == 1
    head = worker.heads.find_cached(room_id, [])
    assert head is not None
    assert all(end.event_nid > max(others.event_nids) for end in head.extremities)


async def test_an_unknown_room(worker: Worker) -> None:
    async with worker.db.connection() as conn:
        assert await worker.heads.look(conn, RoomId("!nowhere:example.org"), []) is None
