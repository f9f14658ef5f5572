"""Invitations between users of a Synapse and of this server.

https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from typing import Any

import pytest

from synapse_compat_tests.federation.conftest import Pair, meeting
from synapse_compat_tests.federation.rooms import VERSIONS, until_agreed, until_member
from synapse_compat_tests.federation.servers import OurSide, SynapseSide
from tests.federation.servers.rooms import (
    act,
    join,
    set_state,
    try_join,
    until_content,
    until_invited,
    until_membership,
    until_seen,
    until_synced,
)


def is_not_invited(room_id: str) -> Any:
    """Whether a sync no longer tells of the invitation."""
    return lambda answer: room_id not in answer.get("rooms", {}).get("invite", {})


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_invitation_is_accepted(pair: Pair, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="private_chat", room_version=version, name="Few")
    assert (await try_join(bob, room_id, pair.home.name)).status == 403
    await act(alice, "invite", room_id, user_id=bob.user_id, reason="do come")
    stripped = await until_invited(bob, room_id)
    shown = {event["type"]: event for event in stripped}
    assert shown["m.room.name"]["content"] == {"name": "Few"}
    assert shown["m.room.create"]["content"]["room_version"] == version
    own = next(event for event in stripped if event["type"] == "m.room.member" and event["state_key"] == bob.user_id)
    assert own["content"]["membership"] == "invite"
    assert (own["content"]["reason"], own["sender"]) == ("do come", alice.user_id)
    await until_membership(alice, room_id, bob.user_id, "invite")
    await join(bob, room_id)
    await bob.send(room_id, "thanks")
    await until_seen(alice, room_id, "thanks")
    await until_agreed(room_id, pair.clients)


@pytest.mark.parametrize("version", ["1", "6", "12"])
async def test_an_invitation_is_rejected(pair: Pair, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="private_chat", room_version=version)
    await act(alice, "invite", room_id, user_id=bob.user_id)
    await until_invited(bob, room_id)
    await act(bob, "leave", room_id, reason="no time")
    await until_member(alice, room_id, bob.user_id, membership="leave", reason="no time")
    await until_synced(bob, is_not_invited(room_id))
    assert (await try_join(bob, room_id, pair.home.name)).status == 403

    await act(alice, "invite", room_id, user_id=bob.user_id)
    await until_invited(bob, room_id)
    await join(bob, room_id)
    await until_agreed(room_id, pair.clients)


@pytest.mark.parametrize("version", ["1", "11", "12"])
async def test_an_invitation_is_taken_back(pair: Pair, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="private_chat", room_version=version)
    await act(alice, "invite", room_id, user_id=bob.user_id)
    await until_invited(bob, room_id)
    await act(alice, "kick", room_id, user_id=bob.user_id)
    await until_synced(bob, is_not_invited(room_id))
    assert (await try_join(bob, room_id, pair.home.name)).status == 403


async def test_who_is_invited_is_banned_instead(pair: Pair) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="private_chat")
    await act(alice, "invite", room_id, user_id=bob.user_id)
    await until_invited(bob, room_id)
    await act(alice, "ban", room_id, user_id=bob.user_id)
    await until_synced(bob, is_not_invited(room_id))
    assert (await try_join(bob, room_id, pair.home.name)).status == 403


async def test_a_direct_chat_by_invitation_at_creation(pair: Pair) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await alice.create_room(preset="trusted_private_chat", invite=[bob.user_id], is_direct=True)
    stripped = await until_invited(bob, room_id)
    own = next(event for event in stripped if event["type"] == "m.room.member" and event["state_key"] == bob.user_id)
    assert own["content"]["is_direct"] is True
    await join(bob, room_id)
    await until_membership(alice, room_id, bob.user_id, "join")
    state = await until_agreed(room_id, pair.clients)
    assert state["m.room.member", bob.user_id]["content"]["membership"] == "join"
    # In rooms of version 12 a trusted private chat makes everybody a creator.
    assert state["m.room.create", ""]["content"]["additional_creators"] == [bob.user_id]
    await set_state(bob, room_id, "m.room.name", {"name": "ours"})
    await until_content(alice, room_id, "m.room.name", {"name": "ours"})


async def test_an_invitation_into_a_room_that_the_server_is_in(pair: Pair) -> None:
    """A guest invites a user of the resident server, and is itself told of those who join."""
    alice, bob = pair.alice, pair.bob
    room_id = await pair.share_room(power_level_content_override={"invite": 0})
    await set_state(alice, room_id, "m.room.join_rules", {"join_rule": "invite"})
    await until_content(bob, room_id, "m.room.join_rules", {"join_rule": "invite"})
    async with pair.home.user(alice.user_id.split(":")[0][1:] + "-friend") as friend:
        await act(bob, "invite", room_id, user_id=friend.user_id)
        await until_invited(friend, room_id)
        await join(friend, room_id)
        await until_membership(bob, room_id, friend.user_id, "join")
    async with pair.away.user(bob.user_id.split(":")[0][1:] + "-friend") as friend:
        await act(alice, "invite", room_id, user_id=friend.user_id)
        await until_invited(friend, room_id)
        await join(friend, room_id)
        await until_membership(alice, room_id, friend.user_id, "join")
        await until_agreed(room_id, [alice, bob, friend])


async def test_an_invitation_through_a_guest(pair: Pair) -> None:
    """Bob may invite back Alice, who has left, though her server no longer is in the room."""
    alice, bob = pair.alice, pair.bob
    room_id = await pair.share_room(power_level_content_override={"invite": 0})
    await set_state(alice, room_id, "m.room.join_rules", {"join_rule": "invite"})
    await until_content(bob, room_id, "m.room.join_rules", {"join_rule": "invite"})
    await act(alice, "leave", room_id)
    await until_membership(bob, room_id, alice.user_id, "leave")
    await act(bob, "invite", room_id, user_id=alice.user_id)
    await until_invited(alice, room_id)
    await join(alice, room_id)
    await until_membership(bob, room_id, alice.user_id, "join")
    await alice.send(room_id, "here again")
    await until_seen(bob, room_id, "here again")
    await until_agreed(room_id, pair.clients)


async def test_an_invitation_of_somebody_who_wants_none(our_side: OurSide, synapse_side: SynapseSide) -> None:
    """https://spec.matrix.org/v1.19/client-server-api/#invite-permission"""
    async with meeting(synapse_side, our_side) as pair:
        path = f"/user/{pair.bob.user_id}/account_data/m.invite_permission_config"
        await pair.bob.put(path, {"default_action": "block"})
        room_id = await pair.alice.create_room(preset="private_chat")
        answer = await pair.alice.call("POST", f"/rooms/{room_id}/invite", {"user_id": pair.bob.user_id})
        assert (answer.status, answer.body["errcode"]) == (403, "M_INVITE_BLOCKED")


async def test_an_invitation_of_nobody(pair: Pair) -> None:
    room_id = await pair.alice.create_room(preset="private_chat")
    body = {"user_id": f"@nobody:{pair.away.name}"}
    answer = await pair.alice.call("POST", f"/rooms/{room_id}/invite", body)
    # A Synapse (1.163) signs an invitation of a user whom it does not have.
    assert answer.status == (200 if isinstance(pair.away, SynapseSide) else 403), answer
