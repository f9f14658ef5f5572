"""Logging in: https://spec.matrix.org/v1.19/client-server-api/#legacy-login."""

import asyncio
import time
from typing import Any

import pytest

from homeserver.config.schema import PasswordsConfig, RateConfig
from tests.api.server import (
    CONFIG,
    PASSWORD,
    Client,
    Server,
    password_auth,
    password_login,
    refused,
    running_server,
    with_changes,
)

GET_TOKEN = "/_matrix/client/v1/login/get_token"


async def login_token(client: Client) -> str:
    answer = await client.post(GET_TOKEN, {"auth": password_auth(client.user_id)})
    assert 0 < answer["expires_in_ms"] <= 120_000
    token: str = answer["login_token"]
    return token


async def test_flows(server: Server) -> None:
    assert (await server.request("GET", "/login")).json == {
        "flows": [{"type": "m.login.password"}, {"type": "m.login.token", "get_login_token": True}]
    }


@pytest.mark.parametrize("user", ["alice", "Alice", "@alice:test", "@ALICE:test"])
async def test_login_with_a_password(server: Server, alice: Client, user: str) -> None:
    client = await server.login(user, initial_device_display_name="Tablet")
    assert client.user_id == "@alice:test"
    assert client.device_id != alice.device_id
    assert (await client.get(f"/devices/{client.device_id}"))["display_name"] == "Tablet"


async def test_login_as_of_old(server: Server, alice: Client) -> None:
    reply = await server.request(
        "POST", "/login", json={"type": "m.login.password", "user": "alice", "password": PASSWORD}
    )
    assert reply.json["user_id"] == "@alice:test"


async def test_where_the_server_is_told_if_the_operator_says_it(database_url: str) -> None:
    config = with_changes(CONFIG, well_known={"client_base_url": "https://matrix.test/"})
    async with running_server(database_url, config) as server:
        await server.register("alice")
        reply = await server.request("POST", "/login", json=password_login("alice"))
        assert reply.json["well_known"] == {"m.homeserver": {"base_url": "https://matrix.test/"}}


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("alice", "wrong password"),
        ("alice", ""),
        ("alice", "x" * 100_000),
        ("nobody", PASSWORD),
        ("@alice:elsewhere", PASSWORD),
        ("alice:test", PASSWORD),
        ("@alice", PASSWORD),
        ("", PASSWORD),
        ("\0", PASSWORD),
        ("x" * 5000, PASSWORD),
    ],
)
async def test_wrong_names_and_passwords_are_answered_alike(
    server: Server, alice: Client, user: str, password: str
) -> None:
    """S28: the answer does not tell whether there is such an account."""
    error = refused(await server.request("POST", "/login", json=password_login(user, password)), 403, "M_FORBIDDEN")
    assert error["error"] == "Wrong user name or password"


async def test_an_unknown_user_takes_as_long_as_a_wrong_password(database_url: str) -> None:
    """S28: nor does the time that the answer takes."""
    slow = PasswordsConfig(time_cost=4, memory_cost_kib=16 * 1024)
    async with running_server(
        database_url,
        with_changes(CONFIG, passwords={"time_cost": slow.time_cost, "memory_cost_kib": slow.memory_cost_kib}),
    ) as server:
        await server.register("alice")

        async def quickest(user: str) -> float:
            seconds = []
            for _ in range(4):
                started = time.perf_counter()
                await server.request("POST", "/login", json=password_login(user, "wrong password"))
                seconds.append(time.perf_counter() - started)
            return min(seconds)

        assert await quickest("nobody") > 0.5 * await quickest("alice")


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({}, 400, "M_MISSING_PARAM"),
        ({"type": 1}, 400, "M_BAD_JSON"),
        ({"type": "m.login.unknown"}, 400, "M_UNKNOWN"),
        ({"type": "m.login.application_service"}, 400, "M_UNKNOWN"),
        ({"type": "m.login.password"}, 400, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "password": "x"}, 400, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "password": 1, "user": "alice"}, 400, "M_BAD_JSON"),
        ({"type": "m.login.password", "password": "x", "identifier": []}, 400, "M_BAD_JSON"),
        ({"type": "m.login.password", "password": "x", "identifier": {"user": "alice"}}, 400, "M_MISSING_PARAM"),
        (
            {"type": "m.login.password", "password": "x", "identifier": {"type": "m.id.user", "user": 1}},
            400,
            "M_BAD_JSON",
        ),
        (
            {"type": "m.login.password", "password": "x", "identifier": {"type": "m.id.odd", "user": "alice"}},
            400,
            "M_UNKNOWN",
        ),
        (
            {
                "type": "m.login.password",
                "password": "x",
                "identifier": {"type": "m.id.thirdparty", "medium": "email", "address": "a@b"},
            },
            403,
            "M_FORBIDDEN",
        ),
        (
            {
                "type": "m.login.password",
                "password": "x",
                "identifier": {"type": "m.id.phone", "country": "GB", "phone": "1"},
            },
            403,
            "M_FORBIDDEN",
        ),
        ({"type": "m.login.password", "password": "x", "medium": "email", "address": "a@b"}, 403, "M_FORBIDDEN"),
        ({"type": "m.login.token"}, 400, "M_MISSING_PARAM"),
        ({"type": "m.login.token", "token": 1}, 400, "M_BAD_JSON"),
        ({"type": "m.login.token", "token": "unknown"}, 403, "M_FORBIDDEN"),
        ({"type": "m.login.token", "token": "nul\0"}, 403, "M_FORBIDDEN"),
    ],
)
async def test_malformed_logins(server: Server, alice: Client, body: Any, status: int, errcode: str) -> None:
    refused(await server.request("POST", "/login", json=body), status, errcode)


