"""What is long past is removed, and the counts of what is newer stay right."""

from homeserver.core.push_rules.rule import PushRuleKind
from homeserver.services.push.counts import NotificationCounts
from homeserver.services.push.sweep import PushSweep
from storage.push_exceptions import delete_exceptions_of_user, delete_expired_exceptions
from storage.push_rules import delete_push_rules
from tests.fast_clock import FastClock
from tests.push.workers import CAROL, PushWorker, mentioning, read_upto
from tests.rooms.workers import ALICE, BOB, member, message

DAY_MS = 24 * 3600 * 1000


async def age(worker: PushWorker, days: int) -> None:
    """Makes all that is noted older."""
    async with worker.db.connection() as conn:
        await conn.execute("UPDATE event_push_exceptions SET added_at = added_at - $1 * interval '1 day'", float(days))


async def count_rows(worker: PushWorker) -> int:
    async with worker.db.connection() as conn:
        return int(await conn.fetchval("SELECT count(*) FROM event_push_exceptions"))


async def test_one_row_for_each_member_and_room_remains(worker: PushWorker) -> None:
    await worker.register(ALICE, BOB, CAROL)
    rooms = [await worker.create_room() for _ in range(2)]
    for room_id in rooms:
        await worker.add(room_id, member(BOB, "join"), member(CAROL, "join"))
        await worker.put_rule(BOB, PushRuleKind.ROOM, room_id)
        for _ in range(3):
            await worker.add(room_id, message("old"))
    await worker.add(rooms[0], mentioning(CAROL, BOB, sender=ALICE))
    sweep = PushSweep(db=worker.db, clock=FastClock())
    await sweep.sweep()
    assert await count_rows(worker) == 8, "nothing is old"
    await age(worker, 31)
    await worker.add(rooms[0], message("new"), mentioning(BOB, sender=ALICE), message("newest"))
    expected = await worker.unread(rooms[0], BOB)
    assert expected == NotificationCounts(2, 2)
    await sweep.sweep()
    assert await count_rows(worker) == 3 + 3
    assert await worker.unread(rooms[0], BOB) == NotificationCounts(1, 1), "what was swept counts as read"
    assert await worker.unread(rooms[0], CAROL) == NotificationCounts(3, 0)
    assert await worker.unread(rooms[1], BOB) == NotificationCounts(0, 0)
    await worker.rules.delete_rule(BOB, PushRuleKind.ROOM, rooms[0])
    await worker.add(rooms[0], message("heard"))
    assert await worker.unread(rooms[0], BOB) == NotificationCounts(2, 1)
    await age(worker, 31)
    await sweep.sweep()
    await sweep.sweep()
    assert await count_rows(worker) == 3
    assert await worker.unread(rooms[0], BOB) == NotificationCounts(1, 0), "heard came after what was swept"


async def test_receipts_after_a_sweep(worker: PushWorker) -> None:
    await worker.register(ALICE, BOB)
    room_id = await worker.create_room()
    await worker.add(room_id, member(BOB, "join"))
    await worker.put_rule(BOB, PushRuleKind.ROOM, room_id)
    await worker.add(room_id, *(message("old") for _ in range(5)))
    await age(worker, 31)
    await PushSweep(db=worker.db, clock=FastClock()).sweep()
    added = [await worker.add(room_id, mentioning(BOB, sender=ALICE), message("muted")) for _ in range(3)]
    assert await worker.unread(room_id, BOB) == NotificationCounts(3, 3)
    await read_upto(worker, room_id, BOB, added[1].event_nids[0])
    assert await worker.unread(room_id, BOB) == NotificationCounts(1, 1)


async def test_batches_are_bounded(worker: PushWorker) -> None:
    await worker.register(ALICE, BOB)
    room_id = await worker.create_room()
    await worker.add(room_id, member(BOB, "join"))
    await worker.put_rule(BOB, PushRuleKind.ROOM, room_id)
    await worker.add(room_id, *(message("old") for _ in range(7)))
    await age(worker, 2)
    async with worker.db.connection() as conn:
        dealt_with = [await delete_expired_exceptions(conn, age_ms=DAY_MS, limit=3) for _ in range(4)]
    assert dealt_with == [3, 3, 1, 0]
    assert await count_rows(worker) == 1


async def test_nothing_is_left_of_an_erased_user(worker: PushWorker) -> None:
    await worker.register(ALICE, BOB)
    room_id = await worker.create_room()
    await worker.add(room_id, member(BOB, "join"))
    await worker.put_rule(BOB, PushRuleKind.ROOM, room_id)
    await worker.add(room_id, message("muted"))
    async with worker.db.connection() as conn:
        await delete_push_rules(conn, BOB)
        await delete_exceptions_of_user(conn, BOB)
    assert (await worker.rules.get(BOB)).is_default
    assert await count_rows(worker) == 0
