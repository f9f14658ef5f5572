"""Knocks, and rooms that open to members of others, between a Synapse and this server.

https://spec.matrix.org/v1.19/server-server-api/#knocking-upon-a-room
https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms
"""

import pytest

from synapse_compat_tests.federation.conftest import Pair
from synapse_compat_tests.federation.rooms import until_agreed, until_member
from tests.federation.servers.rooms import (
    act,
    join,
    set_state,
    try_join,
    until_invited,
    until_membership,
    until_seen,
    until_synced,
)
from tests.real_client import Answer


async def knock(pair: Pair, room_id: str) -> Answer:
    """Bob knocks."""
    via = f"server_name={pair.home.name}&via={pair.home.name}"
    return await pair.bob.call("POST", f"/knock/{room_id}?{via}", {"reason": "let me in"})


async def knock_upon_new_room(pair: Pair, version: str, **rule: object) -> str:
    """A room of Alice upon which Bob has knocked, as both know."""
    room_id = await pair.alice.create_room(preset="private_chat", room_version=version, name="Closed")
    await set_state(pair.alice, room_id, "m.room.join_rules", {"join_rule": "knock", **rule})
    answer = await knock(pair, room_id)
    assert (answer.status, answer.body) == (200, {"room_id": room_id})
    await until_member(pair.alice, room_id, pair.bob.user_id, membership="knock", reason="let me in")
    synced = await until_synced(pair.bob, lambda answer: room_id in answer.get("rooms", {}).get("knock", {}))
    shown = {event["type"]: event for event in synced["rooms"]["knock"][room_id]["knock_state"]["events"]}
    assert shown["m.room.name"]["content"] == {"name": "Closed"}
    return room_id


@pytest.mark.parametrize("version", ["7", "10", "11", "12"])
async def test_a_knock_is_answered(pair: Pair, version: str) -> None:
    room_id = await knock_upon_new_room(pair, version)
    await act(pair.alice, "invite", room_id, user_id=pair.bob.user_id)
    await until_invited(pair.bob, room_id)
    await join(pair.bob, room_id)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "join")
    await pair.bob.send(room_id, "thanks")
    await until_seen(pair.alice, room_id, "thanks")
    await until_agreed(room_id, pair.clients)


@pytest.mark.parametrize("version", ["7", "12"])
async def test_a_knock_is_turned_down(pair: Pair, version: str) -> None:
    room_id = await knock_upon_new_room(pair, version)
    await act(pair.alice, "kick", room_id, user_id=pair.bob.user_id)
    await until_synced(pair.bob, lambda answer: room_id not in answer.get("rooms", {}).get("knock", {}))
    assert (await try_join(pair.bob, room_id, pair.home.name)).status == 403


@pytest.mark.parametrize("version", ["7", "12"])
async def test_a_knock_is_taken_back(pair: Pair, resident: str, version: str) -> None:
    room_id = await knock_upon_new_room(pair, version)
    await act(pair.bob, "leave", room_id)
    # A Synapse (1.163) tells nobody when one of its users takes a knock back.
    await until_membership(pair.alice, room_id, pair.bob.user_id, "knock" if resident == "ours" else "leave")
    await until_synced(pair.bob, lambda answer: room_id not in answer.get("rooms", {}).get("knock", {}))


async def test_rooms_that_cannot_be_knocked_upon(pair: Pair) -> None:
    closed = await pair.alice.create_room(preset="private_chat")
    assert (await knock(pair, closed)).status == 403
    too_old = await pair.alice.create_room(preset="public_chat", room_version="6")
    assert (await knock(pair, too_old)).status in (400, 403)
    banned = await pair.alice.create_room(preset="private_chat")
    await set_state(pair.alice, banned, "m.room.join_rules", {"join_rule": "knock"})
    await act(pair.alice, "ban", banned, user_id=pair.bob.user_id)
    assert (await knock(pair, banned)).status == 403


