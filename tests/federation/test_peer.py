"""The fake servers speak as the specification says: otherwise what is tested against them means nothing."""

import pytest

from homeserver.core.room_versions import ROOM_VERSIONS
from tests.federation.peer import Peer

V1 = "/_matrix/federation/v1"


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_two_peers_talk_in_a_room(peer: Peer, other_peer: Peer, version: str) -> None:
    alice, bob = peer.user("alice"), other_peer.user("bob")
    room = peer.create_room(alice, version=version)
    same = await other_peer.join(peer.name, room.room_id, bob)
    assert room.membership(bob) == "join"
    assert room.current_state == same.current_state

    await other_peer.tell(same, same.say(bob, "hello"))
    await peer.tell(room, room.send(alice, "m.room.topic", {"topic": "greetings"}, state_key=""))
    assert room.extremities == same.extremities
    assert room.current_state == same.current_state
    assert not room.waiting
    assert peer.faults == other_peer.faults == []


async def test_a_peer_tells_what_it_has(peer: Peer, other_peer: Peer) -> None:
    room = peer.create_room(peer.user("alice"))
    first = room.say(peer.user("alice"), "one")
    last = room.say(peer.user("alice"), "two")

    reply = await other_peer.ask(peer.name, "GET", f"{V1}/backfill/{room.room_id}", v=last.event_id, limit=2)
    assert reply.body["pdus"] == [last.json, first.json]
    reply = await other_peer.ask(peer.name, "GET", f"{V1}/state_ids/{room.room_id}", event_id=last.event_id)
    assert set(reply.body["pdu_ids"]) == set(room.current_state.values())
    reply = await other_peer.ask(peer.name, "GET", f"{V1}/event/{first.event_id}")
    assert reply.body["pdus"] == [first.json]
    between = {"earliest_events": [first.event_id], "latest_events": [last.event_id], "limit": 10}
    reply = await other_peer.ask(peer.name, "POST", f"{V1}/get_missing_events/{room.room_id}", between)
    assert reply.body["events"] == []
    assert peer.faults == []


async def test_a_peer_invites(peer: Peer, other_peer: Peer) -> None:
    room = peer.create_room(peer.user("alice"), join_rule="invite")
    reply = await peer.invite(other_peer.name, room, peer.user("alice"), other_peer.user("bob"))
    assert reply.status == 200
    assert room.membership(other_peer.user("bob")) == "invite"
    event, stripped = other_peer.invitations[room.room_id]
    assert event["signatures"].keys() == {peer.name, other_peer.name}
    assert "m.room.create" in [each["type"] for each in stripped]


async def test_a_peer_notices_what_is_wrong(peer: Peer, other_peer: Peer) -> None:
    path = f"{V1}/query/profile"
    assert (await other_peer.ask(peer.name, "GET", path, user_id=peer.user("alice"))).status == 404
    assert peer.faults == []
    wrong = await other_peer.ask(peer.name, "GET", path, lie={"uri": "/elsewhere"}, user_id=peer.user("alice"))
    assert (wrong.status, wrong.errcode) == (401, "M_UNAUTHORIZED")
    assert len(peer.faults) == 1
