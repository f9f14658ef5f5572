"""A room of a Synapse or of this server keeps the other one out.

Both are called after this machine; so that the access control list tells them apart, ours is called by its address.

https://spec.matrix.org/v1.19/server-server-api/#server-access-control-lists-acls
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from synapse_compat_tests.federation.conftest import NewHeliograph, Pair
from synapse_compat_tests.federation.rooms import bodies, until_event
from synapse_compat_tests.federation.servers import OurSide
from tests.federation.servers.rooms import (
    act,
    join,
    membership,
    set_state,
    try_join,
    until_content,
    until_membership,
    until_seen,
)

ACL = "m.room.server_acl"


@pytest.fixture(scope="module")
async def our_side(new_heliograph: NewHeliograph) -> AsyncIterator[OurSide]:
    """A Heliograph whose name is an address."""
    async with new_heliograph(host="127.0.0.1") as side:
        yield side


def keeping_out(resident: str) -> dict[str, Any]:
    """A list that lets the server of the room in, and not the other one."""
    if resident == "ours":
        return {"allow": ["*"], "deny": ["LOCAL*"], "allow_ip_literals": True}
    return {"allow": ["*"], "deny": [], "allow_ip_literals": False}


async def test_nothing_comes_in_from_a_server_that_is_kept_out(pair: Pair, resident: str) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await pair.share_room()
    acl = keeping_out(resident)
    await set_state(alice, room_id, ACL, acl)
    await until_content(bob, room_id, ACL, acl)
    await bob.send(room_id, "from outside")
    async with pair.away.user(bob.user_id.split(":")[0][1:] + "-friend") as friend:
        assert (await try_join(friend, room_id, pair.home.name)).status in (200, 403)
        await bob.put(f"/rooms/{room_id}/typing/{bob.user_id}", {"typing": True, "timeout": 30_000})
        # In another room the same server is heard: when that has come, so has what was sent before it.
        other = await alice.create_room(preset="public_chat")
        await join(bob, other, pair.home.name)
        await bob.send(other, "here I may")
        await until_seen(alice, other, "here I may")
        assert "from outside" not in bodies(await alice.history(room_id))
        assert await membership(alice, room_id, friend.user_id) is None
    synced = (await alice.sync())["rooms"]["join"][room_id]
    typing = [event for event in synced["ephemeral"]["events"] if event["type"] == "m.typing"]
    assert all(event["content"]["user_ids"] == [] for event in typing)

    open_again = {"allow": ["*"], "deny": [], "allow_ip_literals": True}
    await set_state(alice, room_id, ACL, open_again)
    event_id = await alice.send(room_id, "come in again")
    await until_event(bob, room_id, event_id)
    await bob.send(room_id, "thanks")
    await until_seen(alice, room_id, "thanks")


async def test_nobody_joins_from_a_server_that_is_kept_out(pair: Pair, resident: str) -> None:
    acl = {"type": ACL, "state_key": "", "content": keeping_out(resident)}
    room_id = await pair.alice.create_room(preset="public_chat", initial_state=[acl])
    assert (await try_join(pair.bob, room_id, pair.home.name)).status == 403
    await set_state(pair.alice, room_id, ACL, {"allow": ["*"], "allow_ip_literals": True})
    await join(pair.bob, room_id, pair.home.name)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "join")
    await act(pair.bob, "leave", room_id)


async def test_a_room_for_everybody_is_there_for_both_names(pair: Pair) -> None:
    room_id = await pair.share_room()
    await pair.bob.send(room_id, "by another name")
    await until_seen(pair.alice, room_id, "by another name")
