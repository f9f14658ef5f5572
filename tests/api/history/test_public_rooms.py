"""The public directory, and summaries of rooms."""

from typing import Any
from urllib.parse import quote

import pytest

from homeserver.config.schema import Config, DirectoryConfig
from tests.api.history.api import SERVER, ReadingServer, User, reading_server, refused, succeeded


def _summary(name: str) -> str:
    return f"/_matrix/client/v1/room_summary/{quote(name, safe='')}"


async def _listed(on: ReadingServer, **query: Any) -> list[str]:
    return [room["room_id"] for room in succeeded(await on.call("GET", "/publicRooms", **query))["chunk"]]


async def test_the_list_tells_what_a_room_is(server: ReadingServer, alice: User, bob: User) -> None:
    room_id = await alice.create(
        visibility="public", name="The Pub", topic="Beer", room_alias_name="pub", creation_content={"type": "m.space"}
    )
    await alice.set_state(room_id, "m.room.guest_access", {"guest_access": "can_join"})
    await alice.set_state(room_id, "m.room.avatar", {"url": "mxc://example.org/pub"})
    await alice.create(name="private")
    bare = await alice.create(visibility="public")
    await bob.join(room_id)
    answer = succeeded(await server.call("GET", "/publicRooms"))
    assert answer["total_room_count_estimate"] == 2
    first, second = answer["chunk"]
    assert first == {
        "room_id": room_id,
        "name": "The Pub",
        "topic": "Beer",
        "canonical_alias": "#pub:example.org",
        "avatar_url": "mxc://example.org/pub",
        "room_type": "m.space",
        "join_rule": "public",
        "num_joined_members": 2,
        "world_readable": False,
        "guest_can_join": True,
    }
    assert second == {
        "room_id": bare,
        "join_rule": "public",
        "num_joined_members": 1,
        "world_readable": False,
        "guest_can_join": False,
    }
    assert "next_batch" not in answer
    assert "prev_batch" not in answer


async def test_a_room_that_has_been_closed_is_not_listed_any_more(server: ReadingServer, alice: User) -> None:
    room_id = await alice.create(visibility="public")
    await alice.set_state(room_id, "m.room.join_rules", {"join_rule": "invite"})
    assert await _listed(server) == []
    await alice.set_state(room_id, "m.room.join_rules", {"join_rule": "knock"})
    assert await _listed(server) == [room_id]
    await alice.leave(room_id)
    assert await _listed(server) == []


async def test_pages_both_ways(server: ReadingServer, alice: User) -> None:
    rooms = {await alice.create(visibility="public") for _ in range(7)}
    seen: list[str] = []
    pages: list[Any] = []
    body: dict[str, Any] = {"limit": 3}
    while True:
        pages.append(await alice.post("/publicRooms", **body))
        seen += [room["room_id"] for room in pages[-1]["chunk"]]
        if "next_batch" not in pages[-1]:
            break
        body["since"] = pages[-1]["next_batch"]
    assert [len(page["chunk"]) for page in pages] == [3, 3, 1]
    assert set(seen) == rooms
    assert len(seen) == 7
    backwards = await alice.post("/publicRooms", limit=3, since=pages[-1]["prev_batch"])
    assert backwards["chunk"] == pages[1]["chunk"]
    first = await alice.post("/publicRooms", limit=3, since=backwards["prev_batch"])
    assert first["chunk"] == pages[0]["chunk"]
    assert "prev_batch" not in first
    assert (await alice.post("/publicRooms", limit=3, since=first["next_batch"]))["chunk"] == pages[1]["chunk"]
    assert await _listed(server, limit=0) == await _listed(server, limit=10**6) == seen


