"""Users of a Synapse and of this server in one room: how they get in, and out; each is resident in turn.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms and the sections that follow it
"""

import pytest

from synapse_compat_tests.federation.conftest import Pair
from tests.federation.servers.rooms import (
    act,
    join,
    membership,
    set_state,
    try_join,
    until_invited,
    until_membership,
    until_seen,
    until_synced,
)
from synapse_compat_tests.federation.rooms import until_agreed

VERSIONS = ("1", "6", "10", "11", "12")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_public_room_is_joined_and_talked_in(pair: Pair, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="public_chat", room_version=version, name="Everybody")
    await alice.send(room_id, "before")
    assert await join(bob, room_id, pair.home.name) == room_id
    assert await membership(bob, room_id, bob.user_id) == "join"
    await until_membership(alice, room_id, bob.user_id, "join")

    await bob.send(room_id, "from away")
    await until_seen(alice, room_id, "from away")
    await alice.send(room_id, "from home")
    await until_seen(bob, room_id, "from home")
    state = await until_agreed(room_id, pair.clients)
    assert state["m.room.name", ""]["content"] == {"name": "Everybody"}
