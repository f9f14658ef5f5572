"""A server that is away while others have something for the devices of its users.

https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption
https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging
"""

import pytest

from tests.clients.encryption.stage import WAIT_SECONDS_MAX, Stage
from tests.waiting import wait_until

pytestmark = pytest.mark.seconds_max(180)

# What matrix-js-sdk does not ask a server for, after it has failed once.
FORGIVEN_SECONDS = 3600


@pytest.mark.parametrize("also_stops", [False, True])
async def test_keys_for_messages_reach_a_server_that_was_away(fast_stage: Stage, also_stops: bool) -> None:
    """They wait at the sender's server, and survive its own restart."""
    stage = fast_stage
    alice, bob = await stage.couple()
    room_id = await stage.room_of(alice, bob)
    await alice.send(room_id, "before")
    await bob.until_read(room_id, "before")
    await bob.close()
    await stage.away.stop()
    await alice.call("forgetSession", room_id)
    await alice.send(room_id, "meanwhile")
    await alice.call("forgetSession", room_id)
    await alice.send(room_id, "again")
    if also_stops:
        await alice.close()
        await stage.home.stop()
        await stage.home.start()
        await alice.open()
    await stage.away.start()
    await bob.open()
    await bob.until_read(room_id, "before", "meanwhile", "again")
    await bob.send(room_id, "I am back")
    await alice.until_read(room_id, "before", "meanwhile", "again", "I am back")


async def test_keys_that_cannot_be_claimed_while_a_server_is_away(fast_stage: Stage) -> None:
    """Others are written to meanwhile; once the server is back, its users read what is said from then on."""
    stage = fast_stage
    alice, bob = await stage.couple()
    carol = await stage.person(stage.home, "carol")
    room_id = await stage.room_of(alice, bob, carol)
    await alice.until_devices(bob.user_id, bob.device_id)
    await stage.away.stop()
    await alice.send(room_id, "meanwhile")
    await carol.until_read(room_id, "meanwhile")
    await stage.away.start()
    claim = {"one_time_keys": {bob.user_id: {bob.device_id: "signed_curve25519"}}}

    async def can_be_claimed() -> bool:
        return bool((await carol.client.post("/keys/claim", claim))["failures"] == {})

    await wait_until(can_be_claimed, seconds_max=WAIT_SECONDS_MAX)
    await stage.program.pass_time(FORGIVEN_SECONDS)
    await alice.send(room_id, "afterwards")
    await bob.until_read(room_id, None, "afterwards")
    await bob.send(room_id, "I am back")
    for person in (alice, carol):
        await person.until_read(room_id, "meanwhile", "afterwards", "I am back")


async def test_changed_devices_of_a_server_that_was_away(fast_stage: Stage) -> None:
    """What its users' devices did before it could tell, others learn when both are there."""
    stage = fast_stage
    alice, bob = await stage.couple()
    room_id = await stage.room_of(alice, bob)
    await alice.until_devices(bob.user_id, bob.device_id)
    await alice.close()
    await stage.home.stop()
    laptop = await stage.another_device(bob)
    await laptop.until_members(room_id, bob)
    await stage.home.start()
    await alice.open()
    await alice.until_devices(bob.user_id, bob.device_id, laptop.device_id)
    await alice.send(room_id, "to both")
    for device in (bob, laptop):
        await device.until_read(room_id, "to both")