async def test_searching(alice: User) -> None:
    french = await alice.create(visibility="public", name="Un nom français")
    topical = await alice.create(visibility="public", topic="All about HOPS", creation_content={"type": "m.space"})
    named = await alice.create(visibility="public", room_alias_name="brewery")

    async def found(**wanted: Any) -> set[str]:
        return {room["room_id"] for room in (await alice.post("/publicRooms", filter=wanted))["chunk"]}

    assert await found(generic_search_term="FRANÇAIS") == {french}
    assert await found(generic_search_term="hops about") == {topical}
    assert await found(generic_search_term="brew") == {named}
    assert await found(generic_search_term="%") == set()
    assert await found(generic_search_term="") == {french, topical, named}
    assert await found(room_types=["m.space"]) == {topical}
    assert await found(room_types=[None]) == {french, named}
    assert await found(room_types=[None, "m.space"]) == {french, topical, named}
    assert await found(room_types=[]) == set()
    assert await found(room_types=None, generic_search_term=None) == {french, topical, named}


async def test_networks_of_application_services(server: ReadingServer, alice: User) -> None:
    own, bridged = await alice.create(visibility="public"), await alice.create(preset="public_chat")
    async with server.db.connection() as conn:
        await conn.execute("INSERT INTO published_rooms VALUES ($1, 'irc', 'libera')", bridged)

    async def found(**body: Any) -> set[str]:
        return {room["room_id"] for room in (await alice.post("/publicRooms", **body))["chunk"]}

    assert await found() == {own}
    assert await found(include_all_networks=True) == {own, bridged}
    assert await found(third_party_instance_id="irc|libera") == {bridged}
    assert await found(third_party_instance_id="irc|oftc") == set()
    both = {"include_all_networks": True, "third_party_instance_id": "irc|libera"}
    refused(await alice.call("POST", "/publicRooms", both), 400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"limit": -1}, "M_BAD_JSON"),
        ({"limit": "3"}, "M_BAD_JSON"),
        ({"since": "nonsense"}, "M_INVALID_PARAM"),
        ({"since": "n1_!\0"}, "M_INVALID_PARAM"),
        ({"since": "n99999999999_!a"}, "M_INVALID_PARAM"),
        ({"filter": {"generic_search_term": "\0"}}, "M_INVALID_PARAM"),
        ({"filter": {"generic_search_term": 5}}, "M_BAD_JSON"),
        ({"filter": {"generic_search_term": "a" * 256}}, "M_BAD_JSON"),
        ({"filter": {"room_types": "m.space"}}, "M_BAD_JSON"),
        ({"filter": {"room_types": ["\0"]}}, "M_INVALID_PARAM"),
        ({"filter": []}, "M_BAD_JSON"),
        ([], "M_BAD_JSON"),
    ],
)
async def test_wrong_searches(server: ReadingServer, alice: User, body: Any, errcode: str) -> None:
    refused(await server.call("POST", "/publicRooms", body, token=alice.token), 400, errcode)


async def test_lists_of_other_servers_cannot_be_asked_without_federation(server: ReadingServer, alice: User) -> None:
    refused(await server.call("GET", "/publicRooms", server="elsewhere.org"), 404, "M_NOT_FOUND")
    refused(await server.call("GET", "/publicRooms", server="no server"), 400, "M_INVALID_PARAM")
    refused(await server.call("GET", "/publicRooms", since="x"), 400, "M_INVALID_PARAM")
    assert await _listed(server, server=SERVER) == []
    refused(await server.call("POST", "/publicRooms", {}), 401, "M_MISSING_TOKEN")
    assert (await alice.call("POST", "/publicRooms?server=elsewhere.org", {})).status == 404


async def test_the_list_may_be_for_users_only(database_url: str) -> None:
    config = Config(server_name=SERVER, directory=DirectoryConfig(search_without_login=False))
    async with reading_server(database_url, config=config) as server:
        refused(await server.call("GET", "/publicRooms"), 401, "M_MISSING_TOKEN")
        guest = await server.user("guest", is_guest=True)
        assert (await guest.get("/publicRooms"))["chunk"] == []
        assert (await guest.post("/publicRooms"))["chunk"] == []


