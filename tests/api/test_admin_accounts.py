"""Administrators and accounts, by the specification and as tools know it from Synapse."""

import hashlib
import hmac
from typing import Any

import pytest

from tests.api.server import (
    CONFIG,
    PASSWORD,
    Client,
    Server,
    password_login,
    refused,
    running_server,
    with_changes,
)

REGISTER = "/_synapse/admin/v1/register"
USERS = "/_synapse/admin/v2/users"
TOKENS = "/_synapse/admin/v1/registration_tokens"
VALIDITY = "/_matrix/client/v1/register/m.login.registration_token/validity"
LOCK = "/_matrix/client/v1/admin/lock"
SUSPEND = "/_matrix/client/v1/admin/suspend"


async def shared_secret_body(server: Server, *, secret: str = "shared", **members: Any) -> dict[str, Any]:
    nonce = (await server.request("GET", REGISTER)).json["nonce"]
    body = {"nonce": nonce, "username": "bot", "password": PASSWORD, "admin": False, **members}
    parts = [body["nonce"], body["username"], body["password"], "admin" if body["admin"] else "notadmin"]
    if body.get("user_type") is not None:
        parts.append(body["user_type"])
    mac = hmac.new(secret.encode(), "\0".join(parts).encode(), hashlib.sha1).hexdigest()
    return {**body, "mac": mac}


async def test_registration_by_shared_secret(server: Server) -> None:
    reply = await server.request("POST", REGISTER, json=await shared_secret_body(server, username="BoT"))
    bot = server.client(reply.json)
    assert bot.user_id == "@bot:test"
    assert reply.json["home_server"] == "test"
    assert (await bot.get("/account/whoami"))["device_id"] == reply.json["device_id"]
    refused(await bot.call("GET", f"{USERS}/@bot:test"), 403, "M_FORBIDDEN")
    await server.login("bot")


async def test_registration_of_an_administrator(server: Server) -> None:
    body = await shared_secret_body(server, admin=True, user_type="support", displayname="Support")
    boss = server.client((await server.request("POST", REGISTER, json=body)).json)
    details = await boss.get(f"{USERS}/@bot:test")
    assert (details["admin"], details["user_type"], details["displayname"]) == (True, "support", "Support")


async def test_a_nonce_serves_once_and_not_for_long(server: Server) -> None:
    body = await shared_secret_body(server)
    assert (await server.request("POST", REGISTER, json=body)).status == 200
    refused(await server.request("POST", REGISTER, json=body), 400, "M_UNKNOWN")
    body = await shared_secret_body(server, username="late")
    server.clock.advance(61)
    refused(await server.request("POST", REGISTER, json=body), 400, "M_UNKNOWN")


async def test_wrong_proofs(server: Server) -> None:
    wrong_secret = await shared_secret_body(server, secret="guess")
    refused(await server.request("POST", REGISTER, json=wrong_secret), 403, "M_FORBIDDEN")
    raised = {**await shared_secret_body(server), "admin": True}
    refused(await server.request("POST", REGISTER, json=raised), 403, "M_FORBIDDEN")
    renamed = {**await shared_secret_body(server), "username": "other"}
    refused(await server.request("POST", REGISTER, json=renamed), 403, "M_FORBIDDEN")
    odd = {**await shared_secret_body(server), "mac": "ä" * 40}
    refused(await server.request("POST", REGISTER, json=odd), 403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("members", "errcode"),
    [
        ({"username": "us,er"}, "M_INVALID_USERNAME"),
        ({"username": "taken"}, "M_USER_IN_USE"),
        ({"user_type": "alien"}, "M_INVALID_PARAM"),
        ({"password": "x" * 600}, "M_INVALID_PARAM"),
    ],
)
async def test_accounts_that_cannot_be_made(server: Server, members: dict[str, Any], errcode: str) -> None:
    await server.register("taken")
    body = await shared_secret_body(server, **members)
    refused(await server.request("POST", REGISTER, json=body), 400, errcode)


