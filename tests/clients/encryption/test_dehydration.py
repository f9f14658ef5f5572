"""A user without any device is still sent keys: to a dehydrated one, which the next device takes over.

https://github.com/matrix-org/matrix-spec-proposals/pull/3814
"""

import pytest

from tests.clients.encryption.stage import Stage

pytestmark = pytest.mark.seconds_max(180)


async def test_what_was_said_while_a_user_had_no_device(stage: Stage) -> None:
    alice, bob = await stage.couple()
    await bob.call("bootstrapCrossSigning")
    recovery_key = await bob.call("bootstrapSecretStorage")
    assert await bob.call("isDehydrationSupported")
    assert await bob.call("startDehydration") == ["dehydration.DehydratedDeviceUploaded"]
    room_id = await stage.room_of(alice, bob)
    devices = (await bob.client.get("/devices"))["devices"]
    (asleep,) = (device["device_id"] for device in devices if device["device_id"] != bob.device_id)
    await alice.until_devices(bob.user_id, bob.device_id, asleep)
    await alice.call("untilSignedByOwner", bob.user_id, asleep)
    assert (await alice.call("devicesOf", bob.user_id))[asleep]["isDehydrated"]
    await bob.call("logout")
    await alice.until_devices(bob.user_id, asleep)
    await alice.send(room_id, "while you were away")

    phone = await stage.another_device(bob)
    await phone.until_read(room_id, None)
    await phone.call("useRecoveryKey", recovery_key)
    await phone.call("bootstrapCrossSigning")
    done = await phone.call("startDehydration")
    assert done == ["dehydration.RehydrationCompleted", "dehydration.DehydratedDeviceUploaded"]
    await phone.until_read(room_id, "while you were away")
    after = {device["device_id"] for device in (await phone.client.get("/devices"))["devices"]}
    assert phone.device_id in after
    assert asleep not in after
    assert len(after) == 2
