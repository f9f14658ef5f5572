"""Lists of other servers' devices: of whom they are kept, for how long, and how they become whole.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from homeserver.core.errors import RemoteRefused, RemoteUnavailable
from homeserver.core.ids import RoomId, UserId
from homeserver.services.e2ee.device_list_resync import AT_ONCE, AT_ONCE_PER_SERVER, LEASE_MS, DeviceListResync
from homeserver.services.e2ee.remote_keys import LISTS_PER_SERVER_MAX
from homeserver.services.rooms.drafts import Draft
from homeserver.services.single_flight import SingleFlight
from storage.remote_device_lists import delete_left_lists, insert_lists
from tests.fast_clock import FastClock
from tests.federation.encryption.world import CAROL, CLAUDE, EVE, THERE, Keeping, RemoteUser, identity_keys
from tests.federation.sending.world import joined, room_with
from tests.rooms.workers import ALICE, BOB, member
from tests.waiting import wait_until

ENCRYPTION = Draft(type="m.room.encryption", sender=ALICE, state_key="", content={"algorithm": "m.megolm.v1.aes-sha2"})


@pytest.fixture
async def room_id(keeping: Keeping) -> RoomId:
    """An encrypted room of Alice and Carol."""
    room_id = await keeping.worker.create_room(ENCRYPTION, *joined(CAROL))
    await keeping.follow()
    return room_id


@pytest.fixture
def carol(keeping: Keeping) -> RemoteUser:
    """A user of another server."""
    return keeping.servers.user(CAROL, "ONE")


@asynccontextmanager
async def resyncing(keeping: Keeping) -> AsyncIterator[None]:
    """Has lists fetched in the background meanwhile."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keeping.resync.run())
        yield
        task.cancel()


class CountedFlights(SingleFlight[Any, Any]):
    """Tells how many have wanted something."""

    passengers = 0

    async def run(self, key: Any, work: Any) -> Any:
        self.passengers += 1
        return await super().run(key, work)


async def until_whole(keeping: Keeping, *user_ids: UserId) -> None:
    async def holds() -> bool:
        lists = await keeping.lists()
        return all(lists.get(user_id) for user_id in user_ids)

    await wait_until(holds)


# Of whom lists are kept, and what is told.