async def restricted_room(pair: Pair, version: str, rule: str = "restricted") -> tuple[str, str]:
    """A public room of Alice, and one that is open to its members only."""
    club = await pair.alice.create_room(preset="public_chat", room_version=version)
    room_id = await pair.alice.create_room(preset="private_chat", room_version=version)
    allow = [{"type": "m.room_membership", "room_id": club}]
    await set_state(pair.alice, room_id, "m.room.join_rules", {"join_rule": rule, "allow": allow})
    return club, room_id


@pytest.mark.parametrize("version", ["8", "9", "10", "11", "12"])
async def test_a_restricted_room_opens_to_members_of_another(pair: Pair, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    club, room_id = await restricted_room(pair, version)
    assert (await try_join(bob, room_id, pair.home.name)).status == 403

    await join(bob, club, pair.home.name)
    await until_membership(alice, club, bob.user_id, "join")
    await join(bob, room_id, pair.home.name)
    await until_membership(alice, room_id, bob.user_id, "join")
    state = await until_agreed(room_id, pair.clients)
    content = state["m.room.member", bob.user_id]["content"]
    assert content["join_authorised_via_users_server"] == alice.user_id
    await bob.send(room_id, "inside")
    await until_seen(alice, room_id, "inside")

    # Once inside, nobody need vouch for a change of name.
    await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Robert"})
    await until_member(alice, room_id, bob.user_id, membership="join", displayname="Robert")
    # Who has left, needs it again.
    await act(bob, "leave", room_id)
    await until_membership(alice, room_id, bob.user_id, "leave")
    await join(bob, room_id, pair.home.name)
    await until_membership(alice, room_id, bob.user_id, "join")
    await until_agreed(room_id, pair.clients)


@pytest.mark.parametrize("version", ["8", "12"])
async def test_an_invitation_into_a_restricted_room(pair: Pair, version: str) -> None:
    _, room_id = await restricted_room(pair, version)
    await act(pair.alice, "invite", room_id, user_id=pair.bob.user_id)
    await until_invited(pair.bob, room_id)
    await join(pair.bob, room_id)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "join")
    state = await until_agreed(room_id, pair.clients)
    assert "join_authorised_via_users_server" not in state["m.room.member", pair.bob.user_id]["content"]


@pytest.mark.parametrize("version", ["8", "12"])
async def test_a_guest_without_power_cannot_vouch(pair: Pair, version: str) -> None:
    """A second user of the guest's server must be vouched for by the resident one, for only it may invite."""
    club, room_id = await restricted_room(pair, version)
    levels = await pair.alice.get(f"/rooms/{room_id}/state/m.room.power_levels")
    await set_state(pair.alice, room_id, "m.room.power_levels", {**levels, "invite": 50})
    for room in (club, room_id):
        await join(pair.bob, room, pair.home.name)
        await until_membership(pair.alice, room, pair.bob.user_id, "join")
    async with pair.away.user(pair.bob.user_id.split(":")[0][1:] + "-friend") as friend:
        await join(friend, club)
        await until_membership(pair.alice, club, friend.user_id, "join")
        await join(friend, room_id, pair.home.name)
        await until_membership(pair.alice, room_id, friend.user_id, "join")
        state = await until_agreed(room_id, [*pair.clients, friend])
        content = state["m.room.member", friend.user_id]["content"]
        assert content["join_authorised_via_users_server"] == pair.alice.user_id


@pytest.mark.parametrize("version", ["10", "12"])
async def test_a_restricted_room_that_can_be_knocked_upon(pair: Pair, version: str) -> None:
    club, room_id = await restricted_room(pair, version, "knock_restricted")
    answer = await knock(pair, room_id)
    assert answer.status == 200, answer.body
    await until_membership(pair.alice, room_id, pair.bob.user_id, "knock")
    await join(pair.bob, club, pair.home.name)
    await until_membership(pair.alice, club, pair.bob.user_id, "join")
    await join(pair.bob, room_id, pair.home.name)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "join")
    await until_agreed(room_id, pair.clients)
