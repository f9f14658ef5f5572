"""Passwords and the end of an account: https://spec.matrix.org/v1.19/client-server-api/#legacy-account-management."""

from typing import Any

import pytest

from tests.api.server import PASSWORD, Client, Server, password_auth, password_login, refused

NEW = "a wholly new password"


async def can_login(server: Server, password: str) -> bool:
    reply = await server.request("POST", "/login", json=password_login("alice", password))
    return reply.status == 200


async def test_whoami(server: Server, alice: Client) -> None:
    expected = {"user_id": "@alice:test", "device_id": alice.device_id, "is_guest": False}
    assert await alice.get("/account/whoami") == expected
    legacy = await server.request("GET", "/_matrix/client/r0/account/whoami", token=alice.token)
    assert legacy.json == expected


async def test_changing_the_password(server: Server, alice: Client) -> None:
    other = await server.login("alice", refresh_token=True)
    await alice.post("/account/password", {"new_password": NEW, "auth": password_auth("alice")})
    assert await alice.get("/account/whoami"), "the session that asked stays"
    refused(await other.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
    assert [device["device_id"] for device in (await alice.get("/devices"))["devices"]] == [alice.device_id]
    assert not await can_login(server, PASSWORD)
    assert await can_login(server, NEW)


async def test_other_sessions_can_be_kept(server: Server, alice: Client) -> None:
    other = await server.login("alice")
    body = {"new_password": NEW, "logout_devices": False, "auth": password_auth("alice")}
    await alice.post("/account/password", body)
    assert await other.get("/account/whoami")


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"new_password": 1}, "M_BAD_JSON"),
        ({"new_password": "short"}, "M_WEAK_PASSWORD"),
        ({"new_password": "x" * 1000}, "M_INVALID_PARAM"),
        ({"new_password": NEW, "logout_devices": "no"}, "M_BAD_JSON"),
    ],
)
async def test_passwords_that_are_refused(server: Server, alice: Client, body: Any, errcode: str) -> None:
    refused(await alice.call("POST", "/account/password", {**body, "auth": password_auth("alice")}), 400, errcode)
    assert await can_login(server, PASSWORD)


async def test_a_wrong_old_password_changes_nothing(server: Server, alice: Client) -> None:
    body = {"new_password": NEW, "auth": password_auth("alice", "wrong")}
    refused(await alice.call("POST", "/account/password", body), 401, "M_FORBIDDEN")
    assert await can_login(server, PASSWORD)


async def test_without_a_token_the_old_password_is_enough(server: Server, alice: Client) -> None:
    first = await server.request("POST", "/account/password", json={"new_password": NEW})
    assert first.status == 401
    assert first.json["flows"] == [{"stages": ["m.login.password"]}]
    session = first.json["session"]
    nobody = {"new_password": NEW, "auth": {"type": "m.login.password", "password": PASSWORD, "session": session}}
    refused(await server.request("POST", "/account/password", json=nobody), 400, "M_MISSING_PARAM")
    wrong = {"new_password": NEW, "auth": password_auth("alice", "wrong", session=session)}
    refused(await server.request("POST", "/account/password", json=wrong), 401, "M_FORBIDDEN")
    right = {"new_password": NEW, "auth": password_auth("alice", session=session)}
    assert (await server.request("POST", "/account/password", json=right)).status == 200
    refused(await alice.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
    assert await can_login(server, NEW)


async def test_a_wrong_token_is_not_taken_for_none(server: Server, alice: Client) -> None:
    body = {"new_password": NEW, "auth": password_auth("alice")}
    refused(await server.request("POST", "/account/password", json=body, token="x"), 401, "M_UNKNOWN_TOKEN")


async def test_deactivation(server: Server, alice: Client, bob: Client) -> None:
    other = await server.login("alice")
    await alice.put("/user/@alice:test/account_data/org.example", {"kept": True})
    wrong = await alice.call("POST", "/account/deactivate", {"auth": password_auth("alice", "wrong")})
    refused(wrong, 401, "M_FORBIDDEN")
    answer = await alice.post("/account/deactivate", {"auth": password_auth("alice")})
    assert answer == {"id_server_unbind_result": "success"}
    for client in (alice, other):
        refused(await client.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
    refused(await server.request("POST", "/login", json=password_login("alice")), 403, "M_USER_DEACTIVATED")
    again = await server.request("POST", "/register", json={"username": "alice", "password": PASSWORD})
    refused(again, 400, "M_USER_IN_USE")
    assert await bob.get("/account/whoami")
    async with server.db.connection() as conn:
        assert await conn.fetchval("SELECT password_hash FROM users WHERE user_id = '@alice:test'") is None
        assert await conn.fetchval("SELECT count(*) FROM account_data") == 1


async def test_deactivation_may_erase(server: Server, alice: Client) -> None:
    await alice.put("/user/@alice:test/account_data/m.ignored_user_list", {"ignored_users": {"@bob:test": {}}})
    await alice.put("/profile/@alice:test/org.example.field", {"org.example.field": 1})
    await alice.post("/account/deactivate", {"auth": password_auth("alice"), "erase": True})
    assert (await server.request("GET", "/profile/@alice:test")).json == {}
    async with server.db.connection() as conn:
        assert await conn.fetchval("SELECT erased FROM users") is True
        assert await conn.fetchval("SELECT count(*) FROM account_data") == 0
        assert await conn.fetchval("SELECT count(*) FROM ignored_users") == 0


async def test_deactivation_without_a_token(server: Server, alice: Client) -> None:
    assert (await server.request("POST", "/account/deactivate")).status == 401
    reply = await server.request("POST", "/account/deactivate", json={"auth": password_auth("alice")})
    assert reply.status == 200
    refused(await alice.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")


async def test_third_party_identifiers_are_not_there(alice: Client) -> None:
    refused(await alice.call("GET", "/account/3pid"), 404, "M_UNRECOGNIZED")