async def test_listing_a_room_takes_the_power_to_name_it(server: ReadingServer, alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    path = f"/directory/list/room/{room_id}"
    assert succeeded(await server.call("GET", path)) == {"visibility": "private"}
    refused(await bob.call("PUT", path, {"visibility": "public"}), 403, "M_FORBIDDEN")
    await bob.join(room_id)
    refused(await bob.call("PUT", path, {"visibility": "public"}), 403, "M_FORBIDDEN")
    await alice.put(path, {})
    assert succeeded(await server.call("GET", path)) == {"visibility": "public"}
    await alice.put(path, {"visibility": "public"})
    admin = await server.user("admin", is_admin=True)
    await admin.put(path, {"visibility": "private"})
    assert succeeded(await server.call("GET", path)) == {"visibility": "private"}
    refused(await alice.call("PUT", path, {"visibility": "hidden"}), 400, "M_BAD_JSON")
    for method in ("GET", "PUT"):
        absent = await alice.call(method, "/directory/list/room/!absent:example.org", {} if method == "PUT" else None)
        refused(absent, 404, "M_NOT_FOUND")


async def test_listing_may_be_for_administrators_only(database_url: str) -> None:
    config = Config(server_name=SERVER, directory=DirectoryConfig(publish="admins"))
    async with reading_server(database_url, config=config) as server:
        alice, admin = await server.user("alice"), await server.user("admin", is_admin=True)
        room_id = await alice.create(preset="public_chat")
        path = f"/directory/list/room/{room_id}"
        refused(await alice.call("PUT", path, {"visibility": "public"}), 403, "M_FORBIDDEN")
        await admin.put(path, {"visibility": "public"})
        await alice.put(path, {"visibility": "private"})


async def test_the_summary_of_a_room(server: ReadingServer, alice: User, bob: User) -> None:
    encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    room_id = await alice.create(
        preset="public_chat", name="The Pub", room_alias_name="pub", room_version="11", initial_state=[encryption]
    )
    expected = {
        "room_id": room_id,
        "name": "The Pub",
        "canonical_alias": "#pub:example.org",
        "join_rule": "public",
        "num_joined_members": 1,
        "world_readable": False,
        "guest_can_join": False,
        "encryption": "m.megolm.v1.aes-sha2",
        "room_version": "11",
    }
    for name in (room_id, "#pub:example.org"):
        assert succeeded(await server.call("GET", _summary(name))) == expected
        assert await bob.get(_summary(name)) == expected
        assert await alice.get(_summary(name)) == {**expected, "membership": "join"}


async def test_s20_summaries_are_for_those_who_may_join_or_read(
    server: ReadingServer, alice: User, bob: User, carol: User
) -> None:
    """What a private room is called is not told to outsiders, and absence looks the same (lesson S20)."""
    private = await alice.create(name="Secret")
    absent = await bob.call("GET", _summary("!absent:example.org"))
    refused(absent, 404, "M_NOT_FOUND")
    assert (await bob.call("GET", _summary(private))).body == absent.body
    assert (await server.call("GET", _summary(private))).body == absent.body
    await alice.invite(private, bob)
    assert (await bob.get(_summary(private)))["membership"] == "invite"
    space = await alice.create(preset="public_chat")
    allow = [{"type": "m.room_membership", "room_id": space}, {"type": "m.room_membership", "room_id": "\0"}, 5]
    await alice.set_state(private, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
    assert (await carol.call("GET", _summary(private))).body == absent.body
    await carol.join(space)
    assert (await carol.get(_summary(private)))["allowed_room_ids"] == [space]
    assert (await server.call("GET", _summary(private))).body == absent.body
    for open_rule in ("knock", "knock_restricted", "public"):
        await alice.set_state(private, "m.room.join_rules", {"join_rule": open_rule})
        assert succeeded(await server.call("GET", _summary(private)))["join_rule"] == open_rule
    await alice.post(f"/rooms/{private}/ban", user_id=carol.user_id)
    assert (await carol.call("GET", _summary(private))).body == absent.body
    await alice.set_state(private, "m.room.history_visibility", {"history_visibility": "world_readable"})
    assert (await carol.get(_summary(private)))["membership"] == "ban"
    refused(await alice.call("GET", _summary("nonsense")), 400, "M_INVALID_PARAM")
    refused(await alice.call("GET", _summary("#absent:example.org")), 404, "M_NOT_FOUND")
