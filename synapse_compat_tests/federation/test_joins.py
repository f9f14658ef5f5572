"""Users of a Synapse and of this server join each other's rooms, and leave them; each is resident in turn.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

import pytest

from synapse_compat_tests.federation.conftest import Pair
from synapse_compat_tests.federation.rooms import VERSIONS, until_agreed
from tests.federation.servers.rooms import (
    act,
    join,
    membership,
    set_state,
    try_join,
    until_membership,
    until_out,
    until_seen,
)
from tests.real_client import new_user


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


async def test_a_room_is_joined_by_its_alias(pair: Pair) -> None:
    localpart = f"lounge-{pair.alice.user_id.split(':')[0][1:]}"
    room_id = await pair.alice.create_room(preset="public_chat", room_alias_name=localpart)
    assert await join(pair.bob, f"#{localpart}:{pair.home.name}") == room_id
    await until_membership(pair.alice, room_id, pair.bob.user_id, "join")
    await until_agreed(room_id, pair.clients)


async def test_others_follow_through_their_own_server(pair: Pair) -> None:
    room_id = await pair.share_room()
    async with new_user(pair.bob.url, pair.bob.user_id.split(":")[0][1:] + "-friend") as friend:
        await join(friend, room_id)
        await until_membership(pair.alice, room_id, friend.user_id, "join")
        await pair.alice.send(room_id, "hello both")
        await until_seen(friend, room_id, "hello both")
        await act(pair.bob, "leave", room_id)
        await until_membership(pair.alice, room_id, pair.bob.user_id, "leave")
        await friend.send(room_id, "still here")
        await until_seen(pair.alice, room_id, "still here")
        await until_agreed(room_id, [pair.alice, friend])


@pytest.mark.parametrize("version", ["1", "10", "12"])
async def test_leaving_and_coming_back(pair: Pair, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await pair.share_room(room_version=version)
    await bob.send(room_id, "here")
    await until_seen(alice, room_id, "here")
    await act(bob, "leave", room_id)
    await until_membership(alice, room_id, bob.user_id, "leave")
    await set_state(alice, room_id, "m.room.topic", {"topic": "while you were away"})
    await alice.send(room_id, "unheard")

    await join(bob, room_id, pair.home.name)
    await until_membership(alice, room_id, bob.user_id, "join")
    await alice.send(room_id, "welcome back")
    await until_seen(bob, room_id, "welcome back")
    state = await until_agreed(room_id, pair.clients)
    assert state["m.room.topic", ""]["content"]["topic"] == "while you were away"


async def test_coming_back_to_a_room_that_was_forgotten(pair: Pair) -> None:
    room_id = await pair.share_room()
    for number in range(2):
        await act(pair.bob, "leave", room_id)
        await act(pair.bob, "forget", room_id)
        await until_membership(pair.alice, room_id, pair.bob.user_id, "leave")
        await pair.alice.send(room_id, f"unheard {number}")
        await join(pair.bob, room_id, pair.home.name)
        await until_membership(pair.alice, room_id, pair.bob.user_id, "join")
        await pair.bob.send(room_id, f"back {number}")
        await until_seen(pair.alice, room_id, f"back {number}")
    await until_agreed(room_id, pair.clients)


async def test_the_creator_comes_back_through_the_other_server(pair: Pair) -> None:
    """Once the server that made the room has left it, the other one is resident, and lets it in again."""
    room_id = await pair.share_room()
    await act(pair.alice, "leave", room_id)
    await until_membership(pair.bob, room_id, pair.alice.user_id, "leave")
    await pair.bob.send(room_id, "alone")
    await join(pair.alice, room_id, pair.away.name)
    await until_membership(pair.bob, room_id, pair.alice.user_id, "join")
    await pair.alice.send(room_id, "not any more")
    await until_seen(pair.bob, room_id, "not any more")
    await until_agreed(room_id, pair.clients)


@pytest.mark.parametrize("version", ["1", "10", "12"])
async def test_who_is_banned_stays_out(pair: Pair, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await pair.share_room(room_version=version)
    await act(alice, "ban", room_id, user_id=bob.user_id, reason="why not")
    await until_out(bob, room_id)
    assert (await try_join(bob, room_id, pair.home.name)).status == 403
    refused = await bob.call("PUT", f"/rooms/{room_id}/send/m.room.message/1", {"body": "but", "msgtype": "m.text"})
    assert refused.status == 403

    await act(alice, "unban", room_id, user_id=bob.user_id)
    await join(bob, room_id, pair.home.name)
    await until_membership(alice, room_id, bob.user_id, "join")
    state = await until_agreed(room_id, pair.clients)
    assert "reason" not in state["m.room.member", bob.user_id]["content"]


async def test_who_is_banned_before_they_came(pair: Pair) -> None:
    room_id = await pair.alice.create_room(preset="public_chat")
    await act(pair.alice, "ban", room_id, user_id=pair.bob.user_id)
    assert (await try_join(pair.bob, room_id, pair.home.name)).status == 403


async def test_a_kick_by_the_other_server(pair: Pair) -> None:
    """Bob becomes a moderator, and removes Alice from her own room."""
    alice, bob = pair.alice, pair.bob
    room_id = await pair.share_room(room_version="11")
    await set_state(alice, room_id, "m.room.power_levels", {"users": {bob.user_id: 100, alice.user_id: 50}})
    await until_agreed(room_id, pair.clients)
    await act(bob, "kick", room_id, user_id=alice.user_id, reason="my turn")
    await until_out(alice, room_id)
    await until_membership(bob, room_id, alice.user_id, "leave")
    await join(alice, room_id, pair.away.name)
    await until_membership(bob, room_id, alice.user_id, "join")
    await until_agreed(room_id, pair.clients)


async def test_rooms_that_may_not_be_joined(pair: Pair) -> None:
    closed = await pair.alice.create_room(preset="private_chat")
    local = await pair.alice.create_room(preset="public_chat", creation_content={"m.federate": False})
    assert (await try_join(pair.bob, closed, pair.home.name)).status == 403
    assert (await try_join(pair.bob, local, pair.home.name)).status == 403
    # A Synapse says 502 to its user when no server knows the room.
    assert (await try_join(pair.bob, f"!absent:{pair.home.name}", pair.home.name)).status in (404, 502)
    assert (await try_join(pair.bob, f"#absent:{pair.home.name}")).status == 404