async def test_without_a_shared_secret(database_url: str) -> None:
    config = with_changes(CONFIG, registration={"shared_secret": None})
    async with running_server(database_url, config) as server:
        refused(await server.request("GET", REGISTER), 400, "M_UNKNOWN")
        body = {"nonce": "x", "username": "bot", "password": PASSWORD, "mac": "00"}
        refused(await server.request("POST", REGISTER, json=body), 400, "M_UNKNOWN")


async def test_an_account_is_made_and_changed(server: Server, admin: Client) -> None:
    reply = await admin.call("PUT", f"{USERS}/@carol:test", {"password": PASSWORD, "displayname": "Carol"})
    assert reply.status == 201
    assert reply.json["name"] == "@carol:test"
    assert reply.json["displayname"] == "Carol"
    assert reply.json["deactivated"] is False
    carol = await server.login("carol")
    changed = await admin.put(
        f"{USERS}/@carol:test",
        {"displayname": "", "avatar_url": "mxc://test/a", "admin": True, "user_type": "bot", "threepids": []},
    )
    assert (changed["displayname"], changed["avatar_url"], changed["admin"]) == (None, "mxc://test/a", True)
    assert changed["user_type"] == "bot"
    assert await carol.get(f"{USERS}/@carol:test") == changed, "she is an administrator now"
    await admin.put(f"{USERS}/@carol:test", {"admin": False, "user_type": None})
    refused(await carol.call("GET", f"{USERS}/@carol:test"), 403, "M_FORBIDDEN")


