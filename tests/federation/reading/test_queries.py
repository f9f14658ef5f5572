"""Queries, lists of public rooms and OpenID tokens for other servers."""

from typing import Any

import pytest

from tests.api.server import CONFIG, refused, with_changes
from tests.federation.reading.world import BOB, CARA, OTHER, THIRD, V1, World, running_world


async def test_profiles(world: World) -> None:
    user_id = world.alice.user_id
    assert await world.answer("/query/profile", user_id=user_id) == {"displayname": "alice"}
    await world.alice.put(f"/profile/{user_id}/displayname", {"displayname": "Alice"})
    await world.alice.put(f"/profile/{user_id}/avatar_url", {"avatar_url": "mxc://test/a"})
    await world.alice.put(f"/profile/{user_id}/org.example.mood", {"org.example.mood": {"now": [1]}})
    whole = {"displayname": "Alice", "avatar_url": "mxc://test/a", "org.example.mood": {"now": [1]}}
    assert await world.answer("/query/profile", user_id=user_id) == whole
    for name, value in whole.items():
        assert await world.answer("/query/profile", user_id=user_id, field=name) == {name: value}


async def test_profiles_that_are_not_there(world: World) -> None:
    user_id = world.alice.user_id
    assert await world.answer("/query/profile", user_id=user_id, field="avatar_url") == {}
    refused(await world.ask("/query/profile", user_id=user_id, field="org.example.mood"), 404, "M_NOT_FOUND")
    refused(await world.ask("/query/profile", user_id="@nobody:test"), 404, "M_NOT_FOUND")
    refused(await world.ask("/query/profile", user_id="@nobody:test", field="displayname"), 404, "M_NOT_FOUND")
    refused(await world.ask("/query/profile", user_id=BOB), 400, "M_INVALID_PARAM")
    refused(await world.ask("/query/profile", user_id="alice"), 400, "M_INVALID_PARAM")
    refused(await world.ask("/query/profile"), 400, "M_MISSING_PARAM")


async def test_profiles_may_be_kept_from_other_servers(database_url: str) -> None:
    config = with_changes(CONFIG, profile={"lookup_by_servers": False})
    async with running_world(database_url, config=config) as world:
        for user_id in (world.alice.user_id, "@nobody:test"):
            refused(await world.ask("/query/profile", user_id=user_id), 403, "M_FORBIDDEN")


async def test_profiles_may_be_for_shared_rooms_only(database_url: str) -> None:
    """S20."""
    config = with_changes(CONFIG, profile={"lookup_only_in_shared_rooms": True})
    async with running_world(database_url, config=config) as world:
        room_id = await world.create_room(preset="private_chat")
        await world.membership(room_id, BOB, "invite", sender=world.alice_id)
        for user_id in (world.alice.user_id, "@nobody:test"):
            refused(await world.ask("/query/profile", user_id=user_id), 403, "M_FORBIDDEN")
        await world.membership(room_id, BOB, "join")
        assert await world.answer("/query/profile", user_id=world.alice.user_id) == {"displayname": "alice"}
        refused(await world.ask("/query/profile", user_id=world.alice.user_id, origin=THIRD), 403, "M_FORBIDDEN")
        await world.create_room()
        assert (await world.ask("/query/profile", user_id=world.alice.user_id, origin=THIRD)).status == 200


async def test_aliases(world: World) -> None:
    room_id = await world.create_room(room_alias_name="here")
    assert await world.answer("/query/directory", room_alias="#here:test") == {"room_id": room_id, "servers": ["test"]}
    await world.membership(room_id, BOB, "join")
    await world.membership(room_id, CARA, "join")
    found = await world.answer("/query/directory", room_alias="#here:test", origin="fourth.example")
    assert found["servers"][0] == "test"
    assert set(found["servers"]) == {"test", OTHER, THIRD}
    # Through a server that the room does not let take part, nobody can join.
    await world.set_state(room_id, "m.room.server_acl", {"allow": ["*"], "deny": [THIRD]})
    found = await world.answer("/query/directory", room_alias="#here:test")
    assert found["servers"] == ["test", OTHER]
    assert (await world.alice.get("/directory/room/#here:test")) == found
    await world.alice.post(f"/rooms/{room_id}/leave")
    assert (await world.answer("/query/directory", room_alias="#here:test"))["servers"] == [OTHER]


