"""Spaces and their children for other servers: only of rooms that their users could join or read."""

from typing import Any

from homeserver.core.ids import RoomId
from tests.api.server import refused
from tests.federation.reading.world import BOB, OTHER, THIRD, World


async def _space(world: World, *children: str, suggested: tuple[str, ...] = (), **wish: Any) -> RoomId:
    """A space with children, in their order."""
    space = await world.create_room(creation_content={"type": "m.space"}, **wish)
    for number, child in enumerate(children):
        content = {"via": ["test"], "order": f"{number:03}", "suggested": child in suggested}
        await world.set_state(space, "m.space.child", content, state_key=child)
    return space


async def test_a_space_and_its_children(world: World) -> None:
    public = await world.create_room(name="Public", topic="All")
    secret = await world.create_room(preset="private_chat", name="Secret")
    space = await _space(world, public, secret, "!elsewhere:other.example", name="The space")
    answer = await world.answer(f"/hierarchy/{space}")
    assert set(answer) == {"room", "children", "inaccessible_children"}
    room = answer["room"]
    assert (room["room_id"], room["name"], room["room_type"]) == (space, "The space", "m.space")
    assert {"num_joined_members", "world_readable", "guest_can_join", "join_rule", "room_version"} <= set(room)
    assert [child["state_key"] for child in room["children_state"]] == [public, secret, "!elsewhere:other.example"]
    for child in room["children_state"]:
        assert set(child) == {"type", "state_key", "content", "sender", "origin_server_ts"}
    assert [child["room_id"] for child in answer["children"]] == [public]
    assert answer["children"][0]["topic"] == "All"
    # What is secret is not told of but by its id, which the space tells anyway; what is elsewhere is not known here.
    assert answer["inaccessible_children"] == [secret]


async def test_suggested_children_only(world: World) -> None:
    first, second = await world.create_room(), await world.create_room()
    space = await _space(world, first, second, suggested=(second,))
    answer = await world.answer(f"/hierarchy/{space}", suggested_only="true")
    assert [child["room_id"] for child in answer["children"]] == [second]
    assert [child["state_key"] for child in answer["room"]["children_state"]] == [second]
    refused(await world.ask(f"/hierarchy/{space}", suggested_only="perhaps"), 400, "M_INVALID_PARAM")


async def test_a_room_that_is_no_space_has_no_children(world: World) -> None:
    room_id = await world.create_room()
    await world.set_state(room_id, "m.space.child", {"via": ["test"]}, state_key=await world.create_room())
    answer = await world.answer(f"/hierarchy/{room_id}")
    assert (answer["room"]["children_state"], answer["children"]) == ([], [])


async def test_who_may_know_of_a_room(world: World) -> None:
    """S19, S20: absent and forbidden have one answer."""
    secret = await world.create_room(preset="private_chat")
    absent = await world.ask("/hierarchy/!nowhere:test")
    refused(absent, 404, "M_NOT_FOUND")
    assert (await world.ask(f"/hierarchy/{secret}")).body == absent.body
    await world.membership(secret, BOB, "invite", sender=world.alice_id)
    assert (await world.ask(f"/hierarchy/{secret}")).status == 200
    assert (await world.ask(f"/hierarchy/{secret}", origin=THIRD)).body == absent.body
    await world.membership(secret, BOB, "join")
    assert (await world.ask(f"/hierarchy/{secret}")).status == 200
    await world.membership(secret, BOB, "leave")
    assert (await world.ask(f"/hierarchy/{secret}")).body == absent.body
    readable = await world.create_room(preset="private_chat")
    await world.set_state(readable, "m.room.history_visibility", {"history_visibility": "world_readable"})
    assert (await world.ask(f"/hierarchy/{readable}")).status == 200
    knocked = await world.create_room(preset="private_chat")
    await world.set_state(knocked, "m.room.join_rules", {"join_rule": "knock"})
    assert (await world.ask(f"/hierarchy/{knocked}")).status == 200
    left = await world.create_room()
    await world.alice.post(f"/rooms/{left}/leave")
    assert (await world.ask(f"/hierarchy/{left}")).body == absent.body


async def test_restricted_rooms_are_told_to_those_who_meet_a_condition(world: World) -> None:
    club = await world.create_room(preset="private_chat")
    allow = [{"type": "m.room_membership", "room_id": club}]
    room_id = await world.create_room(preset="private_chat")
    await world.set_state(room_id, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
    refused(await world.ask(f"/hierarchy/{room_id}"), 404, "M_NOT_FOUND")
    await world.membership(club, BOB, "invite", sender=world.alice_id)
    refused(await world.ask(f"/hierarchy/{room_id}"), 404, "M_NOT_FOUND")
    await world.membership(club, BOB, "join")
    answer = await world.answer(f"/hierarchy/{room_id}", origin=OTHER)
    assert answer["room"]["allowed_room_ids"] == [club]
    refused(await world.ask(f"/hierarchy/{room_id}", origin=THIRD), 404, "M_NOT_FOUND")
    # Of a server some users may be banned: the others may come all the same.
    await world.membership(room_id, BOB, "ban", sender=world.alice_id)
    assert (await world.ask(f"/hierarchy/{room_id}")).status == 200
    refused(await world.ask("/hierarchy/x"), 400, "M_INVALID_PARAM")
    await world.membership(club, BOB, "leave")
    refused(await world.ask(f"/hierarchy/{room_id}"), 404, "M_NOT_FOUND")
