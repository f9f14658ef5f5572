"""Counting what is unread where the API alone does not lead."""

from homeserver.core.push_rules.rule import PushRuleKind
from homeserver.services.push.counts import NotificationCounts, UnreadCounts
from storage.rooms import get_room
from tests.push.workers import PushWorker, mentioning, read_upto
from tests.rooms.workers import ALICE, BOB, member, message


async def test_purged_history_leaves_the_counts_as_they_are(worker: PushWorker) -> None:
    await worker.register(ALICE, BOB)
    room_id = await worker.create_room()
    await worker.add(room_id, member(BOB, "join"))
    read = await worker.add(room_id, *(message("old") for _ in range(3)))
    await read_upto(worker, room_id, BOB, read.event_nids[-1])
    first = await worker.add(room_id, message("kept"))
    await worker.add(room_id, mentioning(BOB, sender=ALICE))
    assert await worker.unread(room_id, BOB) == NotificationCounts(2, 1)
    async with worker.db.connection() as conn:
        await conn.execute("DELETE FROM events WHERE event_nid < $1 AND state_key IS NULL", first.event_nids[0])
    assert await worker.unread(room_id, BOB) == NotificationCounts(2, 1)
    async with worker.db.connection() as conn:
        await conn.execute("DELETE FROM events WHERE event_nid < $1", first.event_nids[0])
    assert await worker.unread(room_id, BOB) == NotificationCounts(2, 1)


async def test_rooms_that_a_user_is_not_in_are_not_counted(worker: PushWorker) -> None:
    await worker.register(ALICE, BOB)
    rooms = [await worker.create_room() for _ in range(3)]
    await worker.add(rooms[0], member(BOB, "join"))
    await worker.add(rooms[1], member(BOB, "invite", sender=ALICE))
    async with worker.db.connection() as conn:
        nids = [(await get_room(conn, room_id)).room_nid for room_id in rooms]
        assert set(await UnreadCounts().of_rooms(conn, BOB, [*nids, 999_999])) == {nids[0]}
        assert await UnreadCounts().of_rooms(conn, BOB, []) == {}


async def test_many_unread_events_are_counted_exactly(worker: PushWorker) -> None:
    await worker.register(ALICE, BOB)
    room_id = await worker.create_room()
    await worker.add(room_id, member(BOB, "join"))
    for _ in range(30):
        await worker.add(room_id, *(message("hello") for _ in range(50)))
    await worker.put_rule(BOB, PushRuleKind.ROOM, room_id)
    for _ in range(20):
        await worker.add(room_id, *(message("muted") for _ in range(50)))
    await worker.add(room_id, mentioning(BOB, sender=ALICE))
    assert await worker.unread(room_id, BOB) == NotificationCounts(1501, 1)