async def test_a_list_is_fetched_once(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    signed = carol.sign_across()
    for _ in range(3):
        answer = (await keeping.query(CAROL)).users[CAROL]
        assert answer.devices == carol.devices
        assert (answer.master_key, answer.self_signing_key) == (signed["master_key"], signed["self_signing_key"])
    assert keeping.servers.asked == [("devices", CAROL)]


async def test_single_devices(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    carol.change("TWO")
    for _ in range(2):
        answer = await keeping.keys.query(ALICE, {CAROL: ["TWO", "NONE"]}, timeout_ms=5_000)
        assert answer.users[CAROL].devices == {"TWO": carol.devices["TWO"]}
    assert await keeping.devices(CAROL) == carol.devices


async def test_strangers_are_asked_for_and_forgotten_s22(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    """S22: what is known here because of others is not told to who shares no room, not even by being there sooner."""
    await keeping.query(CAROL)
    keeping.servers.asked.clear()
    for _ in range(2):
        assert await keeping.devices(CAROL, by=BOB) == carol.devices
    assert keeping.servers.asked == [("query", THERE)] * 2
    eve = keeping.servers.user(EVE, "EVES")
    assert await keeping.devices(EVE) == eve.devices
    assert await keeping.lists() == {CAROL: True}


async def test_users_who_do_not_exist_are_absent(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    answer = await keeping.query(CAROL, CLAUDE)
    assert set(answer.users) == {CAROL}
    assert answer.failures == {}


async def test_a_server_that_is_away_hurts_no_other(keeping: Keeping, carol: RemoteUser) -> None:
    await keeping.worker.create_room(*joined(CAROL, EVE))
    keeping.servers.user(EVE, "EVES")
    keeping.servers.is_away(THERE)
    answer = await keeping.query(CAROL, EVE)
    assert set(answer.users) == {EVE}
    assert set(answer.failures) == {THERE}


async def test_a_server_that_does_not_tell_lists_is_asked_otherwise(keeping: Keeping, room_id: RoomId) -> None:
    carol = keeping.servers.user(CAROL, "ONE")
    keeping.servers.failures[f"{THERE} devices"] = RemoteRefused("?", remote_errcode="M_UNRECOGNIZED", status=404)
    assert await keeping.devices(CAROL) == carol.devices
    assert await keeping.lists() == {CAROL: False}


async def test_a_client_waits_only_so_long(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    never = asyncio.Event()
    keeping.servers.before_answer = never.wait
    answer = await keeping.query(CAROL, timeout_ms=50)
    assert answer.users == {}
    assert isinstance(answer.failures[THERE], RemoteUnavailable)


async def test_what_many_want_at_once_is_fetched_once(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    answer_now = asyncio.Event()
    keeping.servers.before_answer = answer_now.wait
    flights = keeping.resync._flights = CountedFlights()
    async with asyncio.TaskGroup() as tasks:
        queries = [tasks.create_task(keeping.query(CAROL)) for _ in range(8)]
        await wait_until(lambda: flights.passengers == 8)
        answer_now.set()
    assert all(query.result().users[CAROL].devices == carol.devices for query in queries)
    assert keeping.servers.asked == [("devices", CAROL)]


async def test_of_many_users_the_lists_come_later(keeping: Keeping) -> None:
    users = [UserId(f"@user{number}:there.example") for number in range(LISTS_PER_SERVER_MAX + 20)]
    await room_with(keeping.worker, *users)
    for user_id in users:
        keeping.servers.user(user_id, "ONE")
    await keeping.follow()
    async with resyncing(keeping):
        answer = await keeping.query(*users)
        assert {user_id: dict(keys.devices) for user_id, keys in answer.users.items()} == {
            user_id: keeping.servers.users[user_id].devices for user_id in users
        }
        assert keeping.servers.asked.count(("query", THERE)) == 1
        await until_whole(keeping, *users)
    keeping.servers.asked.clear()
    await keeping.query(*users)
    assert keeping.servers.asked == []


# When a list may not be relied on any more.


async def leave(keeping: Keeping, room_id: RoomId, *user_ids: UserId) -> None:
    await keeping.worker.add(room_id, *(member(user_id, "leave") for user_id in user_ids))


async def join(keeping: Keeping, room_id: RoomId, *user_ids: UserId) -> None:
    await keeping.worker.add(room_id, *joined(*user_ids))


async def test_a_list_goes_with_the_last_shared_room(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    second = await keeping.worker.create_room(ENCRYPTION, *joined(CAROL))
    await keeping.follow()
    await keeping.query(CAROL)
    await leave(keeping, second, CAROL)
    await keeping.follow()
    assert await keeping.answers_from_memory(CAROL)
    since = await keeping.position()
    await leave(keeping, room_id, CAROL)
    await keeping.follow()
    assert await keeping.lists() == {}
    assert await keeping.told(ALICE, since=since) == (set(), {CAROL})
    async with keeping.db.connection() as conn:
        assert await conn.fetch("SELECT FROM remote_devices") == []


async def test_a_list_goes_when_this_server_leaves(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    await keeping.query(CAROL)
    await join(keeping, room_id, BOB)
    await keeping.follow()
    await leave(keeping, room_id, ALICE)
    await keeping.follow()
    assert await keeping.answers_from_memory(CAROL, by=BOB)
    await leave(keeping, room_id, BOB)
    await keeping.follow()
    assert await keeping.lists() == {}


@pytest.mark.parametrize("follows_in_between", [True, False])
async def test_who_left_and_came_back_is_asked_for_anew(
    keeping: Keeping, room_id: RoomId, carol: RemoteUser, follows_in_between: bool
) -> None:
    """While no room was shared nobody told of changes: the old list must not be believed, not for a moment."""
    await keeping.query(CAROL)
    await leave(keeping, room_id, CAROL)
    carol.change("MEANWHILE")
    if follows_in_between:
        await keeping.follow()
    await join(keeping, room_id, CAROL)
    assert await keeping.devices(CAROL) == carol.devices
    assert await keeping.answers_from_memory(CAROL)
    await keeping.follow()
    assert await keeping.answers_from_memory(CAROL), "the new list is as good as before"


async def test_when_this_server_came_back_all_are_asked_for_anew(
    keeping: Keeping, room_id: RoomId, carol: RemoteUser
) -> None:
    await keeping.query(CAROL)
    await leave(keeping, room_id, ALICE)
    carol.change("MEANWHILE")
    await join(keeping, room_id, ALICE)
    assert await keeping.devices(CAROL) == carol.devices
    await keeping.follow()
    assert await keeping.devices(CAROL) == carol.devices
    await keeping.follow()
    assert await keeping.answers_from_memory(CAROL)


async def test_the_old_list_of_who_came_back_goes(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    await keeping.query(CAROL)
    await leave(keeping, room_id, CAROL)
    await join(keeping, room_id, CAROL)
    await keeping.follow()
    assert await keeping.lists() == {}


async def test_a_room_after_another_keeps_the_list(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    await keeping.query(CAROL)
    second = await keeping.worker.create_room(*joined(CAROL))
    await keeping.follow()
    await leave(keeping, room_id, CAROL)
    await keeping.follow()
    assert await keeping.answers_from_memory(CAROL)
    await keeping.worker.add(second, member(CAROL, "join"))
    await keeping.follow()
    assert await keeping.answers_from_memory(CAROL), "a new name in the room is no new membership"


async def test_who_enters_a_room_of_others_asks_until_it_is_looked_at(
    keeping: Keeping, room_id: RoomId, carol: RemoteUser
) -> None:
    await keeping.query(CAROL)
    await join(keeping, room_id, BOB)
    assert await keeping.devices(CAROL, by=BOB) == carol.devices
    await keeping.follow()
    assert await keeping.answers_from_memory(CAROL, by=BOB)
    assert await keeping.answers_from_memory(CAROL)


async def test_a_list_begun_too_late_is_swept(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    await keeping.query(CAROL)
    await leave(keeping, room_id, CAROL)
    async with keeping.db.connection() as conn:
        await insert_lists(conn, [EVE], retry_at_ts=0)
        assert await keeping.lists() == {CAROL: True}
        assert await delete_left_lists(conn, limit=100) == 1
        assert await delete_left_lists(conn, limit=100) == 0
    assert await keeping.lists() == {}


# What syncs tell of other servers' users.


async def test_syncs_tell_of_rooms_that_begin_and_cease_to_be_shared(keeping: Keeping, room_id: RoomId) -> None:
    since = await keeping.position()
    await join(keeping, room_id, EVE)
    assert await keeping.told(ALICE, since=since) == ({EVE}, set())
    await join(keeping, room_id, BOB)
    assert await keeping.told(BOB, since=since) == ({ALICE, CAROL, EVE}, set())
    since = await keeping.position()
    await leave(keeping, room_id, EVE)
    assert await keeping.told(ALICE, since=since) == (set(), {EVE})
    since = await keeping.position()
    await leave(keeping, room_id, ALICE)
    assert await keeping.told(ALICE, since=since) == (set(), {BOB, CAROL})


async def test_syncs_tell_of_members_who_become_known_later(keeping: Keeping, room_id: RoomId) -> None:
    """A room entered without being told of all members: when they are known, so are their devices wanted."""
    since = await keeping.position()
    assert await keeping.told(ALICE, since=since) == (set(), set())
    async with keeping.db.connection() as conn:
        await conn.execute(
            "INSERT INTO completed_rooms (room_nid, join_nid) SELECT room_nid, 1 FROM rooms WHERE room_id = $1", room_id
        )
    assert await keeping.told(ALICE, since=since) == ({CAROL}, set())


# Becoming whole in the background.


async def test_a_list_is_fetched_until_it_is_whole(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    await keeping.query(CAROL)
    carol.change("LOST")
    keeping.servers.is_away(THERE)
    since = await keeping.position()
    async with resyncing(keeping):
        await keeping.updates.receive_devices(THERE, carol.change("TWO"))
        await wait_until(lambda: keeping.servers.asked.count(("devices", CAROL)) >= 4)
        assert await keeping.lists() == {CAROL: False}
        assert await keeping.told(ALICE, since=since) == ({CAROL}, set()), "it takes long, what clients know is old"
        since = await keeping.position()
        await keeping.updates.receive_devices(THERE, carol.change("TWO"))
        assert await keeping.told(ALICE, since=since) == ({CAROL}, set()), "and older still"
        since = await keeping.position()
        del keeping.servers.failures[THERE]
        await until_whole(keeping, CAROL)
    assert await keeping.told(ALICE, since=since) == ({CAROL}, set()), "clients ask again, now that there is an answer"
    assert await keeping.answers_from_memory(CAROL)
    assert await keeping.devices(CAROL) == carol.devices


async def test_clients_are_told_of_a_lost_update_once(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    """When the list has been fetched, and is there for them."""
    await keeping.query(CAROL)
    carol.change("LOST")
    since = await keeping.position()
    await keeping.updates.receive_devices(THERE, carol.change("TWO"))
    assert await keeping.told(ALICE, since=since) == (set(), set())
    async with resyncing(keeping):
        await until_whole(keeping, CAROL)
    assert await keeping.told(ALICE, since=since) == ({CAROL}, set())


async def test_clients_are_told_what_was_found_by_asking_anew(
    keeping: Keeping, room_id: RoomId, carol: RemoteUser
) -> None:
    """The first time, and after a time without a shared room: nobody has told of what happened before."""
    since = await keeping.position()
    await keeping.query(CAROL)
    assert await keeping.told(ALICE, since=since) == ({CAROL}, set())
    await join(keeping, room_id, BOB)
    carol.change("TWO")
    since = await keeping.position()
    await keeping.query(CAROL, by=BOB)
    assert await keeping.told(ALICE, since=since) == ({CAROL}, set())


async def test_nobody_is_told_of_a_list_that_is_as_it_was(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    await keeping.query(CAROL)
    await keeping.updates.receive_devices(THERE, {"user_id": CAROL})
    since = await keeping.position()
    async with resyncing(keeping):
        await until_whole(keeping, CAROL)
    assert await keeping.told(ALICE, since=since) == (set(), set())


async def test_a_server_that_answers_again_is_asked_at_once(
    keeping: Keeping, room_id: RoomId, carol: RemoteUser
) -> None:
    await keeping.query(CAROL)
    carol.change("LOST")
    keeping.servers.is_away(THERE)
    await keeping.updates.receive_devices(THERE, carol.change("TWO"))
    async with keeping.db.connection() as conn:
        await conn.execute("UPDATE remote_device_lists SET failures = 10, retry_at_ts = 9000000000000")
    async with resyncing(keeping):
        del keeping.servers.failures[THERE]
        keeping.resync.note_back(THERE)
        await until_whole(keeping, CAROL)


async def test_few_lists_of_a_server_are_fetched_at_once(keeping: Keeping) -> None:
    users = [UserId(f"@user{number}:there.example") for number in range(AT_ONCE)]
    await room_with(keeping.worker, EVE, *users)
    for user_id in [EVE, *users]:
        keeping.servers.user(user_id, "ONE")
    async with keeping.db.connection() as conn:
        await insert_lists(conn, [EVE, *users], retry_at_ts=0)
    answer_now = asyncio.Event()
    keeping.servers.before_answer = answer_now.wait
    async with resyncing(keeping):
        await wait_until(lambda: ("devices", EVE) in keeping.servers.asked)
        waiting = [each for each in keeping.servers.asked if each != ("devices", EVE)]
        assert len(waiting) <= 2 * AT_ONCE_PER_SERVER - 1
        answer_now.set()
        await until_whole(keeping, EVE, *users)


async def test_two_workers_do_not_fetch_the_same_list(keeping: Keeping, room_id: RoomId, carol: RemoteUser) -> None:
    other = Keeping(keeping.worker)
    other.servers = keeping.servers
    other.resync._remote = keeping.servers
    async with keeping.db.connection() as conn:
        await insert_lists(conn, [CAROL], retry_at_ts=0)
    answer_now = asyncio.Event()
    keeping.servers.before_answer = answer_now.wait
    async with resyncing(keeping), resyncing(other):
        await wait_until(lambda: bool(keeping.servers.asked))
        for worker in (keeping, other):
            worker.resync.look_soon()
        answer_now.set()
        await until_whole(keeping, CAROL)
    assert keeping.servers.asked == [("devices", CAROL)]


# Claims.


async def test_claims_are_believed_as_far_as_they_were_asked_for(keeping: Keeping) -> None:
    key = {"key": "k", "signatures": {CAROL: {"ed25519:ONE": "s"}}}
    carol = keeping.servers.user(CAROL)
    carol.one_time_keys = {
        "ONE": {"signed_curve25519:A": key},
        "OTHER ALGORITHM": {"curve25519:A": "k"},
        "TWO KEYS": {"signed_curve25519:A": key, "signed_curve25519:B": key},
        "WRONG": {"signed_curve25519:A": {"signatures": 7}},
        "NONE": {},
        "UNASKED": {"signed_curve25519:A": key},
    }
    wanted = {CAROL: {device: "signed_curve25519" for device in carol.one_time_keys if device != "UNASKED"}}
    keeping.servers.is_away(EVE.server_name)
    claimed = await keeping.keys.claim({**wanted, EVE: {"E": "signed_curve25519"}}, timeout_ms=5_000)
    assert claimed.keys == {CAROL: {"ONE": {"signed_curve25519:A": key}}}
    assert set(claimed.failures) == {EVE.server_name}


async def test_answers_to_questions_about_strangers_are_checked_s24(keeping: Keeping) -> None:
    """S24: what a server says of its users is looked at before a client gets it."""
    carol = keeping.servers.user(CAROL, "GOOD")
    carol.devices |= {"BAD": {"user_id": CAROL, "signatures": 7}, "OTHERS": identity_keys(EVE, "OTHERS"), "TEXT": "x"}  # type: ignore[dict-item]
    carol.cross_signing = {"master_key": {"user_id": CAROL}, "self_signing_key": []}
    answer = await keeping.query(CAROL)
    assert set(answer.users[CAROL].devices) == {"GOOD"}
    assert answer.users[CAROL].master_key is None


async def test_a_list_is_fetched_by_one_process_and_by_another_if_that_dies(
    keeping: Keeping, room_id: RoomId, carol: RemoteUser
) -> None:
    clock = FastClock(speed=20)
    one, other = (
        DeviceListResync(db=keeping.db, bus=keeping.worker.bus, clock=clock, remote=keeping.servers) for _ in range(2)
    )
    never = asyncio.Event()
    keeping.servers.before_answer = never.wait
    async with keeping.db.connection() as conn:
        await insert_lists(conn, [CAROL], retry_at_ts=0)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(one.run())
        await wait_until(lambda: len(keeping.servers.asked) == 1)
        standing_by = group.create_task(other.run())
        later = clock.monotonic() + 2 * LEASE_MS / 1000
        await wait_until(lambda: clock.monotonic() > later)
        assert len(keeping.servers.asked) == 1
        keeping.servers.before_answer = None
        running.cancel()
        await until_whole(keeping, CAROL)
        standing_by.cancel()
    assert keeping.servers.asked == [("devices", CAROL)] * 2
