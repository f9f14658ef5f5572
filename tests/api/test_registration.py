"""Making accounts: https://spec.matrix.org/v1.19/client-server-api/#account-registration."""

import asyncio
from typing import Any

import pytest

from homeserver.config.schema import TermsConfig
from tests.api.server import CONFIG, PASSWORD, Server, password_login, refused, running_server, with_changes

DUMMY = {"type": "m.login.dummy"}


async def test_the_first_request_is_answered_with_flows(server: Server) -> None:
    reply = await server.request("POST", "/register", json={})
    assert reply.status == 401
    assert reply.json["flows"] == [{"stages": ["m.login.dummy"]}]
    assert reply.json["completed"] == []
    assert reply.json["params"] == {}
    assert reply.json["session"]
    assert "errcode" not in reply.json


async def test_a_user_is_registered_and_logged_in(server: Server) -> None:
    alice = await server.register("alice", initial_device_display_name="Phone")
    assert alice.user_id == "@alice:test"
    assert await alice.get("/account/whoami") == {
        "user_id": "@alice:test",
        "device_id": alice.device_id,
        "is_guest": False,
    }
    assert (await alice.get(f"/devices/{alice.device_id}"))["display_name"] == "Phone"
    await server.login("alice")


async def test_the_device_id_may_be_chosen(server: Server) -> None:
    assert (await server.register("alice", device_id="MINE")).device_id == "MINE"


async def test_capitals_are_folded(server: Server) -> None:
    assert (await server.register("AliCE")).user_id == "@alice:test"


@pytest.mark.parametrize(
    "username",
    ["", "a b", "a:b", "@alice:test", "ä", "a\0", "a" * 256, "a\n", "\u212aelvin", "12345", "a!", "a?", "é", "{", "\\"],
)
async def test_wrong_names_are_refused_before_authentication(server: Server, username: str) -> None:
    reply = await server.request("POST", "/register", json={"username": username, "password": PASSWORD})
    refused(reply, 400, "M_INVALID_USERNAME")


@pytest.mark.parametrize("username", ["q3._=-/+", "a", "_a", "0x"])
async def test_names_of_the_grammar_are_accepted(server: Server, username: str) -> None:
    assert (await server.register(username)).localpart == username


async def test_a_name_is_given_only_once(server: Server) -> None:
    await server.register("alice")
    body = {"username": "Alice", "password": PASSWORD}
    refused(await server.request("POST", "/register", json=body), 400, "M_USER_IN_USE")
    refused(await server.request("POST", "/register", json={**body, "auth": DUMMY}), 400, "M_USER_IN_USE")


async def test_of_many_at_once_one_gets_the_name(server: Server) -> None:
    body = {"username": "alice", "password": PASSWORD, "auth": DUMMY}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(server.request("POST", "/register", json=body)) for _ in range(6)]
    assert sorted(task.result().status for task in tasks) == [200, 400, 400, 400, 400, 400]


async def test_without_a_name_one_is_generated(server: Server) -> None:
    body = {"password": PASSWORD, "auth": DUMMY}
    replies = [await server.request("POST", "/register", json=body) for _ in range(2)]
    users = {reply.json["user_id"] for reply in replies}
    assert len(users) == 2
    assert not any(user[1:].partition(":")[0].isdigit() for user in users)


async def test_login_can_be_inhibited(server: Server) -> None:
    body = {"username": "alice", "password": PASSWORD, "inhibit_login": True, "auth": DUMMY}
    reply = await server.request("POST", "/register", json=body)
    assert reply.json == {"user_id": "@alice:test", "home_server": "test"}


async def test_a_password_is_needed(server: Server) -> None:
    reply = await server.request("POST", "/register", json={"username": "alice", "auth": DUMMY})
    refused(reply, 400, "M_MISSING_PARAM")
    assert (await server.request("GET", "/profile/@alice:test")).status == 404


@pytest.mark.parametrize("password", ["", "short", "1234567"])
async def test_weak_passwords_are_refused(server: Server, password: str) -> None:
    reply = await server.request("POST", "/register", json={"username": "alice", "password": password})
    refused(reply, 400, "M_WEAK_PASSWORD")