async def test_a_known_device_is_taken_over(server: Server, alice: Client) -> None:
    again = await server.login("alice", device_id=alice.device_id, initial_device_display_name="Renamed")
    assert again.device_id == alice.device_id
    devices = (await again.get("/devices"))["devices"]
    assert [device.get("display_name") for device in devices] == [None]
    refused(await alice.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")


async def test_devices_of_one_name_are_different_for_different_users(server: Server, alice: Client) -> None:
    bob = await server.register("bob", device_id=alice.device_id)
    assert await alice.get("/account/whoami")
    assert await bob.get("/account/whoami")


async def test_a_login_token_works_once(server: Server, alice: Client) -> None:
    token = await login_token(alice)
    body = {"type": "m.login.token", "token": token, "device_id": "TV"}
    other = server.client((await server.request("POST", "/login", json=body)).json)
    assert (other.user_id, other.device_id) == ("@alice:test", "TV")
    refused(await server.request("POST", "/login", json=body), 403, "M_FORBIDDEN")


async def test_a_login_token_works_once_for_many_at_once(server: Server, alice: Client) -> None:
    body = {"type": "m.login.token", "token": await login_token(alice)}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(server.request("POST", "/login", json=body)) for _ in range(4)]
    assert sorted(task.result().status for task in tasks) == [200, 403, 403, 403]


async def test_a_login_token_expires(server: Server, alice: Client) -> None:
    token = await login_token(alice)
    server.clock.advance(121)
    reply = await server.request("POST", "/login", json={"type": "m.login.token", "token": token})
    refused(reply, 403, "M_FORBIDDEN")


async def test_a_login_token_takes_consent_each_time(server: Server, alice: Client) -> None:
    await login_token(alice)
    assert (await alice.call("POST", GET_TOKEN, {})).status == 401
    assert (await server.request("POST", GET_TOKEN, json={})).json["errcode"] == "M_MISSING_TOKEN"


async def test_login_tokens_are_stored_hashed(server: Server, alice: Client) -> None:
    """S27: whoever reads the database finds no token in it."""
    await login_token(alice)
    refreshing = await server.login("alice", refresh_token=True)
    secrets = [alice.token, refreshing.token, refreshing.refresh_token]
    async with server.db.connection() as conn:
        rows = await conn.fetch(
            "SELECT t::text AS row FROM login_tokens t UNION ALL SELECT p::text FROM token_pairs p "
            "UNION ALL SELECT s::text FROM sessions s"
        )
    assert len(rows) == 5
    for row in rows:
        assert not any(secret in row["row"] for secret in secrets if secret)
        assert "hll_" not in row["row"]


