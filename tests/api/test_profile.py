"""Profiles: https://spec.matrix.org/v1.19/client-server-api/#profiles."""

from typing import Any

import pytest

from homeserver.core.ids import UserId
from storage import profiles
from tests.api.server import CONFIG, Client, Server, refused, running_server, with_changes

ALICE = "/profile/@alice:test"


async def test_a_new_user_is_called_by_its_name(server: Server, alice: Client) -> None:
    assert (await server.request("GET", ALICE)).json == {"displayname": "alice"}


async def test_display_name_and_picture(server: Server, alice: Client, bob: Client) -> None:
    await alice.put(f"{ALICE}/displayname", {"displayname": "Alice 🌍"})
    await alice.put(f"{ALICE}/avatar_url", {"avatar_url": "mxc://test/abc"})
    assert await bob.get(ALICE) == {"displayname": "Alice 🌍", "avatar_url": "mxc://test/abc"}
    assert await bob.get(f"{ALICE}/displayname") == {"displayname": "Alice 🌍"}
    assert (await server.request("GET", f"{ALICE}/avatar_url")).json == {"avatar_url": "mxc://test/abc"}


@pytest.mark.parametrize("name", ["displayname", "avatar_url"])
async def test_an_empty_name_or_picture_is_none(alice: Client, name: str) -> None:
    await alice.put(f"{ALICE}/{name}", {name: ""})
    refused(await alice.call("GET", f"{ALICE}/{name}"), 404, "M_NOT_FOUND")
    assert name not in await alice.get(ALICE)


@pytest.mark.parametrize("value", ["text", 5, 1.5, True, None, [1, {"a": "b"}], {"nested": {"x": None}}, 2**60, "a\0b"])
async def test_custom_fields_hold_any_json(alice: Client, value: Any) -> None:
    path = f"{ALICE}/org.example.field"
    await alice.put(path, {"org.example.field": value})
    assert await alice.get(path) == {"org.example.field": value}
    assert (await alice.get(ALICE))["org.example.field"] == value
    await alice.delete(path)
    refused(await alice.call("GET", path), 404, "M_NOT_FOUND")
    await alice.delete(path)


async def test_the_time_zone(alice: Client) -> None:
    await alice.put(f"{ALICE}/m.tz", {"m.tz": "Europe/Lisbon"})
    assert await alice.get(f"{ALICE}/m.tz") == {"m.tz": "Europe/Lisbon"}


async def test_the_unstable_paths(server: Server, alice: Client) -> None:
    path = "/_matrix/client/unstable/uk.tcpip.msc4133/profile/@alice:test"
    await alice.put(f"{path}/org.example.field", {"org.example.field": 1})
    assert (await alice.get(path))["org.example.field"] == 1
    await alice.delete(f"{path}/org.example.field")
    assert "org.example.field" not in await alice.get(path)
    legacy = await server.request("GET", "/_matrix/client/r0/profile/@alice:test")
    assert legacy.json == {"displayname": "alice"}


@pytest.mark.parametrize(
    ("name", "body", "errcode"),
    [
        ("displayname", {}, "M_MISSING_PARAM"),
        ("displayname", {"other": "x"}, "M_MISSING_PARAM"),
        ("displayname", [], "M_BAD_JSON"),
        ("displayname", {"displayname": 1}, "M_BAD_JSON"),
        ("displayname", {"displayname": None}, "M_BAD_JSON"),
        ("displayname", {"displayname": "x" * 257}, "M_INVALID_PARAM"),
        ("displayname", {"displayname": "a\0b"}, "M_INVALID_PARAM"),
        ("avatar_url", {"avatar_url": "https://example.org/a.png"}, "M_INVALID_PARAM"),
        ("avatar_url", {"avatar_url": "mxc://"}, "M_INVALID_PARAM"),
        ("avatar_url", {"avatar_url": {}}, "M_BAD_JSON"),
        ("m.tz", {"m.tz": 1}, "M_BAD_JSON"),
        ("UPPER", {"UPPER": 1}, "M_INVALID_PARAM"),
        ("with space", {"with space": 1}, "M_INVALID_PARAM"),
        ("1digit", {"1digit": 1}, "M_INVALID_PARAM"),
        ("ä", {"ä": 1}, "M_INVALID_PARAM"),
        ("a" * 256, {"a" * 256: 1}, "M_KEY_TOO_LARGE"),
        ("org.example.large", {"org.example.large": "x" * 66_000}, "M_PROFILE_TOO_LARGE"),
    ],
)
async def test_wrong_fields_change_nothing(alice: Client, name: str, body: Any, errcode: str) -> None:
    refused(await alice.call("PUT", f"{ALICE}/{name}", body), 400, errcode)
    assert await alice.get(ALICE) == {"displayname": "alice"}