async def test_huge_passwords_are_refused(server: Server) -> None:
    reply = await server.request("POST", "/register", json={"username": "alice", "password": "x" * 600})
    refused(reply, 400, "M_INVALID_PARAM")


@pytest.mark.parametrize("password", ["übers3kr1t", "nul\0inside", "🔑🔑🔑🔑🔑🔑🔑🔑"])
async def test_passwords_may_hold_any_character(server: Server, password: str) -> None:
    await server.register("alice", password=password)
    await server.login("alice", password=password)


async def test_a_password_is_the_same_however_its_letters_are_composed(server: Server) -> None:
    await server.register("alice", password="cafe\u0301 latte")
    await server.login("alice", password="caf\u00e9 latte")


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("username", 1),
        ("password", ["x"]),
        ("device_id", {}),
        ("auth", "m.login.dummy"),
        ("inhibit_login", "yes"),
        ("refresh_token", 1),
        ("initial_device_display_name", 3),
    ],
)
async def test_members_of_wrong_types_are_refused(server: Server, member: str, value: Any) -> None:
    body = {"username": "alice", "password": PASSWORD, "auth": DUMMY, member: value}
    refused(await server.request("POST", "/register", json=body), 400, "M_BAD_JSON")


async def test_a_wrong_device_is_refused_and_no_account_made(server: Server) -> None:
    body = {"username": "alice", "password": PASSWORD, "auth": DUMMY}
    for wish in ({"device_id": ""}, {"device_id": "a\0"}, {"initial_device_display_name": "x" * 1000}):
        refused(await server.request("POST", "/register", json={**body, **wish}), 400, "M_INVALID_PARAM")
    assert (await server.request("GET", "/register/available", query={"username": "alice"})).status == 200


async def test_what_is_no_json_is_refused(server: Server) -> None:
    refused(await server.request("POST", "/register", body=b"{"), 400, "M_NOT_JSON")
    refused(await server.request("POST", "/register", body=b"[]"), 400, "M_BAD_JSON")


async def test_the_session_remembers_what_the_client_wants(server: Server) -> None:
    wanted = {"username": "alice", "password": PASSWORD, "device_id": "xyzzy", "initial_device_display_name": "name"}
    session = (await server.request("POST", "/register", json=wanted)).json["session"]
    reply = await server.request("POST", "/register", json={"auth": {**DUMMY, "session": session}})
    alice = server.client(reply.json)
    assert (alice.user_id, alice.device_id) == ("@alice:test", "xyzzy")
    assert (await alice.get("/devices/xyzzy"))["display_name"] == "name"
    await server.login("alice")


async def test_wishes_may_come_after_the_session_was_begun(server: Server) -> None:
    session = (await server.request("POST", "/register", json={})).json["session"]
    reply = await server.request(
        "POST", "/register", json={"username": "alice", "password": PASSWORD, "auth": {"session": session}}
    )
    assert reply.status == 401
    reply = await server.request("POST", "/register", json={"auth": {**DUMMY, "session": session}})
    assert reply.json["user_id"] == "@alice:test"


