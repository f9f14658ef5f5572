"""The test servers themselves: they start quickly, serve clients and servers, and come back on their databases."""

import time

from tests.federation.deployment import Deployment
from tests.federation.peer import Peer


async def test_servers_start_and_serve(deployment: Deployment, peer: Peer) -> None:
    started = time.monotonic()
    one, two = await deployment.start(2)
    assert time.monotonic() - started < 4
    assert one.name != two.name
    async with one.user("alice") as alice, two.user("bob") as bob:
        assert alice.user_id == f"@alice:{one.name}"
        assert bob.user_id == f"@bob:{two.name}"


async def test_a_server_comes_back(deployment: Deployment) -> None:
    (one,) = await deployment.start()
    async with one.user("alice") as alice:
        room_id = await alice.create_room(name="Kept")
        await one.stop()
        await deployment.restart(one)
        assert (await alice.get("/joined_rooms"))["joined_rooms"] == [room_id]
