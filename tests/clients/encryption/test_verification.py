"""People and devices verify each other by comparing emoji, by messages to devices and in rooms, across servers.

https://spec.matrix.org/v1.19/client-server-api/#device-verification
"""

import asyncio

import pytest

from tests.clients.encryption.stage import Stage
from tests.clients.javascript import JsDevice

pytestmark = pytest.mark.seconds_max(180)


async def verify(one: JsDevice, other: JsDevice, **whom: str) -> None:
    """One asks the other, who accepts and begins to compare; both see the same and say so."""
    await one.call("requestVerification", whom)
    await other.call("acceptVerification")
    async with asyncio.TaskGroup() as group:
        shown = [group.create_task(other.call("startSas")), group.create_task(one.call("followSas"))]
    assert len(shown[0].result()) == 7
    assert shown[0].result() == shown[1].result()
    async with asyncio.TaskGroup() as group:
        for device in (one, other):
            group.create_task(device.call("confirmSas"))


async def test_a_new_device_is_verified_by_an_old_one(stage: Stage) -> None:
    """It is given the secrets, is signed by its owner, and so trusted by all who trust the owner."""
    alice, bob = await stage.couple()
    await alice.call("bootstrapCrossSigning")
    await stage.room_of(alice, bob)
    laptop = await stage.another_device(alice)
    await alice.until_devices(alice.user_id, alice.device_id, laptop.device_id)
    assert (await laptop.call("isReady"))["crossSigning"] is False
    await verify(laptop, alice)
    await alice.call("untilCrossSigned", alice.user_id, laptop.device_id)
    await laptop.call("untilCrossSigned", alice.user_id, alice.device_id)
    await laptop.call("untilReady")
    await bob.call("untilSignedByOwner", alice.user_id, laptop.device_id)


async def test_an_old_device_asks_a_new_one(stage: Stage) -> None:
    alice = await stage.person(stage.home, "alice")
    await alice.call("bootstrapCrossSigning")
    laptop = await stage.another_device(alice)
    await alice.until_devices(alice.user_id, alice.device_id, laptop.device_id)
    await verify(alice, laptop, userId=alice.user_id, deviceId=laptop.device_id)
    await alice.call("untilCrossSigned", alice.user_id, laptop.device_id)
    await laptop.call("untilCrossSigned", alice.user_id, alice.device_id)


async def test_two_people_verify_each_other_in_a_room(stage: Stage) -> None:
    """The requests are encrypted messages of the room; the signatures reach both servers."""
    alice, bob = await stage.couple()
    for person in (alice, bob):
        await person.call("bootstrapCrossSigning")
    room_id = await stage.room_of(alice, bob)
    for one, other in ((alice, bob), (bob, alice)):
        await one.call("untilSignedByOwner", other.user_id, other.device_id)
    await verify(alice, bob, userId=bob.user_id, roomId=room_id)
    for one, other in ((alice, bob), (bob, alice)):
        await one.call("untilUserVerified", other.user_id)
        await one.call("untilCrossSigned", other.user_id, other.device_id)
    # Whom Alice has verified, she has verified on her other devices too, and nobody else is told.
    laptop = await stage.another_device(alice)
    await alice.until_devices(alice.user_id, alice.device_id, laptop.device_id)
    await verify(laptop, alice)
    await laptop.call("untilCrossSigned", bob.user_id, bob.device_id)
    told = await bob.client.post("/keys/query", {"device_keys": {bob.user_id: []}})
    assert alice.user_id not in told["master_keys"][bob.user_id].get("signatures", {})


async def test_a_single_device_is_verified(stage: Stage) -> None:
    """By messages to devices alone, between two servers."""
    alice, bob = await stage.couple()
    for person in (alice, bob):
        await person.call("bootstrapCrossSigning")
    await stage.room_of(alice, bob)
    for one, other in ((alice, bob), (bob, alice)):
        await one.call("untilSignedByOwner", other.user_id, other.device_id)
    await verify(bob, alice, userId=alice.user_id, deviceId=alice.device_id)
    for one, other in ((alice, bob), (bob, alice)):
        await one.call("untilCrossSigned", other.user_id, other.device_id)


@pytest.mark.parametrize("in_room", [False, True])
async def test_emoji_that_differ(stage: Stage, in_room: bool) -> None:
    alice, bob = await stage.couple()
    for person in (alice, bob):
        await person.call("bootstrapCrossSigning")
    room_id = await stage.room_of(alice, bob)
    for one, other in ((alice, bob), (bob, alice)):
        await one.call("untilSignedByOwner", other.user_id, other.device_id)
    where = {"roomId": room_id} if in_room else {"deviceId": bob.device_id}
    await alice.call("requestVerification", {"userId": bob.user_id, **where})
    await bob.call("acceptVerification")
    async with asyncio.TaskGroup() as group:
        group.create_task(bob.call("startSas"))
        group.create_task(alice.call("followSas"))
    await bob.call("rejectSas")
    assert await alice.call("untilVerificationCancelled") == "m.mismatched_sas"
    assert not await alice.call("isUserVerified", bob.user_id)