@pytest.mark.parametrize("username", ["alice", None])
async def test_a_repeated_last_request_answers_the_same_account(server: Server, username: str | None) -> None:
    wanted = {"password": PASSWORD} if username is None else {"username": username, "password": PASSWORD}
    session = (await server.request("POST", "/register", json=wanted)).json["session"]
    last = {**wanted, "auth": {**DUMMY, "session": session}}
    first, second = [await server.request("POST", "/register", json=last) for _ in range(2)]
    assert (first.status, second.status) == (200, 200)
    assert second.json["user_id"] == first.json["user_id"]
    assert second.json["device_id"] == first.json["device_id"]
    assert await server.client(second.json).get("/account/whoami")
    # One device, one session: the tokens of the lost answer are void.
    refused(await server.client(first.json).call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")


async def test_a_completed_session_serves_no_other_account(server: Server) -> None:
    """S25: the session of a registration is bound to the account that it has made."""
    wanted = {"username": "alice", "password": PASSWORD}
    session = (await server.request("POST", "/register", json=wanted)).json["session"]
    auth = {"auth": {**DUMMY, "session": session}}
    await server.request("POST", "/register", json={**wanted, **auth})
    other_name = await server.request("POST", "/register", json={**wanted, "username": "mallory", **auth})
    refused(other_name, 403, "M_FORBIDDEN")
    other_password = await server.request("POST", "/register", json={**wanted, "password": "other" * 3, **auth})
    refused(other_password, 403, "M_FORBIDDEN")
    server.clock.advance(6 * 60)
    late = await server.request("POST", "/register", json=auth)
    assert late.status == 401, "the session is forgotten"


async def test_a_repeated_registration_passes_the_gate(server: Server) -> None:
    """S26: also a registration that is repeated opens no session of a deactivated account."""
    session = (await server.request("POST", "/register", json={"username": "alice", "password": PASSWORD})).json[
        "session"
    ]
    last = {"auth": {**DUMMY, "session": session}}
    reply = await server.request("POST", "/register", json=last)
    await server.accounts.deactivation.deactivate(reply.json["user_id"], erase=False)
    refused(await server.request("POST", "/register", json=last), 403, "M_USER_DEACTIVATED")


async def test_passwords_are_not_kept_with_the_session(server: Server) -> None:
    """S27: nothing in the database tells the password, neither while a session waits nor afterwards."""
    secret = "a very secret password"
    await server.request("POST", "/register", json={"username": "alice", "password": secret})
    await server.register("bob", password=secret)
    async with server.db.connection() as conn:
        rows = await conn.fetch("SELECT t::text AS row FROM uia_sessions t UNION ALL SELECT u::text FROM users u")
    assert len(rows) >= 3
    for row in rows:
        assert secret not in row["row"]
        assert secret.encode().hex() not in row["row"]


async def test_available(server: Server) -> None:
    path = "/register/available"
    assert (await server.request("GET", path, query={"username": "alice"})).json == {"available": True}
    await server.register("alice")
    refused(await server.request("GET", path, query={"username": "Alice"}), 400, "M_USER_IN_USE")
    refused(await server.request("GET", path, query={"username": "a b"}), 400, "M_INVALID_USERNAME")
    refused(await server.request("GET", path, query={"username": "123"}), 400, "M_INVALID_USERNAME")
    refused(await server.request("GET", path), 400, "M_MISSING_PARAM")


@pytest.mark.parametrize(
    "keys", [{"enabled": False}, {"enabled": True, "require_verification": True}], ids=["disabled", "unverifiable"]
)
async def test_closed_registration(database_url: str, keys: dict[str, Any]) -> None:
    async with running_server(database_url, with_changes(CONFIG, registration=keys)) as server:
        body = {"username": "alice", "password": PASSWORD, "auth": DUMMY}
        refused(await server.request("POST", "/register", json=body), 403, "M_FORBIDDEN")
        refused(await server.request("GET", "/register/available", query={"username": "a"}), 403, "M_FORBIDDEN")
        path = "/_matrix/client/v1/register/m.login.registration_token/validity"
        refused(await server.request("GET", path, query={"token": "x"}), 403, "M_FORBIDDEN")


async def test_reserved_names(database_url: str) -> None:
    config = with_changes(CONFIG, registration={"reserved_usernames": ("root",)})
    async with running_server(database_url, config) as server:
        reply = await server.request("POST", "/register", json={"username": "Root", "password": PASSWORD})
        refused(reply, 400, "M_INVALID_USERNAME")


async def test_terms_must_be_accepted(database_url: str) -> None:
    terms = (TermsConfig(id="privacy", version="1.2", name="Privacy <policy>", url="https://example.org/privacy"),)
    async with running_server(database_url, with_changes(CONFIG, registration={"terms": terms})) as server:
        reply = await server.request("POST", "/register", json={"username": "alice", "password": PASSWORD})
        assert reply.json["flows"] == [{"stages": ["m.login.terms"]}]
        policy = reply.json["params"]["m.login.terms"]["policies"]["privacy"]
        assert policy == {"version": "1.2", "en": {"name": "Privacy <policy>", "url": "https://example.org/privacy"}}
        session = reply.json["session"]
        refused_stage = await server.request("POST", "/register", json={"auth": {**DUMMY, "session": session}})
        assert refused_stage.status == 401
        accepted = {"auth": {"type": "m.login.terms", "session": session}}
        assert (await server.request("POST", "/register", json=accepted)).json["user_id"] == "@alice:test"
        async with server.db.connection() as conn:
            assert await conn.fetchval("SELECT accepted_terms FROM users") == '{"privacy":"1.2"}'


async def test_guests_are_refused_by_default(server: Server) -> None:
    refused(await server.request("POST", "/register", query={"kind": "guest"}, json={}), 403, "M_FORBIDDEN")
    refused(await server.request("POST", "/register", query={"kind": "other"}, json={}), 400, "M_INVALID_PARAM")


async def test_guests(database_url: str) -> None:
    async with running_server(database_url, with_changes(CONFIG, registration={"guest_access": True})) as server:
        body = {"username": "alice", "password": PASSWORD, "device_id": "MINE", "initial_device_display_name": "Tab"}
        reply = await server.request("POST", "/register", query={"kind": "guest"}, json=body)
        guest = server.client(reply.json)
        assert guest.localpart.isdigit()
        assert guest.device_id != "MINE"
        assert (await guest.get("/account/whoami"))["is_guest"] is True
        assert (await guest.get(f"/devices/{guest.device_id}"))["display_name"] == "Tab"
        refused(await guest.call("GET", "/capabilities"), 403, "M_GUEST_ACCESS_FORBIDDEN")
        await guest.put(f"/profile/{guest.user_id}/displayname", {"displayname": "Guest"})
        avatar = await guest.call("PUT", f"/profile/{guest.user_id}/avatar_url", {"avatar_url": "mxc://test/a"})
        refused(avatar, 403, "M_GUEST_ACCESS_FORBIDDEN")
        login = await server.request("POST", "/login", json=password_login(guest.localpart, ""))
        refused(login, 403, "M_FORBIDDEN")


async def test_a_guest_becomes_a_user(database_url: str) -> None:
    async with running_server(database_url, with_changes(CONFIG, registration={"guest_access": True})) as server:
        guest = server.client((await server.request("POST", "/register", query={"kind": "guest"}, json={})).json)
        upgrade = {"password": PASSWORD, "guest_access_token": guest.token, "auth": DUMMY}
        wrong_name = await server.request("POST", "/register", json={**upgrade, "username": "alice"})
        refused(wrong_name, 400, "M_INVALID_USERNAME")
        named = {**upgrade, "username": guest.localpart}
        unknown = await server.request("POST", "/register", json={**named, "guest_access_token": "x.y.z"})
        refused(unknown, 401, "M_UNKNOWN_TOKEN")
        user = server.client((await server.request("POST", "/register", json=named)).json)
        assert user.user_id == guest.user_id
        assert (await user.get("/account/whoami"))["is_guest"] is False
        assert await user.get("/capabilities")
        refused(await guest.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
        again = await server.request("POST", "/register", json={**named, "guest_access_token": user.token})
        refused(again, 403, "M_FORBIDDEN")


async def test_registrations_are_limited_by_address(database_url: str) -> None:
    async with running_server(database_url, with_changes(CONFIG, rate_limits={"enabled": True})) as server:
        replies = [await server.request("POST", "/register", json={}) for _ in range(6)]
        assert [reply.status for reply in replies] == [401] * 5 + [429]
        error = refused(replies[-1], 429, "M_LIMIT_EXCEEDED")
        assert error["retry_after_ms"] > 0
        assert (await server.request("POST", "/register", json={}, ip="198.51.100.1")).status == 401