async def test_what_is_no_json_is_refused(server: Server, alice: Client) -> None:
    for body in (b"", b"{", b'{"displayname": "\\ud800"}', b'{"displayname": NaN}'):
        reply = await server.request("PUT", f"{ALICE}/displayname", body=body, token=alice.token)
        refused(reply, 400, "M_NOT_JSON")


async def test_a_profile_has_a_size(alice: Client) -> None:
    for number in range(4):
        name = f"org.example.f{number}"
        await alice.put(f"{ALICE}/{name}", {name: "x" * 15_000})
    reply = await alice.call("PUT", f"{ALICE}/org.example.last", {"org.example.last": "x" * 15_000})
    refused(reply, 400, "M_PROFILE_TOO_LARGE")
    await alice.put(f"{ALICE}/org.example.f0", {"org.example.f0": "y" * 15_000})
    await alice.delete(f"{ALICE}/org.example.f0")
    await alice.put(f"{ALICE}/org.example.last", {"org.example.last": "x" * 15_000})


async def test_only_ones_own_profile_is_changed(alice: Client, bob: Client) -> None:
    refused(await bob.call("PUT", f"{ALICE}/displayname", {"displayname": "x"}), 403, "M_FORBIDDEN")
    refused(await bob.call("DELETE", f"{ALICE}/displayname"), 403, "M_FORBIDDEN")
    assert await bob.get(ALICE) == {"displayname": "alice"}


@pytest.mark.parametrize(
    ("user", "status", "errcode"),
    [("@nobody:test", 404, "M_NOT_FOUND"), ("@a:elsewhere", 404, "M_NOT_FOUND"), ("alice", 400, "M_INVALID_PARAM")],
)
async def test_unknown_users(server: Server, user: str, status: int, errcode: str) -> None:
    refused(await server.request("GET", f"/profile/{user}"), status, errcode)
    refused(await server.request("GET", f"/profile/{user}/displayname"), status, errcode)


async def test_changes_may_be_closed(database_url: str) -> None:
    config = with_changes(CONFIG, profile={"displayname_changes": False, "avatar_url_changes": False})
    async with running_server(database_url, config) as server:
        alice = await server.register("alice")
        refused(await alice.call("PUT", f"{ALICE}/displayname", {"displayname": "x"}), 403, "M_FORBIDDEN")
        refused(await alice.call("DELETE", f"{ALICE}/displayname"), 403, "M_FORBIDDEN")
        refused(await alice.call("PUT", f"{ALICE}/avatar_url", {"avatar_url": "mxc://test/a"}), 403, "M_FORBIDDEN")
        await alice.put(f"{ALICE}/m.tz", {"m.tz": "UTC"})
        capabilities = (await alice.get("/capabilities"))["capabilities"]
        assert capabilities["m.profile_fields"] == {"enabled": True, "disallowed": ["displayname", "avatar_url"]}
        assert capabilities["m.set_displayname"] == {"enabled": False}
        assert capabilities["m.set_avatar_url"] == {"enabled": False}


async def test_profiles_may_be_for_users_only(database_url: str) -> None:
    config = with_changes(CONFIG, profile={"lookup_without_login": False})
    async with running_server(database_url, config) as server:
        await server.register("alice")
        bob = await server.register("bob")
        refused(await server.request("GET", ALICE), 403, "M_FORBIDDEN")
        refused(await server.request("GET", f"{ALICE}/displayname"), 403, "M_FORBIDDEN")
        assert await bob.get(ALICE)


async def test_profiles_may_be_for_room_mates_only(database_url: str) -> None:
    config = with_changes(CONFIG, profile={"lookup_only_in_shared_rooms": True})
    async with running_server(database_url, config) as server:
        alice, bob = await server.register("alice"), await server.register("bob")
        refused(await server.request("GET", ALICE), 403, "M_FORBIDDEN")
        refused(await bob.call("GET", ALICE), 403, "M_FORBIDDEN")
        assert await alice.get(ALICE)
        async with server.db.connection() as conn:
            await conn.execute("INSERT INTO rooms (room_id, room_version) VALUES ('!a:test', '12')")
            await conn.execute(
                "INSERT INTO memberships (user_id, room_nid, membership, event_nid, sender) "
                "SELECT user_id, (SELECT room_nid FROM rooms), 'join', 1, user_id FROM users"
            )
        assert await bob.get(ALICE)


async def test_a_change_is_found_in_the_stream(server: Server, alice: Client) -> None:
    since = await server.hub.bound()
    with server.hub.subscribe({"user:@alice:test"}) as waiter:
        await alice.put(f"{ALICE}/displayname", {"displayname": "New"})
        assert await waiter.wait(10)
    await alice.delete(f"{ALICE}/displayname")
    upto = await server.hub.bound()
    async with server.db.connection() as conn:
        changes = await profiles.list_changed(conn, since=since, upto=upto, limit=10)
        assert [(change.user_id, change.name, change.value) for change in changes] == [
            (UserId("@alice:test"), "displayname", None)
        ]
        assert await profiles.list_changed(conn, since=upto, upto=upto + 1, limit=10) == []
