"""send_leave and send_knock."""

from typing import Any

import pytest

from homeserver.core.event_format import parse_pdu
from homeserver.core.room_versions import ROOM_VERSIONS
from tests.api.server import Client, refused
from tests.federation.memberships.world import V1, V2, Elsewhere, World, id_of

KNOCKING = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_leaving(world: World, alice: Client, other: Elsewhere, version: str) -> None:
    room_id = await world.create_room(alice, version)
    await other.enter("join", room_id, other.user())
    event, _ = await other.made("leave", room_id, other.user())
    reply = await other.hand_in("leave", event, version)
    assert (reply.status, reply.json) == (200, {})
    assert await world.membership(alice, room_id, other.user()) == "leave"
    assert id_of(event, version) in await world.relayed()
    again = await other.hand_in("leave", event, version)
    assert (again.status, again.json) == (200, {})


async def test_the_older_form(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice)
    await other.enter("join", room_id, other.user())
    assert await other.enter("leave", room_id, other.user(), api=V1) == [200, {}]


async def test_rejecting_an_invitation(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice, preset="private_chat")
    await alice.post(f"/rooms/{room_id}/invite", {"user_id": other.user()})
    await other.enter("leave", room_id, other.user())
    assert await world.membership(alice, room_id, other.user()) == "leave"


async def test_leaving_once_more_after_a_return(world: World, alice: Client, other: Elsewhere) -> None:
    """An old leave that is handed in again does not part the user (S30)."""
    room_id = await world.create_room(alice)
    await other.enter("join", room_id, other.user())
    event, version = await other.made("leave", room_id, other.user())
    assert (await other.hand_in("leave", event, version)).status == 200
    await other.enter("join", room_id, other.user())
    assert (await other.hand_in("leave", event, version)).status == 200
    assert await world.membership(alice, room_id, other.user()) == "join"


async def test_a_leave_of_others(world: World, alice: Client, other: Elsewhere) -> None:
    """S1, S8, S30: a kick does not pass for a leave, nor does another server's leave."""
    room_id = await world.create_room(alice, power_level_content_override={"users_default": 100})
    await other.enter("join", room_id, other.user())
    event, version = await other.made("leave", room_id, other.user())
    for changes in (
        {"state_key": alice.user_id},
        {"sender": alice.user_id, "state_key": alice.user_id},
        {"content": {"membership": "join"}},
        {"content": {"membership": "ban"}},
        {"type": "m.room.topic"},
    ):
        reply = await other.hand_in("leave", other.sign({**event, **changes}, version), version)
        refused(reply, 400, "M_INVALID_PARAM")
    thief = world.server("thief.example")
    refused(await thief.hand_in("leave", event, version), 400, "M_INVALID_PARAM")
    refused(await thief.hand_in("leave", event, version, api=V1), 403, "M_FORBIDDEN")
    refused(await other.hand_in("leave", {**event, "signatures": {}}, version), 400, "M_INVALID_PARAM")
    assert await world.membership(alice, room_id, alice.user_id) == "join"
    assert await world.membership(alice, room_id, other.user()) == "join"


async def test_a_leave_of_a_room_that_this_server_is_not_in(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice)
    await other.enter("join", room_id, other.user())
    event, version = await other.made("leave", room_id, other.user())
    await alice.post(f"/rooms/{room_id}/leave")
    refused(await other.hand_in("leave", event, version), 404, "M_NOT_FOUND")


async def test_servers_that_the_room_keeps_out(world: World, alice: Client, other: Elsewhere) -> None:
    """S7"""
    room_id = await world.create_room(alice, initial_state=[KNOCKING])
    knock, version = await other.made("knock", room_id, other.user())
    await alice.post(f"/rooms/{room_id}/invite", {"user_id": other.user("invited")})
    leave, _ = await other.made("leave", room_id, other.user("invited"))
    join, _ = await other.made("join", room_id, other.user("invited"))
    await world.set_state(alice, room_id, "m.room.server_acl", {"allow": ["*"], "deny": [other.name]})
    for membership, event in (("knock", knock), ("leave", leave), ("join", join)):
        for api in (V1, V2):
            refused(await other.hand_in(membership, event, version, api=api), 403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("version", "rule"), [("7", "knock"), ("10", "knock_restricted"), ("11", "knock"), ("12", "knock")]
)
async def test_knocking(world: World, alice: Client, other: Elsewhere, version: str, rule: str) -> None:
    rules: dict[str, Any] = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": rule}}
    room_id = await world.create_room(alice, version, initial_state=[rules], name="Closed", topic="Secrets")
    event, _ = await other.made("knock", room_id, other.user())
    reply = await other.hand_in("knock", event, version)
    assert reply.status == 200, reply.body
    told = [parse_pdu(each, ROOM_VERSIONS[version], room_id=room_id) for each in reply.json["knock_room_state"]]
    assert {pdu.type for pdu in told} == {"m.room.create", "m.room.name", "m.room.topic", "m.room.join_rules"}
    assert all(world.is_signed_here(pdu.json, version) for pdu in told)
    assert await world.membership(alice, room_id, other.user()) == "knock"
    assert id_of(event, version) in await world.relayed()
    again = await other.hand_in("knock", event, version)
    assert again.json == reply.json
    await other.enter("leave", room_id, other.user())
    assert await world.membership(alice, room_id, other.user()) == "leave"


async def test_knocks_that_are_not_allowed(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice, initial_state=[KNOCKING])
    event, version = await other.made("knock", room_id, other.user())
    for changes in ({"state_key": "@x:test"}, {"content": {"membership": "join"}}, {"type": "m.room.topic"}):
        reply = await other.hand_in("knock", other.sign({**event, **changes}, version), version)
        refused(reply, 400, "M_INVALID_PARAM")
    await world.set_state(alice, room_id, "m.room.join_rules", {"join_rule": "invite"})
    refused(await other.hand_in("knock", event, version), 403, "M_FORBIDDEN")
    assert await world.membership(alice, room_id, other.user()) is None


async def test_a_knock_is_answered_with_an_invitation(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice, initial_state=[KNOCKING])
    await other.enter("knock", room_id, other.user())
    await alice.post(f"/rooms/{room_id}/invite", {"user_id": other.user()})
    await other.enter("join", room_id, other.user())
    assert await world.membership(alice, room_id, other.user()) == "join"
