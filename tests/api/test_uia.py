"""User-interactive authentication: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api."""

import asyncio
from typing import Any

import pytest

from tests.api.server import CONFIG, PASSWORD, Client, Server, password_auth, refused, running_server, with_changes


async def test_the_first_request_is_answered_with_flows(server: Server, alice: Client) -> None:
    reply = await alice.call("POST", "/delete_devices", {"devices": []})
    assert reply.status == 401
    assert set(reply.json) == {"flows", "params", "session", "completed"}
    assert reply.json["flows"] == [{"stages": ["m.login.password"]}]


async def test_authentication_without_a_session_is_accepted(server: Server, alice: Client) -> None:
    await alice.post("/delete_devices", {"devices": [], "auth": password_auth("alice")})


@pytest.mark.parametrize("user", ["alice", "ALICE", "@alice:test"])
async def test_the_user_is_named_in_any_way(server: Server, alice: Client, user: str) -> None:
    await alice.post("/delete_devices", {"devices": [], "auth": password_auth(user)})


async def test_the_user_may_be_named_as_of_old_or_not_at_all(server: Server, alice: Client) -> None:
    auth = {"type": "m.login.password", "password": PASSWORD}
    await alice.post("/delete_devices", {"devices": [], "auth": {**auth, "user": "@alice:test"}})
    await alice.post("/delete_devices", {"devices": [], "auth": auth})


async def test_a_wrong_password_keeps_the_session(server: Server, alice: Client) -> None:
    session = (await alice.call("POST", "/delete_devices", {"devices": []})).json["session"]
    wrong = await alice.call(
        "POST", "/delete_devices", {"devices": [], "auth": password_auth("alice", "wrong", session=session)}
    )
    error = refused(wrong, 401, "M_FORBIDDEN")
    assert error["session"] == session
    assert error["completed"] == []
    assert error["flows"] == [{"stages": ["m.login.password"]}]
    await alice.post("/delete_devices", {"devices": [], "auth": password_auth("alice", session=session)})


@pytest.mark.parametrize("session", ["unknown", "", "x" * 10_000, "a\0b"])
async def test_an_unknown_session_is_begun_anew(server: Server, alice: Client, session: str) -> None:
    for auth in ({"session": session}, password_auth("alice", session=session)):
        reply = await alice.call("POST", "/delete_devices", {"devices": [], "auth": auth})
        assert reply.status == 401
        assert reply.json["session"] != session
        assert reply.json["completed"] == []


async def test_a_session_ends_after_a_while(server: Server, alice: Client) -> None:
    session = (await alice.call("POST", "/delete_devices", {"devices": []})).json["session"]
    server.clock.advance(60 * 60)
    reply = await alice.call("POST", "/delete_devices", {"devices": [], "auth": {"session": session}})
    assert reply.json["session"] != session


@pytest.mark.parametrize("stage", ["m.login.dummy", "m.login.terms", "m.login.recaptcha", "m.login.sso", "?"])
async def test_stages_of_other_flows_are_not_accepted(server: Server, alice: Client, stage: str) -> None:
    """S25: only the stages that were offered count."""
    reply = await alice.call("POST", "/delete_devices", {"devices": [], "auth": {"type": stage}})
    error = refused(reply, 401, "M_FORBIDDEN")
    assert error["completed"] == []


@pytest.mark.parametrize(
    ("auth", "status", "errcode"),
    [
        ("m.login.password", 400, "M_BAD_JSON"),
        ({"type": 5}, 400, "M_BAD_JSON"),
        ({"type": "m.login.password", "session": 5}, 400, "M_BAD_JSON"),
        ({"type": "m.login.password"}, 400, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "password": 5}, 400, "M_BAD_JSON"),
        ({"type": "m.login.password", "password": "x", "identifier": "alice"}, 400, "M_BAD_JSON"),
        ({"type": "m.login.password", "password": "x", "identifier": {"type": "m.id.user"}}, 400, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "password": "x", "identifier": {"type": "m.id.new"}}, 400, "M_UNKNOWN"),
        (
            {
                "type": "m.login.password",
                "password": "x",
                "identifier": {"type": "m.id.thirdparty", "medium": "email", "address": "a@b"},
            },
            403,
            "M_FORBIDDEN",
        ),
    ],
)
async def test_malformed_authentication(alice: Client, auth: Any, status: int, errcode: str) -> None:
    refused(await alice.call("POST", "/delete_devices", {"devices": [], "auth": auth}), status, errcode)