async def test_aliases_that_are_not_there(world: World) -> None:
    refused(await world.ask("/query/directory", room_alias="#nowhere:test"), 404, "M_NOT_FOUND")
    refused(await world.ask("/query/directory", room_alias=f"#here:{OTHER}"), 400, "M_INVALID_PARAM")
    refused(await world.ask("/query/directory", room_alias="here"), 400, "M_INVALID_PARAM")
    refused(await world.ask("/query/directory"), 400, "M_MISSING_PARAM")


async def test_other_queries_are_not_known(world: World) -> None:
    refused(await world.ask("/query/weather", place="here"), 404, "M_UNRECOGNIZED")


async def test_public_rooms(world: World) -> None:
    listed = await world.create_room(visibility="public", name="Listed", topic="Cheese")
    await world.create_room(name="Unlisted")
    page = await world.answer("/publicRooms")
    assert [room["room_id"] for room in page["chunk"]] == [listed]
    assert page["total_room_count_estimate"] == 1
    (room,) = page["chunk"]
    assert (room["name"], room["topic"], room["num_joined_members"]) == ("Listed", "Cheese", 1)
    assert {"world_readable", "guest_can_join", "join_rule"} <= set(room)
    for term, count in (("cheese", 1), ("wine", 0)):
        found = (await world.post("/publicRooms", {"filter": {"generic_search_term": term}})).json
        assert len(found["chunk"]) == count
    assert (await world.post("/publicRooms", {"filter": {"room_types": ["m.space"]}})).json["chunk"] == []


async def test_public_rooms_page_by_page(world: World) -> None:
    rooms = {await world.create_room(visibility="public", name=f"Room {number}") for number in range(3)}
    first = await world.answer("/publicRooms", limit=2)
    second = (await world.post("/publicRooms", {"limit": 2, "since": first["next_batch"]})).json
    assert {room["room_id"] for room in [*first["chunk"], *second["chunk"]]} == rooms
    assert "next_batch" not in second


async def test_public_rooms_check_their_parameters(world: World) -> None:
    refused(await world.ask("/publicRooms", since="x"), 400, "M_INVALID_PARAM")
    refused(await world.ask("/publicRooms", limit="x"), 400, "M_INVALID_PARAM")
    refused(await world.post("/publicRooms", {"limit": "x"}), 400, "M_BAD_JSON")
    both: dict[str, Any] = {"include_all_networks": True, "third_party_instance_id": "a|b"}
    refused(await world.post("/publicRooms", both), 400, "M_INVALID_PARAM")


async def test_public_rooms_may_be_kept_from_other_servers(database_url: str) -> None:
    config = with_changes(CONFIG, directory={"search_by_servers": False})
    async with running_world(database_url, config=config) as world:
        await world.create_room(visibility="public", name="Listed")
        refused(await world.ask("/publicRooms"), 403, "M_FORBIDDEN")
        refused(await world.post("/publicRooms", {}), 403, "M_FORBIDDEN")


async def test_openid_tokens(world: World) -> None:
    """Whoever asks is no server: the request need not be signed."""
    token = await world.alice.post(f"/user/{world.alice.user_id}/openid/request_token")
    path = f"{V1}/openid/userinfo"
    reply = await world.site.request("GET", path, query={"access_token": token["access_token"]})
    assert reply.json == {"sub": world.alice.user_id}
    refused(await world.site.request("GET", path, query={"access_token": "x"}), 401, "M_UNKNOWN_TOKEN")
    refused(await world.site.request("GET", path, query={"access_token": world.alice.token}), 401, "M_UNKNOWN_TOKEN")
    refused(await world.site.request("GET", path), 401, "M_MISSING_TOKEN")


@pytest.mark.parametrize("name", ["/query/profile", "/query/directory", "/publicRooms"])
async def test_the_api_of_servers_is_not_for_users(world: World, name: str) -> None:
    refused(await world.alice.call("GET", f"{V1}{name}"), 401, "M_UNAUTHORIZED")
