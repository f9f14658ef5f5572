"""Users of two servers in one room: how they get in, and out.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms and the sections that follow it
"""

import pytest

from tests.federation.servers.conftest import Pair
from tests.federation.servers.rooms import (
    act,
    join,
    membership,
    set_state,
    try_join,
    until_agreed,
    until_invited,
    until_membership,
    until_out,
    until_seen,
    until_synced,
)

VERSIONS = ("1", "6", "10", "11", "12")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_public_room_is_joined_and_talked_in(pair: Pair, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="public_chat", room_version=version, name="Everybody")
    await alice.send(room_id, "before")
    assert await join(bob, room_id, pair.one.name) == room_id
    assert await membership(bob, room_id, bob.user_id) == "join"
    await until_membership(alice, room_id, bob.user_id, "join")

    await bob.send(room_id, "from two")
    await until_seen(alice, room_id, "from two")
    await alice.send(room_id, "from one")
    await until_seen(bob, room_id, "from one")
    state = await until_agreed(room_id, pair.places)
    assert state["m.room.name", ""]["content"] == {"name": "Everybody"}


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_invitation_is_accepted(pair: Pair, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="private_chat", room_version=version, name="Few")
    assert (await try_join(bob, room_id, pair.one.name)).status == 403
    await act(alice, "invite", room_id, user_id=bob.user_id)
    stripped = {event["type"]: event for event in await until_invited(bob, room_id)}
    assert stripped["m.room.name"]["content"] == {"name": "Few"}
    assert stripped["m.room.member"]["content"]["membership"] == "invite"
    await join(bob, room_id)
    await bob.send(room_id, "thanks")
    await until_seen(alice, room_id, "thanks")
    await until_agreed(room_id, pair.places)


async def test_an_invitation_is_rejected(pair: Pair) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="private_chat")
    await act(alice, "invite", room_id, user_id=bob.user_id)
    await until_invited(bob, room_id)
    await act(bob, "leave", room_id)
    await until_membership(alice, room_id, bob.user_id, "leave")
    answer = await bob.sync()
    assert room_id not in answer.get("rooms", {}).get("invite", {})


async def test_an_invitation_is_taken_back(pair: Pair) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="private_chat")
    await act(alice, "invite", room_id, user_id=bob.user_id)
    await until_invited(bob, room_id)
    await act(alice, "kick", room_id, user_id=bob.user_id)
    await until_synced(bob, lambda answer: room_id not in answer.get("rooms", {}).get("invite", {}))
    assert (await try_join(bob, room_id, pair.one.name)).status == 403


async def test_a_direct_chat_by_invitation_at_creation(pair: Pair) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="trusted_private_chat", invite=[bob.user_id], is_direct=True)
    stripped = await until_invited(bob, room_id)
    own = next(event for event in stripped if event["type"] == "m.room.member" and event["state_key"] == bob.user_id)
    assert own["content"]["is_direct"] is True
    await join(bob, room_id)
    state = await until_agreed(room_id, pair.places)
    assert state["m.room.member", bob.user_id]["content"]["membership"] == "join"


@pytest.mark.parametrize("version", ["7", "11", "12"])
async def test_a_knock_is_answered(pair: Pair, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="private_chat", room_version=version)
    await set_state(alice, room_id, "m.room.join_rules", {"join_rule": "knock"})
    knock = await bob.call("POST", f"/knock/{room_id}?server_name={pair.one.name}&via={pair.one.name}", {"reason": "?"})
    assert (knock.status, knock.body) == (200, {"room_id": room_id})
    await until_membership(alice, room_id, bob.user_id, "knock")
    await until_synced(bob, lambda answer: room_id in answer.get("rooms", {}).get("knock", {}))

    await act(alice, "invite", room_id, user_id=bob.user_id)
    await until_invited(bob, room_id)
    await join(bob, room_id)
    await until_agreed(room_id, pair.places)


@pytest.mark.parametrize("version", ["8", "10", "12"])
async def test_a_restricted_room_opens_to_members_of_another(pair: Pair, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    club = await alice.create_room(preset="public_chat", room_version=version)
    room_id = await alice.create_room(preset="private_chat", room_version=version)
    allow = [{"type": "m.room_membership", "room_id": club}]
    await set_state(alice, room_id, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
    assert (await try_join(bob, room_id, pair.one.name)).status == 403

    await join(bob, club, pair.one.name)
    await join(bob, room_id, pair.one.name)
    state = await until_agreed(room_id, pair.places)
    content = state["m.room.member", bob.user_id]["content"]
    assert content["join_authorised_via_users_server"] == alice.user_id


async def test_leaving_and_coming_back(pair: Pair) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="public_chat")
    await join(bob, room_id, pair.one.name)
    await bob.send(room_id, "here")
    await until_seen(alice, room_id, "here")
    await act(bob, "leave", room_id)
    await until_membership(alice, room_id, bob.user_id, "leave")
    await set_state(alice, room_id, "m.room.topic", {"topic": "while you were away"})
    await alice.send(room_id, "unheard")

    await join(bob, room_id, pair.one.name)
    await alice.send(room_id, "welcome back")
    await until_seen(bob, room_id, "welcome back")
    state = await until_agreed(room_id, pair.places)
    assert state["m.room.topic", ""]["content"]["topic"] == "while you were away"


async def test_who_is_banned_stays_out(pair: Pair) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="public_chat")
    await join(bob, room_id, pair.one.name)
    await until_membership(alice, room_id, bob.user_id, "join")
    await act(alice, "ban", room_id, user_id=bob.user_id, reason="why not")
    await until_out(bob, room_id)
    assert (await try_join(bob, room_id, pair.one.name)).status == 403
    refused = await bob.call("PUT", f"/rooms/{room_id}/send/m.room.message/1", {"body": "but", "msgtype": "m.text"})
    assert refused.status == 403

    await act(alice, "unban", room_id, user_id=bob.user_id)
    await join(bob, room_id, pair.one.name)
    await until_agreed(room_id, pair.places)


async def test_a_room_that_may_not_be_joined(pair: Pair) -> None:
    closed = await pair.alice.create_room(preset="private_chat")
    local = await pair.alice.create_room(preset="public_chat", creation_content={"m.federate": False})
    assert (await try_join(pair.bob, closed, pair.one.name)).status == 403
    assert (await try_join(pair.bob, local, pair.one.name)).status == 403
    assert (await try_join(pair.bob, "!absent:" + pair.one.name, pair.one.name)).status in (403, 404)


async def test_joining_through_a_third_server(pair: Pair) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="public_chat")
    await join(bob, room_id, pair.one.name)
    (three,) = await pair.deployment.start()
    async with three.user("carol") as carol:
        await join(carol, room_id, pair.two.name)
        await until_membership(alice, room_id, carol.user_id, "join")
        await alice.send(room_id, "hello both")
        await until_seen(carol, room_id, "hello both")
        await carol.send(room_id, "hello back")
        await until_seen(alice, room_id, "hello back")
        await until_seen(bob, room_id, "hello back")
        await until_agreed(room_id, [*pair.places, (three, carol)])