async def test_another_user_cannot_authenticate_a_request(server: Server, alice: Client, bob: Client) -> None:
    """S25: who stole a token cannot confirm with a password of their own."""
    reply = await alice.call("POST", "/delete_devices", {"devices": [], "auth": password_auth("bob")})
    refused(reply, 403, "M_FORBIDDEN")
    unknown = await alice.call("POST", "/delete_devices", {"devices": [], "auth": password_auth("@bob:other")})
    refused(unknown, 403, "M_FORBIDDEN")


async def test_a_session_is_bound_to_its_user(server: Server, alice: Client, bob: Client) -> None:
    """S25: a session that another user has begun is of no use."""
    session = (await alice.call("POST", "/delete_devices", {"devices": []})).json["session"]
    reply = await bob.call("POST", "/delete_devices", {"devices": [], "auth": password_auth("bob", session=session)})
    refused(reply, 403, "M_FORBIDDEN")


async def test_a_session_is_bound_to_its_operation(server: Server, alice: Client) -> None:
    """S25: what was confirmed for one operation does not open another."""
    session = (await alice.call("DELETE", f"/devices/{alice.device_id}", {})).json["session"]
    reply = await alice.call("POST", "/account/deactivate", {"auth": password_auth("alice", session=session)})
    refused(reply, 403, "M_FORBIDDEN")
    assert await alice.get("/account/whoami")


async def test_a_session_is_bound_to_its_parameters(server: Server, alice: Client) -> None:
    """S25: what was confirmed for one device does not remove another."""
    other = await server.login("alice")
    session = (await alice.call("DELETE", f"/devices/{alice.device_id}", {})).json["session"]
    auth = {"auth": password_auth("alice", session=session)}
    refused(await alice.call("DELETE", f"/devices/{other.device_id}", auth), 403, "M_FORBIDDEN")
    assert await other.get("/account/whoami")
    session = (await alice.call("POST", "/account/password", {"new_password": "password one"})).json["session"]
    changed = {"new_password": "password two", "auth": password_auth("alice", session=session)}
    refused(await alice.call("POST", "/account/password", changed), 403, "M_FORBIDDEN")


async def test_a_completed_session_serves_once(server: Server, alice: Client) -> None:
    """S25: whoever sees a completed session cannot use it again."""
    path = "/_matrix/client/v1/login/get_token"
    session = (await alice.call("POST", path, {})).json["session"]
    await alice.post(path, {"auth": password_auth("alice", session=session)})
    for auth in ({"session": session}, password_auth("alice", session=session)):
        again = await alice.call("POST", path, {"auth": auth})
        assert again.status == 401
        assert again.json["completed"] == []


async def test_of_many_at_once_a_session_serves_one(server: Server, alice: Client) -> None:
    """S25: also not several times at the same moment."""
    path = "/_matrix/client/v1/login/get_token"
    session = (await alice.call("POST", path, {})).json["session"]
    body = {"auth": password_auth("alice", session=session)}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(alice.call("POST", path, body)) for _ in range(4)]
    assert sorted(task.result().status for task in tasks) == [200, 401, 401, 401]


async def test_an_account_without_a_password_is_not_opened_by_any(server: Server, admin: Client) -> None:
    """S25: accounts that log in by other means have no password that could be right."""
    await admin.put("/_synapse/admin/v2/users/@bob:test", {"displayname": "Bob"})
    token = (await admin.post("/_synapse/admin/v1/users/@bob:test/login"))["access_token"]
    bob = Client(server, user_id="@bob:test", token=token)
    for password in ("", "x", PASSWORD):
        reply = await bob.call("POST", "/delete_devices", {"devices": [], "auth": password_auth("bob", password)})
        refused(reply, 401, "M_FORBIDDEN")


async def test_secrets_of_sessions_are_stored_hashed(server: Server, alice: Client) -> None:
    """S27: neither the session's identifier nor the new password, hashed without salt, stands in the database."""
    body = {"new_password": "brand new password"}
    session = (await alice.call("POST", "/account/password", body)).json["session"]
    async with server.db.connection() as conn:
        rows = [row["row"] for row in await conn.fetch("SELECT t::text AS row FROM uia_sessions t")]
    assert rows
    assert not any(session in row or "brand new" in row for row in rows)


async def test_wrong_passwords_are_limited(database_url: str) -> None:
    config = with_changes(CONFIG, rate_limits={"enabled": True})
    async with running_server(database_url, config) as server:
        alice = await server.register("alice")
        body = {"devices": [], "auth": password_auth("alice", "wrong")}
        replies = [await alice.call("POST", "/delete_devices", body) for _ in range(11)]
        assert [reply.status for reply in replies] == [401] * 10 + [429]
        right = await alice.call("POST", "/delete_devices", {"devices": [], "auth": password_auth("alice")})
        refused(right, 429, "M_LIMIT_EXCEEDED")
