"""Access tokens, refresh tokens and logging out: https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens."""

import asyncio
import base64
from dataclasses import replace
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homeserver.config.schema import Config
from homeserver.config.values import Secret
from homeserver.services.accounts.token_key_upkeep import KEY_MS_MAX, OVERLAP_MS, TokenKeyUpkeep
from storage.token_keys import list_token_keys
from tests.api.server import CONFIG, Client, Server, password_auth, refused, running_server, with_changes
from tests.fast_clock import FastClock

WHOAMI = "/account/whoami"


def with_workers(workers: int) -> Config:
    """A configuration for so many workers; several have a Redis, which here is away."""
    redis = replace(CONFIG.redis, url=Secret("redis://127.0.0.1:1/0")) if workers > 1 else CONFIG.redis
    return replace(CONFIG, workers=workers, redis=redis)


async def refresh(server: Server, refresh_token: str | None) -> Any:
    return await server.request("POST", "/refresh", json={"refresh_token": refresh_token})


async def refreshed(server: Server, client: Client) -> Client:
    """The same session with new tokens."""
    reply = await refresh(server, client.refresh_token)
    assert reply.status == 200, reply.body
    return Client(
        server,
        user_id=client.user_id,
        device_id=client.device_id,
        token=reply.json["access_token"],
        refresh_token=reply.json["refresh_token"],
    )


async def test_no_token(server: Server) -> None:
    refused(await server.request("GET", WHOAMI), 401, "M_MISSING_TOKEN")


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a.b.c",
        "..",
        "e30.e30.e30",
        "\xe9",
        "x" * 5000,
        base64.urlsafe_b64encode(b"[" * 3000).decode() + ".e30.e30",
    ],
)
async def test_tokens_that_are_none(server: Server, token: str) -> None:
    error = refused(await server.request("GET", WHOAMI, token=token), 401, "M_UNKNOWN_TOKEN")
    assert error["soft_logout"] is False


async def test_the_token_may_stand_in_the_query(server: Server, alice: Client) -> None:
    assert (await server.request("GET", WHOAMI, query={"access_token": alice.token})).status == 200


async def test_tokens_that_others_have_made(server: Server, alice: Client) -> None:
    assert alice.token is not None
    claims = jwt.decode(alice.token, options={"verify_signature": False})
    headers = jwt.get_unverified_header(alice.token)
    forged = [
        jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": headers["kid"]}),
        jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": "other"}),
        jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA"),
        jwt.encode(claims, "", algorithm="none", headers={"kid": headers["kid"]}),
        jwt.encode(claims, "x" * 64, algorithm="HS256", headers={"kid": headers["kid"]}),
    ]
    for token in forged:
        refused(await server.request("GET", WHOAMI, token=token), 401, "M_UNKNOWN_TOKEN")
    head, _, tail = alice.token.split(".")
    other = base64.urlsafe_b64encode(orjson.dumps({**claims, "sub": "@bob:test"})).rstrip(b"=").decode()
    refused(await server.request("GET", WHOAMI, token=f"{head}.{other}.{tail}"), 401, "M_UNKNOWN_TOKEN")


async def test_the_signing_key_alone_makes_no_token(server: Server, alice: Client) -> None:
    """S27: a copy of the database, with the key in it, is not enough: each token has a secret of its own."""
    assert alice.token is not None
    claims = jwt.decode(alice.token, options={"verify_signature": False})
    async with server.db.connection() as conn:
        (row,) = await conn.fetch("SELECT key_id, private_key FROM token_keys")
    key = Ed25519PrivateKey.from_private_bytes(row["private_key"])
    forged = jwt.encode({**claims, "jti": "guess"}, key, algorithm="EdDSA", headers={"kid": row["key_id"]})
    refused(await server.request("GET", WHOAMI, token=forged), 401, "M_UNKNOWN_TOKEN")


