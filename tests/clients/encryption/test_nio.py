"""matrix-nio with its encryption: among its own, and with matrix-js-sdk, across servers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from nio import EnableEncryptionBuilder, RoomCreateResponse

from tests.clients.encryption.nio_devices import NioDevice, nio_device
from tests.clients.encryption.stage import WAIT_SECONDS_MAX, Place, Stage
from tests.clients.nio_clients import good
from tests.waiting import wait_until

NewDevice = Callable[[Place, str], Awaitable[NioDevice]]

pytestmark = [
    pytest.mark.seconds_max(180),
    # Of nio itself, with newer versions of its own dependencies.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:nio.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:aiohttp.*"),
]


@pytest.fixture
async def nio(stage: Stage, tmp_path: Path) -> AsyncIterator[NewDevice]:
    """Makes new users with a device of matrix-nio."""
    async with AsyncExitStack() as stack:

        async def new(place: Place, name: str) -> NioDevice:
            client = await stage.client(place, name)
            return await stack.enter_async_context(nio_device(client, tmp_path))

        yield new


async def test_with_users_of_matrix_js_sdk(stage: Stage, nio: NewDevice) -> None:
    """Three users on two servers, who all read each other."""
    alice = await stage.person(stage.home, "alice")
    bob, carol = await nio(stage.away, "bob"), await nio(stage.home, "carol")
    room_id = await alice.create_room(invite=[bob.user_id, carol.user_id])
    for other in (bob, carol):
        await other.join(room_id)
    everybody = [person.user_id for person in (alice, bob, carol)]
    await alice.call("untilMembers", room_id, everybody)
    for other in (bob, carol):
        await other.until_members(room_id, *everybody)
    said: list[str] = []
    for person in (alice, bob, carol, alice, bob):
        said.append(f"{len(said)} by {person.user_id}")
        await person.send(room_id, said[-1])
        await alice.until_read(room_id, *said)
        for other in (bob, carol):
            await other.until_read(*said)


async def test_devices_verify_each_other(stage: Stage, nio: NewDevice) -> None:
    """By emoji, with messages to devices between two servers."""
    alice, bob = await nio(stage.home, "alice"), await nio(stage.away, "bob")
    created = await alice.client.room_create(invite=[bob.user_id], initial_state=[EnableEncryptionBuilder().as_dict()])
    room_id = good(created, RoomCreateResponse).room_id
    await bob.join(room_id)
    for device in (alice, bob):
        await device.until_members(room_id, alice.user_id, bob.user_id)
    # It takes no notice of devices that it does not know yet.
    await bob.known_device(alice)
    begun = await alice.start_sas(bob)
    accepted = await bob.accept_sas()
    assert await alice.emoji(begun) == await bob.emoji(accepted)
    await alice.confirm(begun)
    await bob.confirm(accepted)
    await wait_until(lambda: begun.verified and accepted.verified, seconds_max=WAIT_SECONDS_MAX)
    assert (await alice.known_device(bob)).verified
    assert (await bob.known_device(alice)).verified
