"""Devices that run out of one-time keys, that come and that go, of users on two servers.

https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys
https://spec.matrix.org/v1.19/client-server-api/#device-management
"""

from typing import Any

import pytest

from tests.clients.encryption.stage import WAIT_SECONDS_MAX, Stage
from tests.clients.javascript import JsDevice
from tests.real_client import PASSWORD, Client, anonymous_client
from tests.waiting import wait_until

pytestmark = pytest.mark.seconds_max(180)

CLAIMS_MAX = 200


async def claimed(claimer: Client, device: JsDevice) -> dict[str, Any]:
    """The next one-time key of a device, or its fallback key, by its name."""
    wanted = {"one_time_keys": {device.user_id: {device.device_id: "signed_curve25519"}}}
    answer = await claimer.post("/keys/claim", wanted)
    keys: dict[str, Any] = answer["one_time_keys"][device.user_id][device.device_id]
    return keys


async def spend_keys(claimer: Client, device: JsDevice) -> None:
    """Claims keys until the fallback key is given out."""
    for _ in range(CLAIMS_MAX):
        ((_, key),) = (await claimed(claimer, device)).items()
        if key.get("fallback"):
            return
    raise AssertionError(f"there are more than {CLAIMS_MAX} one-time keys")


async def test_a_fallback_key_when_one_time_keys_are_spent(stage: Stage) -> None:
    """Several people can begin with it; the device brings new keys when it is back."""
    alice, bob = await stage.couple()
    carol = await stage.person(stage.away, "carol")
    room_id = await stage.room_of(alice, bob, carol)
    claimer = await stage.client(stage.home, "claimer")
    await bob.close()
    await spend_keys(claimer, bob)
    await alice.send(room_id, "from elsewhere")
    await carol.until_read(room_id, "from elsewhere")
    await carol.send(room_id, "from here")
    await bob.open()
    await bob.until_read(room_id, "from elsewhere", "from here")

    async def has_new_keys() -> bool:
        ((_, key),) = (await claimed(claimer, bob)).items()
        return "fallback" not in key

    await wait_until(has_new_keys, seconds_max=WAIT_SECONDS_MAX)


async def test_a_deleted_device_gets_nothing_more(stage: Stage) -> None:
    """Others begin a new session of messages without it, and nothing of it is left for a later one of the same name."""
    alice, phone = await stage.couple()
    laptop = await stage.another_device(phone)
    room_id = await stage.room_of(alice, phone)
    await alice.until_devices(phone.user_id, phone.device_id, laptop.device_id)
    await alice.send(room_id, "one")
    for device in (phone, laptop):
        await device.until_read(room_id, "one")
    assert len(await alice.call("sessionIds", room_id)) == 1
    await laptop.close()
    await alice.call("forgetSession", room_id)
    await alice.send(room_id, "two")
    await phone.until_read(room_id, "one", "two")
    assert len(await alice.call("sessionIds", room_id)) == 2

    await phone.call("deleteDevice", laptop.device_id)
    await alice.until_devices(phone.user_id, phone.device_id)
    await phone.until_devices(phone.user_id, phone.device_id)
    await alice.send(room_id, "three")
    await phone.until_read(room_id, "one", "two", "three")
    assert len(await alice.call("sessionIds", room_id)) == 3
    assert (await laptop.client.call("GET", "/account/whoami")).status == 401
    async with anonymous_client(phone.client.url) as later:
        identifier = {"type": "m.id.user", "user": phone.user_id}
        login = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
        later.token = (await later.post("/login", {**login, "device_id": laptop.device_id}))["access_token"]
        answer = await later.sync()
        assert answer.get("to_device", {}).get("events", []) == []
        assert answer.get("device_one_time_keys_count", {}) in ({}, {"signed_curve25519": 0})
        keys = await later.post("/keys/query", {"device_keys": {phone.user_id: []}})
        assert list(keys["device_keys"][phone.user_id]) == [phone.device_id]


async def test_a_new_device_is_told_new_keys_only(stage: Stage) -> None:
    alice, phone = await stage.couple()
    room_id = await stage.room_of(alice, phone)
    await alice.send(room_id, "before")
    await phone.until_read(room_id, "before")
    laptop = await stage.another_device(phone)
    await alice.until_devices(phone.user_id, phone.device_id, laptop.device_id)
    await alice.send(room_id, "after")
    await laptop.until_read(room_id, None, "after")
    await phone.until_read(room_id, "before", "after")