async def test_a_deactivated_user_cannot_log_in_by_any_way(server: Server, alice: Client, admin: Client) -> None:
    """S26: every way to a session passes the same gate."""
    token = await login_token(alice)
    refreshing = await server.login("alice", refresh_token=True)
    await server.accounts.deactivation.deactivate(_user_id(alice), erase=False)
    refused(await server.request("POST", "/login", json=password_login("alice")), 403, "M_USER_DEACTIVATED")
    by_token = await server.request("POST", "/login", json={"type": "m.login.token", "token": token})
    assert by_token.status == 403
    by_refresh = await server.request("POST", "/refresh", json={"refresh_token": refreshing.refresh_token})
    assert refused(by_refresh, 401, "M_UNKNOWN_TOKEN")["soft_logout"] is False
    by_admin = await admin.call("POST", "/_synapse/admin/v1/users/@alice:test/login", {})
    refused(by_admin, 403, "M_USER_DEACTIVATED")
    for client in (alice, refreshing):
        error = refused(await client.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
        assert error["soft_logout"] is False


async def test_a_locked_user_cannot_log_in_by_any_way(server: Server, alice: Client, admin: Client) -> None:
    """S26: a lock closes all ways too, and refreshing is one of them."""
    token = await login_token(alice)
    refreshing = await server.login("alice", refresh_token=True)
    await admin.put("/_matrix/client/v1/admin/lock/@alice:test", {"locked": True})
    refused(await server.request("POST", "/login", json=password_login("alice")), 401, "M_USER_LOCKED")
    wrong = await server.request("POST", "/login", json=password_login("alice", "wrong"))
    refused(wrong, 403, "M_FORBIDDEN")
    by_token = await server.request("POST", "/login", json={"type": "m.login.token", "token": token})
    refused(by_token, 401, "M_USER_LOCKED")
    by_refresh = await server.request("POST", "/refresh", json={"refresh_token": refreshing.refresh_token})
    assert refused(by_refresh, 401, "M_USER_LOCKED")["soft_logout"] is True
    by_admin = await admin.call("POST", "/_synapse/admin/v1/users/@alice:test/login", {})
    refused(by_admin, 401, "M_USER_LOCKED")
    await admin.put("/_matrix/client/v1/admin/lock/@alice:test", {"locked": False})
    await server.login("alice")
    assert (await server.request("POST", "/refresh", json={"refresh_token": refreshing.refresh_token})).status == 200


async def test_a_suspended_user_can_log_in(server: Server, alice: Client, admin: Client) -> None:
    await admin.put("/_matrix/client/v1/admin/suspend/@alice:test", {"suspended": True})
    suspended = await server.login("alice")
    name = await suspended.call("PUT", "/profile/@alice:test/displayname", {"displayname": "x"})
    refused(name, 403, "M_USER_SUSPENDED")


async def test_too_many_wrong_passwords_lock_the_account_for_a_while(database_url: str) -> None:
    config = with_changes(CONFIG, rate_limits={"enabled": True, "login": RateConfig(per_second=0.1, burst=3)})
    async with running_server(database_url, config) as server:
        await server.register("alice")
        addresses = iter(f"192.0.2.{number}" for number in range(2, 99))

        async def attempt(password: str) -> Any:
            return await server.request("POST", "/login", json=password_login("alice", password), ip=next(addresses))

        assert [(await attempt("wrong")).status for _ in range(4)] == [403, 403, 403, 429]
        error = refused(await attempt(PASSWORD), 429, "M_LIMIT_EXCEEDED")
        assert 0 < error["retry_after_ms"] <= 10_000
        server.clock.advance(10)
        assert (await attempt(PASSWORD)).status == 200
        assert [(await attempt(PASSWORD)).status for _ in range(10)] == [200] * 10, "right passwords do not count"


async def test_too_many_wrong_passwords_from_one_address(database_url: str) -> None:
    config = with_changes(CONFIG, rate_limits={"enabled": True, "login": RateConfig(per_second=0.1, burst=3)})
    async with running_server(database_url, config) as server:
        replies = [
            await server.request("POST", "/login", json=password_login(f"user{number}"), ip=f"2001:db8::{number}")
            for number in range(4)
        ]
        assert [reply.status for reply in replies] == [403, 403, 403, 429]


async def test_a_hash_made_with_other_settings_is_renewed(database_url: str) -> None:
    async with running_server(database_url) as server:
        await server.register("alice")
    async with running_server(database_url, with_changes(CONFIG, passwords={"time_cost": 2})) as server:
        await server.login("alice")
        async with server.db.connection() as conn:
            assert "t=2" in await conn.fetchval("SELECT password_hash FROM users")
        await server.login("alice")


async def test_without_passwords(database_url: str) -> None:
    async with running_server(database_url) as server:
        alice = await server.register("alice")
    async with running_server(database_url, with_changes(CONFIG, passwords={"enabled": False})) as server:
        flows = (await server.request("GET", "/login")).json["flows"]
        assert [flow["type"] for flow in flows] == ["m.login.token"]
        refused(await server.request("POST", "/login", json=password_login("alice")), 400, "M_UNKNOWN")
        alice.server = server
        reply = await alice.call("POST", "/delete_devices", {"devices": [], "auth": password_auth("alice")})
        refused(reply, 401, "M_FORBIDDEN")
        assert (await alice.get("/capabilities"))["capabilities"]["m.change_password"] == {"enabled": False}


def _user_id(client: Client) -> Any:
    return client.user_id
