"""Secrets and keys that are kept on the server, encrypted, and restored on a new device.

https://spec.matrix.org/v1.19/client-server-api/#secrets
https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups
"""

import pytest

from tests.clients.encryption.stage import WAIT_SECONDS_MAX, Stage
from tests.clients.javascript import JsDevice
from tests.waiting import wait_until

pytestmark = pytest.mark.seconds_max(180)


async def until_backed_up(device: JsDevice, count: int) -> None:
    """Waits until so many keys are in the current backup."""

    async def holds() -> bool:
        return bool((await device.client.get("/room_keys/version"))["count"] == count)

    await wait_until(holds, seconds_max=WAIT_SECONDS_MAX)


async def test_a_new_device_restores_all_with_the_recovery_key(stage: Stage) -> None:
    """Its cross-signing keys, other secrets, the backup, and by that the whole history."""
    alice, bob = await stage.couple()
    await alice.call("bootstrapCrossSigning")
    recovery_key = await alice.call("bootstrapSecretStorage")
    assert await alice.call("isReady") == {"crossSigning": True, "secretStorage": True}
    await alice.call("storeSecret", "org.example.secret", "the answer is 42")
    room_id = await stage.room_of(alice, bob)
    for person, body in ((alice, "one"), (bob, "two"), (bob, "three")):
        await person.send(room_id, body)
    await alice.until_read(room_id, "one", "two", "three")
    await until_backed_up(alice, 2)
    await alice.call("logout")

    laptop = await stage.another_device(alice)
    await laptop.until_read(room_id, None, None, None)
    await laptop.call("useRecoveryKey", recovery_key)
    await laptop.call("bootstrapCrossSigning")
    await laptop.call("untilReady")
    assert await laptop.call("restoreBackup") == {"imported": 2, "total": 2}
    await laptop.until_read(room_id, "one", "two", "three")
    assert await laptop.call("secret", "org.example.secret") == "the answer is 42"
    await bob.call("untilSignedByOwner", alice.user_id, laptop.device_id)

    # What comes now goes into the same backup.
    await bob.until_devices(alice.user_id, laptop.device_id)
    await bob.send(room_id, "four")
    await laptop.until_read(room_id, "one", "two", "three", "four")
    await until_backed_up(laptop, 3)


async def test_another_backup_takes_the_place_of_the_first(stage: Stage) -> None:
    """Other devices find out when they upload the next key, and go on with the new one."""
    alice, bob = await stage.couple()
    await alice.call("bootstrapCrossSigning")
    recovery_key = await alice.call("bootstrapSecretStorage")
    first = await alice.call("activeBackup")
    laptop = await stage.another_device(alice)
    await laptop.call("useRecoveryKey", recovery_key)
    await laptop.call("bootstrapCrossSigning")
    await laptop.call("restoreBackup")
    assert await laptop.call("activeBackup") == first
    await alice.call("resetBackup")
    second = await alice.call("activeBackup")
    assert second != first
    room_id = await stage.room_of(bob, alice)
    await laptop.until_members(room_id, bob, alice)
    await bob.send(room_id, "hello")
    for device in (alice, laptop):
        await device.until_read(room_id, "hello")
    await until_backed_up(alice, 1)
    await laptop.call("untilBackupIs", second)
    assert (await alice.client.call("GET", f"/room_keys/version/{first}")).status == 404