async def test_a_token_names_user_device_and_session(server: Server, alice: Client) -> None:
    assert alice.token is not None
    claims = jwt.decode(alice.token, options={"verify_signature": False})
    assert (claims["iss"], claims["sub"], claims["device_id"]) == ("test", alice.user_id, alice.device_id)
    assert isinstance(claims["sid"], int)
    assert "exp" not in claims


async def test_logout(server: Server, alice: Client) -> None:
    other = await server.login("alice")
    await alice.post("/logout")
    error = refused(await alice.call("GET", WHOAMI), 401, "M_UNKNOWN_TOKEN")
    assert error["soft_logout"] is False
    devices = (await other.get("/devices"))["devices"]
    assert [device["device_id"] for device in devices] == [other.device_id]
    refused(await alice.call("POST", "/logout"), 401, "M_UNKNOWN_TOKEN")
    refused(await server.request("POST", "/logout"), 401, "M_MISSING_TOKEN")


async def test_logout_everywhere(server: Server, alice: Client, bob: Client) -> None:
    other = await server.login("alice", refresh_token=True)
    await alice.post("/logout/all")
    for client in (alice, other):
        refused(await client.call("GET", WHOAMI), 401, "M_UNKNOWN_TOKEN")
    refused(await refresh(server, other.refresh_token), 401, "M_UNKNOWN_TOKEN")
    assert await bob.get(WHOAMI)
    assert [device["device_id"] for device in (await (await server.login("alice")).get("/devices"))["devices"]] != []


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_logout_holds_at_once(database_url: str, workers: int) -> None:
    """Whatever has been read before: from the answer on, the token is void."""
    async with running_server(database_url, with_workers(workers)) as server:
        await server.register("alice")
        for _ in range(20):
            client = await server.login("alice")
            async with asyncio.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(client.get(WHOAMI))
            await client.post("/logout")
            refused(await client.call("GET", WHOAMI), 401, "M_UNKNOWN_TOKEN")


async def test_a_logout_holds_at_once_on_every_worker(database_url: str) -> None:
    config = with_workers(2)
    async with running_server(database_url, config) as one, running_server(database_url, config) as two:
        await one.register("alice")
        for first, second in ((one, two), (two, one)):
            for _ in range(10):
                client = await first.login("alice")
                elsewhere = Client(second, token=client.token)
                await elsewhere.get(WHOAMI)
                await client.post("/logout")
                refused(await elsewhere.call("GET", WHOAMI), 401, "M_UNKNOWN_TOKEN")


async def test_a_rotated_key_is_taken_up_by_every_worker(database_url: str) -> None:
    config = with_workers(2)
    async with running_server(database_url, config) as one, running_server(database_url, config) as two:
        alice = await one.register("alice")
        assert await Client(two, token=alice.token).get(WHOAMI)
        key_id = await one.accounts.signer.rotate()
        client = await one.login("alice")
        assert jwt.get_unverified_header(client.token or "")["kid"] == key_id
        two.clock.advance(2)
        assert await Client(two, token=client.token).get(WHOAMI)
        assert await Client(two, token=alice.token).get(WHOAMI), "older keys still verify"


async def test_a_key_lives_as_long_as_its_tokens(database_url: str) -> None:
    clock = FastClock(speed=1)
    async with running_server(database_url, clock=clock) as server:
        upkeep = TokenKeyUpkeep(db=server.db, clock=clock, signer=server.accounts.signer)

        async def key_ids() -> set[str]:
            await upkeep.look()
            async with server.db.connection() as conn:
                return {row.key_id for row in await list_token_keys(conn)}

        alice = await server.register("alice")
        first = await key_ids()
        clock.advance(KEY_MS_MAX / 1000 - 3600)
        assert await key_ids() == first
        clock.advance(7200)
        both = await key_ids()
        assert both > first, "a year is over"
        clock.advance(OVERLAP_MS / 1000 + 1)
        bob = await server.register("bob")
        assert await key_ids() == both, "alice's token is of the first key"
        assert await alice.get(WHOAMI)
        await alice.post("/logout")
        assert await key_ids() == both - first
        assert await bob.get(WHOAMI)


