"""Joins to restricted rooms by way of this server: who meets the conditions, and what this server signs."""

from typing import Any

import pytest

from tests.api.server import Client, refused
from tests.federation.memberships.world import Elsewhere, World, id_of

AUTHORISED_VIA = "join_authorised_via_users_server"


def restricted(*room_ids: str, rule: str = "restricted") -> dict[str, Any]:
    """Join rules that let in the members of some rooms."""
    return {"join_rule": rule, "allow": [{"type": "m.room_membership", "room_id": room_id} for room_id in room_ids]}


async def create_restricted(
    world: World, creator: Client, *room_ids: str, version: str = "11", rule: str = "restricted", **options: Any
) -> str:
    """A room that members of some rooms may join."""
    rules = {"type": "m.room.join_rules", "state_key": "", "content": restricted(*room_ids, rule=rule)}
    return await world.create_room(creator, version, initial_state=[rules], **options)


@pytest.mark.parametrize(
    ("version", "rule"),
    [("8", "restricted"), ("9", "restricted"), ("10", "knock_restricted"), ("11", "restricted"), ("12", "restricted")],
)
async def test_a_member_of_the_other_room_joins(
    world: World, alice: Client, other: Elsewhere, version: str, rule: str
) -> None:
    space = await world.create_room(alice)
    await other.enter("join", space, other.user())
    room_id = await create_restricted(world, alice, space, version=version, rule=rule)
    event, _ = await other.made("join", room_id, other.user())
    assert event["content"] == {"membership": "join", AUTHORISED_VIA: alice.user_id}
    reply = await other.hand_in("join", event, version)
    assert reply.status == 200, reply.body
    signed = reply.json["event"]
    assert id_of(signed, version) == id_of(event, version)
    assert signed["signatures"][other.name] == event["signatures"][other.name]
    assert world.is_signed_here(signed, version)
    assert await world.membership(alice, room_id, other.user()) == "join"
    again = await other.hand_in("join", event, version)
    assert again.json["event"] == signed


async def test_nothing_is_signed_for_rooms_that_are_open(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice)
    answer = await other.enter("join", room_id, other.user())
    assert set(answer["event"]["signatures"]) == {other.name}


async def test_users_who_meet_no_condition(world: World, alice: Client, other: Elsewhere) -> None:
    space = await world.create_room(alice)
    room_id = await create_restricted(world, alice, space)
    refused(await other.make("join", room_id, other.user()), 403, "M_FORBIDDEN")
    left = other.user("left")
    await other.enter("join", space, left)
    await other.enter("leave", space, left)
    refused(await other.make("join", room_id, left), 403, "M_FORBIDDEN")


async def test_conditions_that_make_no_sense(world: World, alice: Client, other: Elsewhere) -> None:
    content = {"join_rule": "restricted", "allow": [{"type": "m.other"}, {"type": "m.room_membership"}, 1]}
    rules = {"type": "m.room.join_rules", "state_key": "", "content": content}
    room_id = await world.create_room(alice, initial_state=[rules])
    refused(await other.make("join", room_id, other.user()), 403, "M_FORBIDDEN")


async def test_conditions_that_only_others_can_judge(world: World, alice: Client, other: Elsewhere) -> None:
    known = await world.create_room(alice)
    room_id = await create_restricted(world, alice, "!unknown:third.example", known)
    refused(await other.make("join", room_id, other.user()), 400, "M_UNABLE_TO_AUTHORISE_JOIN")
    await other.enter("join", known, other.user())
    event, version = await other.made("join", room_id, other.user())
    await other.enter("leave", known, other.user())
    refused(await other.hand_in("join", event, version), 400, "M_UNABLE_TO_AUTHORISE_JOIN")
    assert await world.membership(alice, room_id, other.user()) is None


async def test_a_room_that_this_server_has_left_is_none_that_it_can_judge(
    world: World, alice: Client, other: Elsewhere
) -> None:
    space = await world.create_room(alice)
    await other.enter("join", space, other.user())
    room_id = await create_restricted(world, alice, space)
    assert (await other.make("join", room_id, other.user())).status == 200
    await alice.post(f"/rooms/{space}/leave")
    refused(await other.make("join", room_id, other.user()), 400, "M_UNABLE_TO_AUTHORISE_JOIN")


