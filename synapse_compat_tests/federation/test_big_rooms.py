"""Rooms with many members: the answer to a join may leave them out at first, in both directions.

https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid (`omit_members`)
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from synapse_compat_tests.federation.conftest import Pair
from synapse_compat_tests.federation.rooms import until_agreed
from synapse_compat_tests.federation.servers import OurSide, SynapseSide
from tests.federation.servers.rooms import act, join, set_state, until_membership, until_seen
from tests.real_client import Client
from tests.waiting import wait_until

JOINED, BANNED = 12, 150


@pytest.fixture
async def crowd(pair: Pair) -> AsyncIterator[list[Client]]:
    """Some more users of Alice's server."""
    stem = pair.alice.user_id.split(":")[0][1:]
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(pair.home.user(f"{stem}-{number}")) for number in range(JOINED)]


async def big_room(pair: Pair, crowd: list[Client], version: str) -> str:
    """A room of Alice with many members, and many more who are banned."""
    room_id = await pair.alice.create_room(preset="public_chat", room_version=version, name="Big")
    for member in crowd:
        await join(member, room_id)
    for number in range(BANNED):
        await act(pair.alice, "ban", room_id, user_id=f"@nobody{number}:{pair.home.name}")
    return room_id


@pytest.mark.seconds_max(180)
@pytest.mark.parametrize("version", ["1", "11", "12"])
async def test_a_big_room_is_joined(pair: Pair, crowd: list[Client], synapse_side: SynapseSide, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await big_room(pair, crowd, version)
    await join(bob, room_id, pair.home.name)
    # Both can talk at once, whether or not all members are known yet.
    await bob.send(room_id, "so many")
    await until_seen(alice, room_id, "so many")
    await crowd[0].send(room_id, "welcome")
    await until_seen(bob, room_id, "welcome")

    state = await until_agreed(room_id, pair.clients, seconds_max=60)
    members = [event["content"]["membership"] for slot, event in state.items() if slot[0] == "m.room.member"]
    assert (members.count("join"), members.count("ban")) == (JOINED + 2, BANNED)
    joined = await bob.get(f"/rooms/{room_id}/joined_members")
    assert len(joined["joined"]) == JOINED + 2
    synced = (await bob.sync())["rooms"]["join"][room_id]
    assert synced["summary"].get("m.joined_member_count", JOINED + 2) == JOINED + 2

    # The members were left out at first, whoever was asked.
    if isinstance(pair.away, OurSide):
        assert "omit_members=true" in synapse_side.process.log
    else:
        assert f"State resync complete for {room_id}" in synapse_side.process.log


@pytest.mark.seconds_max(120)
async def test_what_happens_while_members_are_fetched(pair: Pair, crowd: list[Client]) -> None:
    """State changes, joins and bans that arrive meanwhile are all there in the end."""
    alice, bob = pair.alice, pair.bob
    room_id = await big_room(pair, crowd[:6], "11")
    await join(bob, room_id, pair.home.name)
    await join(crowd[6], room_id)
    await set_state(alice, room_id, "m.room.topic", {"topic": "meanwhile"})
    await act(alice, "ban", room_id, user_id=crowd[0].user_id)
    await act(crowd[1], "leave", room_id)
    await bob.send(room_id, "meanwhile")
    await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Bob meanwhile"})
    state = await until_agreed(room_id, pair.clients, seconds_max=60)
    assert state["m.room.member", crowd[0].user_id]["content"]["membership"] == "ban"
    assert state["m.room.member", crowd[1].user_id]["content"]["membership"] == "leave"
    assert state["m.room.member", crowd[6].user_id]["content"]["membership"] == "join"
    assert state["m.room.topic", ""]["content"]["topic"] == "meanwhile"
    await until_membership(bob, room_id, crowd[1].user_id, "leave")


@pytest.mark.seconds_max(120)
async def test_who_comes_and_goes_while_members_are_fetched(pair: Pair, crowd: list[Client]) -> None:
    """Bob leaves before his server knows all members, and comes back."""
    room_id = await big_room(pair, crowd[:3], "11")
    for _ in range(2):
        await join(pair.bob, room_id, pair.home.name)
        if isinstance(pair.away, SynapseSide):
            # A Synapse (1.163) goes on to ask when it has left, is refused, and never knows the members after that.
            await until_agreed(room_id, pair.clients)
        await act(pair.bob, "leave", room_id)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "leave")
    await join(pair.bob, room_id, pair.home.name)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "join")

    async def is_complete() -> bool:
        joined = await pair.bob.get(f"/rooms/{room_id}/joined_members")
        return len(joined["joined"]) == 5

    await wait_until(is_complete)
    await pair.bob.send(room_id, "here to stay")
    await until_seen(pair.alice, room_id, "here to stay")
    await until_agreed(room_id, pair.clients, seconds_max=60)