async def test_a_key_is_kept_until_every_worker_knows_its_successor(database_url: str) -> None:
    clock = FastClock(speed=1)
    config = with_workers(2)
    async with (
        running_server(database_url, config, clock=clock) as one,
        running_server(database_url, config, clock=clock) as two,
    ):
        await one.register("alice")
        await (await two.login("alice")).post("/logout/all")
        newest = await one.accounts.signer.rotate()
        late = await two.login("alice")
        assert jwt.get_unverified_header(late.token or "")["kid"] != newest
        clock.advance(OVERLAP_MS / 1000 + 1)
        await TokenKeyUpkeep(db=one.db, clock=clock, signer=one.accounts.signer).look()
        assert await Client(one, token=late.token).get(WHOAMI)


async def test_tokens_do_not_expire_unless_asked(server: Server, alice: Client) -> None:
    reply = await server.request(
        "POST", "/login", json={"type": "m.login.password", "user": "alice", "password": "correct horse battery staple"}
    )
    assert "expires_in_ms" not in reply.json
    assert "refresh_token" not in reply.json
    server.clock.advance(365 * 86400)
    assert await alice.get(WHOAMI)


async def test_tokens_may_expire_for_everybody(database_url: str) -> None:
    config = with_changes(CONFIG, sessions={"access_token_lifetime_ms": 60_000})
    async with running_server(database_url, config) as server:
        alice = await server.register("alice")
        server.clock.advance(61)
        error = refused(await alice.call("GET", WHOAMI), 401, "M_UNKNOWN_TOKEN")
        assert error["soft_logout"] is True
        again = await server.login("alice", device_id=alice.device_id)
        assert await again.get(WHOAMI)


async def test_refreshing(server: Server, alice: Client) -> None:
    client = await server.login("alice", refresh_token=True)
    server.clock.advance(301)
    error = refused(await client.call("GET", WHOAMI), 401, "M_UNKNOWN_TOKEN")
    assert error["soft_logout"] is True
    reply = await refresh(server, client.refresh_token)
    assert set(reply.json) == {"access_token", "refresh_token", "expires_in_ms"}
    assert reply.json["expires_in_ms"] == 300_000
    assert reply.json["refresh_token"] != client.refresh_token
    new = Client(server, token=reply.json["access_token"])
    assert (await new.get(WHOAMI))["device_id"] == client.device_id


async def test_a_refresh_token_is_good_until_its_successor_is_used(server: Server, alice: Client) -> None:
    client = await server.login("alice", refresh_token=True)
    lost = await refreshed(server, client)
    found = await refreshed(server, client)
    assert await found.get(WHOAMI)
    error = refused(await refresh(server, client.refresh_token), 401, "M_UNKNOWN_TOKEN")
    assert error["soft_logout"] is True
    assert await lost.get(WHOAMI), "the answer that came late is good too"


async def test_using_the_new_refresh_token_ends_the_old_one(server: Server, alice: Client) -> None:
    client = await server.login("alice", refresh_token=True)
    second = await refreshed(server, client)
    third = await refreshed(server, second)
    refused(await refresh(server, client.refresh_token), 401, "M_UNKNOWN_TOKEN")
    assert (await refresh(server, second.refresh_token)).status == 200, "the third is not used yet"
    assert await third.get(WHOAMI)
    refused(await refresh(server, second.refresh_token), 401, "M_UNKNOWN_TOKEN")


async def test_an_old_refresh_token_may_be_given_some_time(database_url: str) -> None:
    config = with_changes(CONFIG, sessions={"refresh_token_reuse_ms": 10_000})
    async with running_server(database_url, config) as server:
        client = await server.register("alice", refresh_token=True)
        new = await refreshed(server, client)
        assert await new.get(WHOAMI)
        other_window = await refreshed(server, client)
        assert await other_window.get(WHOAMI)
        server.clock.advance(11)
        refused(await refresh(server, client.refresh_token), 401, "M_UNKNOWN_TOKEN")
        await refreshed(server, new)
        await refreshed(server, other_window)


