"""Updates of device lists that other servers send: what follows upon what is known is applied, all else fetched anew.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Sequence
from typing import Any

import pytest

from homeserver.core.device_lists import DEVICES_MAX
from homeserver.core.errors import Forbidden, InvalidParam
from homeserver.core.ids import DeviceId
from storage.remote_devices import RemoteDeviceRow, upsert_remote_devices
from tests.federation.encryption.world import CAROL, CLAUDE, ELSEWHERE, EVE, THERE, Keeping, RemoteUser, identity_keys
from tests.federation.sending.world import joined, room_with
from tests.rooms.workers import ALICE, BOB


@pytest.fixture
async def carol(keeping: Keeping) -> RemoteUser:
    """A user of another server in a room of Alice, whose list is known here."""
    await room_with(keeping.worker, CAROL)
    user = keeping.servers.user(CAROL, "ONE")
    await keeping.follow()
    assert await keeping.devices(CAROL) == user.devices
    assert await keeping.answers_from_memory(CAROL)
    return user


async def test_updates_in_order_are_applied(keeping: Keeping, carol: RemoteUser) -> None:
    since = await keeping.position()
    await keeping.updates.receive_devices(THERE, carol.change("TWO", device_display_name="Phone"))
    await keeping.updates.receive_devices(THERE, carol.change("ONE"))
    asked = len(keeping.servers.asked)
    assert await keeping.devices(CAROL) == carol.devices
    named = (await keeping.query(CAROL)).users[CAROL].devices["TWO"]
    assert named["unsigned"] == {"device_display_name": "Phone"}
    await keeping.updates.receive_devices(THERE, carol.change("TWO", deleted=True))
    assert await keeping.devices(CAROL) == carol.devices
    assert list(carol.devices) == ["ONE"]
    assert len(keeping.servers.asked) == asked
    assert await keeping.told(ALICE, since=since) == ({CAROL}, set())
    assert await keeping.told(BOB, since=since) == (set(), set())


async def test_a_device_without_keys_is_none(keeping: Keeping, carol: RemoteUser) -> None:
    without = {name: value for name, value in carol.change("ONE").items() if name != "keys"}
    await keeping.updates.receive_devices(THERE, without)
    assert await keeping.devices(CAROL) == {}
    assert await keeping.answers_from_memory(CAROL)


async def test_an_update_that_is_known_changes_nothing(keeping: Keeping, carol: RemoteUser) -> None:
    """Clients are told all the same: it may be known because it came with a list, of which they were not told."""
    update = carol.change("TWO")
    await keeping.updates.receive_devices(THERE, update)
    since = await keeping.position()
    await keeping.updates.receive_devices(THERE, update)
    assert await keeping.told(ALICE, since=since) == ({CAROL}, set())
    assert await keeping.answers_from_memory(CAROL)
    assert await keeping.devices(CAROL) == carol.devices


async def test_a_lost_update_is_found_out_by_the_next(keeping: Keeping, carol: RemoteUser) -> None:
    carol.change("LOST")
    await keeping.updates.receive_devices(THERE, carol.change("TWO"))
    assert await keeping.lists() == {CAROL: False}
    keeping.servers.asked.clear()
    assert await keeping.devices(CAROL) == carol.devices
    assert keeping.servers.asked == [("devices", CAROL)]
    assert await keeping.answers_from_memory(CAROL)
    await keeping.updates.receive_devices(THERE, carol.change("THREE"))
    assert await keeping.answers_from_memory(CAROL)
    assert await keeping.devices(CAROL) == carol.devices


async def test_updates_that_follow_a_lost_one_wait_for_the_list(keeping: Keeping, carol: RemoteUser) -> None:
    carol.change("LOST")
    for device in ("TWO", "THREE"):
        await keeping.updates.receive_devices(THERE, carol.change(device))
        assert await keeping.lists() == {CAROL: False}
    assert await keeping.devices(CAROL) == carol.devices


@pytest.mark.parametrize("prev_id", [[], None, [99], "absent"])
async def test_an_update_that_follows_nothing_known_is_not_believed_alone(
    keeping: Keeping, carol: RemoteUser, prev_id: Any
) -> None:
    carol.change("LOST")
    update = {**carol.change("TWO"), "prev_id": prev_id}
    if prev_id == "absent":
        del update["prev_id"]
    await keeping.updates.receive_devices(THERE, update)
    assert await keeping.lists() == {CAROL: False}


async def test_one_of_several_previous_updates_is_enough(keeping: Keeping, carol: RemoteUser) -> None:
    update = {**carol.change("TWO"), "prev_id": [0, 1, 77]}
    await keeping.updates.receive_devices(THERE, update)
    assert await keeping.lists() == {CAROL: True}
    assert await keeping.devices(CAROL) == carol.devices


WRONG: Sequence[dict[str, Any]] = (
    {"device_id": ""},
    {"device_id": 7},
    {"device_id": "\0"},
    {"stream_id": "2"},
    {"stream_id": -1},
    {"stream_id": True},
    {"stream_id": 2**60},
    {"prev_id": 1},
    {"prev_id": ["1"]},
    {"prev_id": list(range(1_001))},
    {"keys": "text"},
    {"keys": identity_keys(EVE, "TWO")},
    {"keys": identity_keys(CAROL, "OTHER")},
    {"keys": identity_keys(CAROL, "TWO", algorithms="x")},
    {"keys": identity_keys(CAROL, "TWO", keys={"ed25519:TWO": 1})},
    {"keys": {**identity_keys(CAROL, "TWO"), "signatures": {CAROL: {"ed25519:TWO": None}}}},
    {"keys": identity_keys(CAROL, "TWO", padding="x" * 40_000)},
)


@pytest.mark.parametrize("changes", WRONG, ids=range(len(WRONG)))
async def test_s24_a_wrong_update_breaks_nothing(keeping: Keeping, carol: RemoteUser, changes: dict[str, Any]) -> None:
    """S24: what is wrong is neither stored nor the end of it: the list is fetched anew, and what is known stays."""
    await keeping.updates.receive_devices(THERE, {**carol.change("TWO"), **changes})
    assert await keeping.lists() == {CAROL: False}
    assert await keeping.devices(CAROL) == carol.devices
    await keeping.updates.receive_devices(THERE, carol.change("THREE"))
    assert await keeping.devices(CAROL) == carol.devices


async def test_s24_a_list_with_a_wrong_device_has_all_the_others(keeping: Keeping, carol: RemoteUser) -> None:
    """S24: a device with bad keys hurts nobody but itself."""
    good = identity_keys(CAROL, "GOOD")
    carol.listed = [
        None,
        "text",
        {},
        {"device_id": "NO KEYS"},
        {"device_id": "BAD", "keys": {**good, "signatures": {CAROL: []}}},
        {"device_id": "OTHERS", "keys": identity_keys(EVE, "OTHERS")},
        {"device_id": "GIANT", "keys": identity_keys(CAROL, "GIANT", padding="x" * 40_000)},
        {"device_id": "GOOD", "keys": {**good, "unsigned": {"device_display_name": 7}}, "device_display_name": ["x"]},
        {"device_id": "NAMED", "keys": identity_keys(CAROL, "NAMED"), "device_display_name": "N" * 1000},
    ]
    carol.cross_signing = {"master_key": {"keys": []}, "self_signing_key": 7}
    await keeping.updates.receive_devices(THERE, {"user_id": CAROL})
    answer = (await keeping.query(CAROL)).users[CAROL]
    assert set(answer.devices) == {"ONE", "GOOD", "NAMED"}
    assert answer.devices["GOOD"] == good
    assert answer.devices["NAMED"]["unsigned"] == {"device_display_name": "N" * 256}
    assert (answer.master_key, answer.self_signing_key) == (None, None)
    assert await keeping.answers_from_memory(CAROL)


@pytest.mark.parametrize("wrong", [{"stream_id": "x"}, {"devices": {}}, {"devices": [{}] * 2_001}, {"user_id": EVE}])
async def test_what_is_no_list_is_not_stored(keeping: Keeping, carol: RemoteUser, wrong: dict[str, Any]) -> None:
    await keeping.updates.receive_devices(THERE, {"user_id": CAROL})
    carol.misstated = wrong
    answer = await keeping.query(CAROL)
    assert set(answer.users[CAROL].devices) == {"ONE"}, "the server has been asked in the other way"
    assert await keeping.lists() == {CAROL: False}


async def test_a_server_speaks_for_its_own_users_only_s16(keeping: Keeping, carol: RemoteUser) -> None:
    """S16: neither for those of this server nor of another."""
    before = set(carol.devices)
    for receive in (keeping.updates.receive_devices, keeping.updates.receive_keys):
        for user_id in (CAROL, ALICE):
            with pytest.raises(Forbidden):
                await receive(ELSEWHERE, {**carol.change("TWO"), "user_id": user_id})
        for wrong in (None, 7, "nobody", {}):
            with pytest.raises(InvalidParam):
                await receive(THERE, {"user_id": wrong})
    assert await keeping.lists() == {CAROL: True}
    assert set(await keeping.devices(CAROL)) == before


async def test_nothing_is_kept_of_users_who_share_no_room_s22(keeping: Keeping, carol: RemoteUser) -> None:
    """S22: a server cannot fill the tables with users whom nobody here knows."""
    since = await keeping.position()
    claude = keeping.servers.user(CLAUDE, "ONE")
    await keeping.updates.receive_devices(THERE, claude.change("TWO"))
    await keeping.updates.receive_keys(THERE, claude.sign_across())
    assert await keeping.lists() == {CAROL: True}
    assert await keeping.told(ALICE, since=since) == (set(), set())
    async with keeping.db.connection() as conn:
        assert await conn.fetch("SELECT FROM device_list_changes WHERE user_id = $1", CLAUDE) == []


async def test_an_update_begins_a_list(keeping: Keeping) -> None:
    """Clients are told when it has been fetched, and ask for the keys."""
    await room_with(keeping.worker, CAROL)
    carol = keeping.servers.user(CAROL, "ONE")
    since = await keeping.position()
    await keeping.updates.receive_devices(THERE, carol.change("TWO"))
    assert await keeping.lists() == {CAROL: False}
    assert await keeping.told(ALICE, since=since) == (set(), set())
    assert await keeping.devices(CAROL) == carol.devices
    assert await keeping.told(ALICE, since=since) == ({CAROL}, set())


async def test_a_list_that_is_begun_by_the_end_of_a_device_is_told_of(keeping: Keeping) -> None:
    """Nothing is stored, but clients may know the device by other ways."""
    await room_with(keeping.worker, CAROL)
    carol = keeping.servers.user(CAROL, "ONE")
    since = await keeping.position()
    await keeping.updates.receive_devices(THERE, carol.change("ONE", deleted=True))
    assert await keeping.devices(CAROL) == {}
    assert await keeping.told(ALICE, since=since) == ({CAROL}, set())


async def test_what_keys_lack_is_left_to_clients(keeping: Keeping, carol: RemoteUser) -> None:
    """Clients look at signatures themselves, and do not trust a device without them."""
    await keeping.updates.receive_devices(THERE, {**carol.change("TWO"), "keys": {"some": "thing"}})
    assert (await keeping.devices(CAROL))["TWO"] == {"some": "thing"}


async def test_a_list_does_not_grow_without_end(keeping: Keeping, carol: RemoteUser) -> None:
    rows = [RemoteDeviceRow(CAROL, DeviceId(f"D{number}"), "{}", None) for number in range(DEVICES_MAX)]
    async with keeping.db.connection() as conn:
        await upsert_remote_devices(conn, CAROL, rows)
    await keeping.updates.receive_devices(THERE, carol.change("ONE_TOO_MANY"))
    assert await keeping.lists() == {CAROL: False}
    assert await keeping.devices(CAROL) == carol.devices


async def test_cross_signing_keys_are_applied(keeping: Keeping, carol: RemoteUser) -> None:
    since = await keeping.position()
    content = carol.sign_across()
    await keeping.updates.receive_keys(THERE, content)
    assert await keeping.told(ALICE, since=since) == ({CAROL}, set())
    assert await keeping.answers_from_memory(CAROL)
    answer = (await keeping.query(CAROL)).users[CAROL]
    assert (answer.master_key, answer.self_signing_key) == (content["master_key"], content["self_signing_key"])
    await keeping.updates.receive_devices(THERE, carol.change("TWO"))
    assert await keeping.answers_from_memory(CAROL), "the order of devices is not touched by it"


async def test_a_master_key_alone_says_nothing_of_the_other_key(keeping: Keeping, carol: RemoteUser) -> None:
    await keeping.updates.receive_keys(THERE, carol.sign_across())
    content = carol.sign_across()
    await keeping.updates.receive_keys(THERE, {"user_id": CAROL, "master_key": content["master_key"]})
    assert await keeping.lists() == {CAROL: False}
    assert (await keeping.query(CAROL)).users[CAROL].self_signing_key == content["self_signing_key"]


@pytest.mark.parametrize("wrong", [7, {}, {"user_id": EVE, "usage": ["master"], "keys": {"ed25519:x": "x"}}])
async def test_s24_wrong_cross_signing_keys_are_not_stored(keeping: Keeping, carol: RemoteUser, wrong: Any) -> None:
    content = carol.sign_across()
    await keeping.updates.receive_keys(THERE, {**content, "master_key": wrong})
    assert await keeping.lists() == {CAROL: False}
    assert (await keeping.query(CAROL)).users[CAROL].master_key == content["master_key"]


async def test_what_happens_while_a_list_is_fetched_is_not_lost(keeping: Keeping, carol: RemoteUser) -> None:
    """The answer is of before the update, and arrives after it."""
    carol.change("LOST")
    await keeping.updates.receive_devices(THERE, carol.change("TWO"))

    async def update_meanwhile() -> None:
        keeping.servers.before_answer = None
        await keeping.updates.receive_devices(THERE, carol.change("MEANWHILE"))

    keeping.servers.before_answer = update_meanwhile
    await keeping.query(CAROL)
    assert await keeping.lists() == {CAROL: False}
    assert await keeping.devices(CAROL) == carol.devices
    assert await keeping.lists() == {CAROL: True}


async def test_both_rooms_of_a_user_are_told(keeping: Keeping, carol: RemoteUser) -> None:
    await keeping.worker.create_room(*joined(CAROL), creator=BOB)
    since = await keeping.position()
    await keeping.updates.receive_devices(THERE, carol.change("TWO"))
    for user_id in (ALICE, BOB):
        assert CAROL in (await keeping.told(user_id, since=since))[0]
