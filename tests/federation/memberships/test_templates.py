"""make_join, make_leave and make_knock: who gets a template, and what is in it."""

from typing import Any

import pytest

from homeserver.core.ids import ServerName
from homeserver.core.room_versions import ROOM_VERSIONS, EventIdFormat
from tests.api.server import Client, refused
from tests.federation.memberships.world import HERE, V1, Elsewhere, World, path_of

VERSIONS = ("1", "6", "9", "10", "11", "12")


def ids_in(references: list[Any], version: str) -> list[str]:
    """The events that a template refers to, in the form of the room version."""
    if ROOM_VERSIONS[version].event_id_format is not EventIdFormat.SERVER_ASSIGNED:
        assert all(isinstance(reference, str) for reference in references)
        return references
    assert all(set(hashes) == {"sha256"} and len(hashes["sha256"]) == 43 for _, hashes in references)
    return [event_id for event_id, _ in references]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_template_is_all_of_the_event_but_its_id_hash_and_signature(
    world: World, alice: Client, other: Elsewhere, version: str
) -> None:
    room_id = await world.create_room(alice, version)
    last = await world.set_state(alice, room_id, "m.room.topic", {"topic": "News"})
    reply = await other.make("join", room_id, other.user())
    assert reply.status == 200, reply.body
    assert reply.json["room_version"] == version
    event = reply.json["event"]
    state = {(each["type"], each["state_key"]): each["event_id"] for each in await alice.get(f"/rooms/{room_id}/state")}
    cited = {state[("m.room.power_levels", "")], state[("m.room.join_rules", "")]}
    if version != "12":
        cited.add(state[("m.room.create", "")])
    assert set(ids_in(event.pop("auth_events"), version)) == cited
    assert ids_in(event.pop("prev_events"), version) == [last]
    assert isinstance(event.pop("origin_server_ts"), int)
    assert event.pop("depth") > 1
    assert event == {
        "type": "m.room.member",
        "room_id": room_id,
        "sender": other.user(),
        "state_key": other.user(),
        "content": {"membership": "join"},
        "origin": HERE,
    }


async def test_versions_that_the_other_server_supports(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice, "10", initial_state=[_join_rule("knock")])
    for membership in ("join", "knock"):
        error = refused(
            await other.make(membership, room_id, other.user(), ver=["1", "11"]), 400, "M_INCOMPATIBLE_ROOM_VERSION"
        )
        assert error["room_version"] == "10"
    assert (await other.make("knock", room_id, other.user(), ver=["9", "10"])).status == 200
    path = f"{V1}/make_join/{path_of(room_id, other.user())}"
    refused(await other.ask("GET", path), 400, "M_INCOMPATIBLE_ROOM_VERSION")
    knock_path = f"{V1}/make_knock/{path_of(room_id, other.user())}"
    refused(await other.ask("GET", knock_path), 400, "M_MISSING_PARAM")


async def test_servers_that_name_no_version_support_the_first(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice, "1")
    assert (await other.ask("GET", f"{V1}/make_join/{path_of(room_id, other.user())}")).status == 200


@pytest.mark.parametrize("membership", ["join", "leave", "knock"])
async def test_rooms_that_this_server_is_not_in(world: World, alice: Client, other: Elsewhere, membership: str) -> None:
    refused(await other.make(membership, "!nowhere:test", other.user()), 404, "M_NOT_FOUND")
    room_id = await world.create_room(alice)
    await alice.post(f"/rooms/{room_id}/leave")
    refused(await other.make(membership, room_id, other.user()), 404, "M_NOT_FOUND")


@pytest.mark.parametrize("membership", ["join", "leave", "knock"])
async def test_a_server_asks_only_for_its_own_users(
    world: World, alice: Client, other: Elsewhere, membership: str
) -> None:
    """S30: nobody is joined or parted by another server."""
    room_id = await world.create_room(alice, initial_state=[_join_rule("knock")])
    for user_id in (alice.user_id, "@bob:third.example"):
        refused(await other.make(membership, room_id, user_id), 403, "M_FORBIDDEN")
    refused(await other.make(membership, room_id, "nobody"), 400, "M_INVALID_PARAM")
    refused(await other.make(membership, "room", other.user()), 400, "M_INVALID_PARAM")


@pytest.mark.parametrize("membership", ["join", "leave", "knock"])
async def test_servers_that_the_room_keeps_out(world: World, alice: Client, membership: str) -> None:
    """S7: the list is compared without regard to case."""
    kept_out = world.server("Evil.Example:8448")
    room_id = await world.create_room(alice)
    await world.set_state(alice, room_id, "m.room.server_acl", {"allow": ["*"], "deny": ["evil.example"]})
    refused(await kept_out.make(membership, room_id, kept_out.user()), 403, "M_FORBIDDEN")
    assert (await world.server().make("join", room_id, "@u:elsewhere.example")).status == 200


async def test_requests_without_a_signature(world: World, alice: Client) -> None:
    room_id = await world.create_room(alice)
    for path in ("make_join", "make_leave", "make_knock"):
        reply = await world.site.request("GET", f"{V1}/{path}/{path_of(room_id, '@u:elsewhere.example')}")
        refused(reply, 401, "M_UNAUTHORIZED")


async def test_who_may_not_join(world: World, alice: Client, other: Elsewhere) -> None:
    closed = await world.create_room(alice, preset="private_chat")
    refused(await other.make("join", closed, other.user()), 403, "M_FORBIDDEN")
    open_room = await world.create_room(alice)
    await alice.post(f"/rooms/{open_room}/ban", {"user_id": other.user()})
    refused(await other.make("join", open_room, other.user()), 403, "M_FORBIDDEN")
    assert (await other.make("join", open_room, other.user("ursula"))).status == 200


async def test_a_room_that_is_not_federated(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice, creation_content={"m.federate": False})
    refused(await other.make("join", room_id, other.user()), 403, "M_FORBIDDEN")


async def test_a_leave_needs_a_membership(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice)
    refused(await other.make("leave", room_id, other.user()), 403, "M_FORBIDDEN")
    await other.enter("join", room_id, other.user())
    reply = await other.make("leave", room_id, other.user())
    assert reply.json["event"]["content"] == {"membership": "leave"}


@pytest.mark.parametrize("version", ["6", "7", "11", "12"])
async def test_knocks(world: World, alice: Client, other: Elsewhere, version: str) -> None:
    rule = "knock" if version != "6" else "invite"
    room_id = await world.create_room(alice, version, initial_state=[_join_rule(rule)])
    reply = await other.make("knock", room_id, other.user())
    if version == "6":
        refused(reply, 403, "M_FORBIDDEN")
        return
    assert reply.json["event"]["content"] == {"membership": "knock"}
    assert reply.json["event"]["sender"] == reply.json["event"]["state_key"] == other.user()
    open_room = await world.create_room(alice, version)
    refused(await other.make("knock", open_room, other.user()), 403, "M_FORBIDDEN")


async def test_names_of_servers_are_compared_exactly(world: World, alice: Client) -> None:
    room_id = await world.create_room(alice)
    shorter = world.server("example")
    refused(await shorter.make("join", room_id, "@u:elsewhere.example"), 403, "M_FORBIDDEN")
    assert shorter.name == ServerName("example")


def _join_rule(rule: str) -> dict[str, Any]:
    return {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": rule}}