async def test_refresh_tokens_may_expire(database_url: str) -> None:
    config = with_changes(CONFIG, sessions={"refresh_token_lifetime_ms": 3_600_000})
    async with running_server(database_url, config) as server:
        client = await server.register("alice", refresh_token=True)
        server.clock.advance(3000)
        client = await refreshed(server, client)
        server.clock.advance(3601)
        error = refused(await refresh(server, client.refresh_token), 401, "M_UNKNOWN_TOKEN")
        assert error["soft_logout"] is True


async def test_a_session_keeps_few_rows_however_often_it_is_refreshed(server: Server, alice: Client) -> None:
    client = await server.login("alice", refresh_token=True)
    for _ in range(12):
        for _ in range(7):
            await refreshed(server, client)
        client = await refreshed(server, client)
        await client.get(WHOAMI)
        server.clock.advance(400)
    async with server.db.connection() as conn:
        rows = await conn.fetchval(
            "SELECT count(*) FROM token_pairs JOIN sessions USING (session_id) WHERE device_id = $1", client.device_id
        )
    assert rows <= 12
    assert await (await refreshed(server, client)).get(WHOAMI)


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({}, 400, "M_MISSING_PARAM"),
        ({"refresh_token": 1}, 400, "M_BAD_JSON"),
        ({"refresh_token": ""}, 401, "M_UNKNOWN_TOKEN"),
        ({"refresh_token": "unknown"}, 401, "M_UNKNOWN_TOKEN"),
        ({"refresh_token": "\0"}, 401, "M_UNKNOWN_TOKEN"),
    ],
)
async def test_wrong_refresh_tokens(server: Server, body: Any, status: int, errcode: str) -> None:
    refused(await server.request("POST", "/refresh", json=body), status, errcode)


async def test_an_access_token_is_no_refresh_token(server: Server, alice: Client) -> None:
    client = await server.login("alice", refresh_token=True)
    refused(await refresh(server, client.token), 401, "M_UNKNOWN_TOKEN")
    refused(await server.request("GET", WHOAMI, token=client.refresh_token), 401, "M_UNKNOWN_TOKEN")


async def test_a_logout_ends_the_refresh_token(server: Server, alice: Client) -> None:
    client = await server.login("alice", refresh_token=True)
    await client.post("/logout")
    error = refused(await refresh(server, client.refresh_token), 401, "M_UNKNOWN_TOKEN")
    assert error["soft_logout"] is False


async def test_a_locked_account_may_only_log_out(server: Server, alice: Client, admin: Client) -> None:
    await admin.put("/_matrix/client/v1/admin/lock/@alice:test", {"locked": True})
    for method, path in (("GET", WHOAMI), ("GET", "/devices"), ("GET", "/capabilities"), ("POST", "/delete_devices")):
        error = refused(await alice.call(method, path), 401, "M_USER_LOCKED")
        assert error["soft_logout"] is True
    await alice.post("/logout")
    refused(await alice.call("GET", WHOAMI), 401, "M_UNKNOWN_TOKEN")


async def test_a_lock_and_its_end_hold_at_once(server: Server, alice: Client, admin: Client) -> None:
    for locked in (True, False, True, False):
        await alice.call("GET", WHOAMI)
        await admin.put("/_matrix/client/v1/admin/lock/@alice:test", {"locked": locked})
        assert (await alice.call("GET", WHOAMI)).status == (401 if locked else 200)


async def test_the_end_of_an_account_holds_at_once(server: Server, alice: Client) -> None:
    await alice.get(WHOAMI)
    await alice.post("/account/deactivate", {"auth": password_auth("alice")})
    refused(await alice.call("GET", WHOAMI), 401, "M_UNKNOWN_TOKEN")