async def test_a_password_is_reset(server: Server, admin: Client, alice: Client) -> None:
    await admin.put(f"{USERS}/@alice:test", {"password": "another password", "logout_devices": False})
    assert await alice.get("/account/whoami")
    await admin.put(f"{USERS}/@alice:test", {"password": "a third password"})
    refused(await alice.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
    await server.login("alice", password="a third password")


async def test_an_account_is_ended_and_given_back(server: Server, admin: Client, alice: Client) -> None:
    await admin.put(f"{USERS}/@alice:test", {"deactivated": True})
    refused(await server.request("POST", "/login", json=password_login("alice")), 403, "M_USER_DEACTIVATED")
    refused(await admin.call("PUT", f"{USERS}/@alice:test", {"deactivated": False}), 400, "M_INVALID_PARAM")
    await admin.put(f"{USERS}/@alice:test", {"deactivated": False, "password": PASSWORD})
    await server.login("alice")
    answer = await admin.post("/_synapse/admin/v1/deactivate/@alice:test", {"erase": True})
    assert answer == {"id_server_unbind_result": "success"}
    assert (await admin.get(f"{USERS}/@alice:test"))["erased"] is True


@pytest.mark.parametrize(
    ("user", "body", "status", "errcode"),
    [
        ("@x:elsewhere", {}, 400, "M_INVALID_PARAM"),
        ("@a b:test", {}, 400, "M_INVALID_USERNAME"),
        ("@x:test", {"user_type": "alien"}, 400, "M_INVALID_PARAM"),
        ("@x:test", {"avatar_url": "https://x"}, 400, "M_INVALID_PARAM"),
        ("@x:test", {"admin": "yes"}, 400, "M_BAD_JSON"),
        ("@x:test", {"threepids": [{"medium": "email", "address": "a@b"}]}, 400, "M_BAD_JSON"),
        ("@admin:test", {"admin": False}, 403, "M_FORBIDDEN"),
        ("@admin:test", {"deactivated": True}, 403, "M_FORBIDDEN"),
    ],
)
async def test_changes_that_are_refused(admin: Client, user: str, body: Any, status: int, errcode: str) -> None:
    refused(await admin.call("PUT", f"{USERS}/{user}", body), status, errcode)


async def test_an_administrator_acts_for_a_user(server: Server, admin: Client, alice: Client) -> None:
    path = "/_synapse/admin/v1/users/@alice:test/login"
    acting = Client(server, token=(await admin.post(path))["access_token"])
    assert await acting.get("/account/whoami") == {"user_id": "@alice:test", "is_guest": False}
    assert len((await alice.get("/devices"))["devices"]) == 1
    until = server.clock.now_ms() + 60_000
    short = Client(server, token=(await admin.post(path, {"valid_until_ms": until}))["access_token"])
    assert await short.get("/account/whoami")
    server.clock.advance(61)
    refused(await short.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
    await acting.post("/logout")
    refused(await acting.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
    assert await alice.get("/account/whoami")
    refused(await admin.call("POST", path, {"valid_until_ms": 5}), 400, "M_INVALID_PARAM")
    refused(await admin.call("POST", path.replace("alice", "admin"), {}), 400, "M_INVALID_PARAM")
    refused(await admin.call("POST", path.replace("alice", "nobody"), {}), 403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{USERS}/@bob:test"),
        ("PUT", f"{USERS}/@bob:test"),
        ("POST", "/_synapse/admin/v1/users/@bob:test/login"),
        ("POST", "/_synapse/admin/v1/deactivate/@bob:test"),
        ("GET", TOKENS),
        ("POST", f"{TOKENS}/new"),
        ("GET", f"{TOKENS}/x"),
        ("PUT", f"{TOKENS}/x"),
        ("DELETE", f"{TOKENS}/x"),
        ("GET", f"{LOCK}/@bob:test"),
        ("GET", f"{LOCK}/@nobody:test"),
        ("GET", f"{SUSPEND}/@bob:test"),
    ],
)
async def test_administration_is_for_administrators(server: Server, alice: Client, method: str, path: str) -> None:
    refused(await alice.call(method, path, None if method == "GET" else {}), 403, "M_FORBIDDEN")
    refused(await server.request(method, path), 401, "M_MISSING_TOKEN")


@pytest.mark.parametrize(("path", "flag"), [(LOCK, "locked"), (SUSPEND, "suspended")])
async def test_lock_and_suspend(server: Server, admin: Client, alice: Client, path: str, flag: str) -> None:
    assert await admin.get(f"{path}/@alice:test") == {flag: False}
    assert await admin.put(f"{path}/@alice:test", {flag: True}) == {flag: True}
    assert await admin.get(f"{path}/@alice:test") == {flag: True}
    assert (await admin.get(f"{USERS}/@alice:test"))[flag] is True
    assert await admin.put(f"{path}/@alice:test", {flag: False}) == {flag: False}
    refused(await alice.call("PUT", f"{path}/@admin:test", {flag: True}), 403, "M_FORBIDDEN")
    refused(await admin.call("PUT", f"{path}/@admin:test", {flag: True}), 403, "M_FORBIDDEN")
    refused(await admin.call("PUT", f"{path}/@nobody:test", {flag: True}), 404, "M_NOT_FOUND")
    refused(await admin.call("PUT", f"{path}/@x:elsewhere", {flag: True}), 400, "M_INVALID_PARAM")
    refused(await admin.call("PUT", f"{path}/@alice:test", {}), 400, "M_MISSING_PARAM")
    refused(await admin.call("PUT", f"{path}/@alice:test", {flag: 1}), 400, "M_BAD_JSON")
    await server.accounts.deactivation.deactivate(_id(alice), erase=False)
    refused(await admin.call("GET", f"{path}/@alice:test"), 404, "M_NOT_FOUND")


async def test_whois(admin: Client, alice: Client, bob: Client) -> None:
    answer = await alice.get("/admin/whois/@alice:test")
    assert answer["user_id"] == "@alice:test"
    connection = answer["devices"][alice.device_id]["sessions"][0]["connections"][0]
    assert connection["ip"] == "192.0.2.1"
    assert connection["user_agent"] == "tests"
    assert connection["last_seen"] > 0
    assert await admin.get("/admin/whois/@alice:test") == answer
    refused(await bob.call("GET", "/admin/whois/@alice:test"), 403, "M_FORBIDDEN")
    refused(await admin.call("GET", "/admin/whois/@nobody:test"), 404, "M_NOT_FOUND")
    refused(await admin.call("GET", "/admin/whois/@x:elsewhere"), 400, "M_INVALID_PARAM")


async def test_the_server_says_what_it_is(server: Server) -> None:
    reply = await server.request("GET", "/_synapse/admin/v1/server_version")
    assert reply.json["server_version"].startswith("Heliograph ")


async def test_registration_tokens(database_url: str) -> None:
    config = with_changes(CONFIG, registration={"requires_token": True, "require_verification": True})
    async with running_server(database_url, config) as server:
        body = await shared_secret_body(server, username="admin", admin=True)
        admin = server.client((await server.request("POST", REGISTER, json=body)).json)
        token = await admin.post(f"{TOKENS}/new", {"uses_allowed": 1})
        assert (len(token["token"]), token["pending"], token["completed"]) == (16, 0, 0)

        async def begin(username: str, given: str) -> Any:
            session = (
                await server.request("POST", "/register", json={"username": username, "password": PASSWORD})
            ).json["session"]
            auth = {"type": "m.login.registration_token", "token": given, "session": session}
            return await server.request("POST", "/register", json={"auth": auth})

        assert (await server.request("GET", VALIDITY, query={"token": token["token"]})).json == {"valid": True}
        for wrong in ("unknown", "", "\0", token["token"] + "\0"):
            refused(await begin("alice", wrong), 401, "M_UNAUTHORIZED")
        dummy = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        refused(await server.request("POST", "/register", json=dummy), 401, "M_FORBIDDEN")
        assert (await begin("alice", token["token"])).status == 200
        used = await admin.get(f"{TOKENS}/{token['token']}")
        assert (used["pending"], used["completed"]) == (0, 1)
        assert (await server.request("GET", VALIDITY, query={"token": token["token"]})).json == {"valid": False}
        refused(await begin("bob", token["token"]), 401, "M_UNAUTHORIZED")
        refused(await server.request("GET", VALIDITY), 400, "M_MISSING_PARAM")


async def test_registration_tokens_are_kept(server: Server, admin: Client) -> None:
    expiry = server.clock.now_ms() + 60_000
    named = await admin.post(f"{TOKENS}/new", {"token": "party", "uses_allowed": 5, "expiry_time": expiry})
    expected = {"token": "party", "uses_allowed": 5, "pending": 0, "completed": 0, "expiry_time": expiry}
    assert named == expected
    assert await admin.get(f"{TOKENS}/party") == expected
    assert await admin.get(TOKENS) == {"registration_tokens": [expected]}
    refused(await admin.call("POST", f"{TOKENS}/new", {"token": "party"}), 400, "M_INVALID_PARAM")
    changed = await admin.put(f"{TOKENS}/party", {"uses_allowed": 0})
    assert changed == {**expected, "uses_allowed": 0}
    assert await admin.get(TOKENS, valid="true") == {"registration_tokens": []}
    assert await admin.get(TOKENS, valid="false") == {"registration_tokens": [changed]}
    assert (await admin.put(f"{TOKENS}/party", {"uses_allowed": None, "expiry_time": None}))["expiry_time"] is None
    await admin.delete(f"{TOKENS}/party")
    for method in ("GET", "PUT", "DELETE"):
        refused(await admin.call(method, f"{TOKENS}/party", None if method == "GET" else {}), 404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"token": ""}, "M_INVALID_PARAM"),
        ({"token": "x" * 65}, "M_INVALID_PARAM"),
        ({"token": "sp ace"}, "M_INVALID_PARAM"),
        ({"length": 0}, "M_INVALID_PARAM"),
        ({"length": 65}, "M_INVALID_PARAM"),
        ({"uses_allowed": -1}, "M_BAD_JSON"),
        ({"uses_allowed": 2**40}, "M_INVALID_PARAM"),
        ({"expiry_time": 5}, "M_INVALID_PARAM"),
        ({"expiry_time": 2**60}, "M_BAD_JSON"),
    ],
)
async def test_wrong_registration_tokens(admin: Client, body: Any, errcode: str) -> None:
    refused(await admin.call("POST", f"{TOKENS}/new", body), 400, errcode)


def _id(client: Client) -> Any:
    return client.user_id