async def test_nobody_here_may_invite(world: World, alice: Client, other: Elsewhere) -> None:
    space = await world.create_room(alice)
    await other.enter("join", space, other.user())
    room_id = await create_restricted(world, alice, space)
    event, version = await other.made("join", room_id, other.user())
    levels = await alice.get(f"/rooms/{room_id}/state/m.room.power_levels")
    await world.set_state(
        alice, room_id, "m.room.power_levels", {**levels, "invite": 100, "users": {alice.user_id: 50}}
    )
    refused(await other.make("join", room_id, other.user()), 400, "M_UNABLE_TO_GRANT_JOIN")
    refused(await other.hand_in("join", event, version), 400, "M_UNABLE_TO_GRANT_JOIN")


async def test_banned_users_are_told_so(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await create_restricted(world, alice, "!unknown:third.example")
    await alice.post(f"/rooms/{room_id}/ban", {"user_id": other.user()})
    refused(await other.make("join", room_id, other.user()), 403, "M_FORBIDDEN")


async def test_invited_users_need_no_condition(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await create_restricted(world, alice, "!unknown:third.example")
    await alice.post(f"/rooms/{room_id}/invite", {"user_id": other.user()})
    event, version = await other.made("join", room_id, other.user())
    assert AUTHORISED_VIA not in event["content"]
    assert (await other.hand_in("join", event, version)).status == 200


async def test_the_conditions_are_checked_again(world: World, alice: Client, other: Elsewhere) -> None:
    """S8: no signature for a user who has left meanwhile."""
    space = await world.create_room(alice)
    await other.enter("join", space, other.user())
    room_id = await create_restricted(world, alice, space)
    event, version = await other.made("join", room_id, other.user())
    await other.enter("leave", space, other.user())
    refused(await other.hand_in("join", event, version), 403, "M_FORBIDDEN")
    assert await world.membership(alice, room_id, other.user()) is None


async def test_a_join_in_the_name_of_who_may_not_invite(world: World, alice: Client, other: Elsewhere) -> None:
    """S10: that this server has signed is not enough."""
    space = await world.create_room(alice)
    bob = await world.site.register("bob")
    await other.enter("join", space, other.user())
    room_id = await create_restricted(world, alice, space)
    template = (await other.make("join", room_id, other.user())).json["event"]
    for via in (bob.user_id, "@nobody:test"):
        event = other.sign({**template, "content": {"membership": "join", AUTHORISED_VIA: via}}, "11")
        refused(await other.hand_in("join", event, "11"), 403, "M_FORBIDDEN")
    assert await world.membership(alice, room_id, other.user()) is None


async def test_a_join_in_the_name_of_another_servers_user(world: World, alice: Client, other: Elsewhere) -> None:
    """Only that server's signature counts."""
    space = await world.create_room(alice)
    await other.enter("join", space, other.user())
    room_id = await create_restricted(world, alice, space)
    third = world.server("third.example")
    await alice.post(f"/rooms/{room_id}/invite", {"user_id": third.user()})
    await third.enter("join", room_id, third.user())
    levels = await alice.get(f"/rooms/{room_id}/state/m.room.power_levels")
    users = {**levels["users"], str(third.user()): 50}
    await world.set_state(alice, room_id, "m.room.power_levels", {**levels, "users": users})
    members = {each["state_key"]: each["event_id"] for each in await alice.get(f"/rooms/{room_id}/state")}
    template = (await other.make("join", room_id, other.user())).json["event"]
    cited = [each for each in template["auth_events"] if each != members[alice.user_id]]
    content = {"membership": "join", AUTHORISED_VIA: third.user()}
    event = other.sign({**template, "auth_events": [*cited, members[third.user()]], "content": content}, "11")
    refused(await other.hand_in("join", event, "11"), 400, "M_INVALID_PARAM")
    signed_by_both = third.sign(event, "11")
    signed_by_both["signatures"] |= event["signatures"]
    reply = await other.hand_in("join", signed_by_both, "11")
    assert reply.status == 200, reply.body
    assert set(reply.json["event"]["signatures"]) == {other.name, third.name}


@pytest.mark.parametrize("via", [1, "", "alice", "@alice", ["@alice:test"]])
async def test_hostile_names(world: World, alice: Client, other: Elsewhere, via: object) -> None:
    room_id = await create_restricted(world, alice, await world.create_room(alice))
    await alice.post(f"/rooms/{room_id}/invite", {"user_id": other.user()})
    event, _ = await other.made("join", room_id, other.user())
    event["content"][AUTHORISED_VIA] = via
    reply = await other.hand_in("join", other.sign(event, "11"), "11")
    refused(reply, 400, "M_INVALID_PARAM")
