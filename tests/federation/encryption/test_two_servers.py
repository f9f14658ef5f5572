"""Keys between two whole servers: asking, claiming, and lists that are never stale without anybody knowing.

https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption
https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from typing import Any

import asyncpg

from tests.api.e2ee.keys import CrossSigner, device_keys, new_key, one_time_keys, signed_with
from tests.federation.servers.conftest import Pair
from tests.federation.servers.rooms import act, join, shared_room, until_membership, until_synced
from tests.real_client import Client, new_device
from tests.waiting import wait_until

ENCRYPTION = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}


async def encrypted_room(pair: Pair) -> str:
    """A room of Alice and Bob."""
    return await shared_room(pair.places, initial_state=[ENCRYPTION])


async def upload(client: Client) -> dict[str, Any]:
    """New identity keys of a client's device."""
    keys = device_keys(client, new_key(client.device_id))  # type: ignore[arg-type]
    await client.post("/keys/upload", {"device_keys": keys})
    return keys


async def query(client: Client, user_id: str) -> Any:
    """The whole answer about one user."""
    return await client.post("/keys/query", {"device_keys": {user_id: []}})


async def devices(client: Client, user_id: str) -> dict[str, Any]:
    """The devices of a user as a client gets to know them."""
    answer = await query(client, user_id)
    assert answer["failures"] == {}
    found: dict[str, Any] = answer["device_keys"][user_id]
    return {device_id: {name: each[name] for name in each if name != "unsigned"} for device_id, each in found.items()}


async def token(client: Client) -> str:
    """Where a client's syncs stand."""
    return str((await client.sync())["next_batch"])


async def until_told(client: Client, since: str, user_id: str, *, member: str = "changed") -> str:
    """Syncs on until a user is named; returns where the sync stands then."""
    named: list[str] = []
    while user_id not in named:
        answer = await client.sync(since, timeout_ms=5_000)
        named, since = answer.get("device_lists", {}).get(member, []), answer["next_batch"]
    return since


async def until_known(client: Client, user_id: str, expected: dict[str, Any]) -> None:
    """Waits until a client gets to know just these devices."""

    async def holds() -> bool:
        answer = await query(client, user_id)
        known = answer["device_keys"].get(user_id, {})
        return {device_id: each["keys"] for device_id, each in known.items()} == {
            device_id: each["keys"] for device_id, each in expected.items()
        }

    await wait_until(holds)


async def is_whole(pair: Pair, user_id: str) -> bool:
    """Whether the first server has a list of a user that lacks nothing."""
    connection = await asyncpg.connect(pair.one.config.database.url)
    try:
        return bool(await connection.fetchval("SELECT is_whole FROM remote_device_lists WHERE user_id = $1", user_id))
    finally:
        await connection.close()


async def test_keys_of_users_elsewhere(pair: Pair) -> None:
    """Before a room is shared too, and each one-time key once."""
    alice, bob = pair.alice, pair.bob
    keys = await upload(bob)
    await bob.put(f"/devices/{bob.device_id}", {"display_name": "Phone"})
    await bob.post("/keys/upload", {"one_time_keys": one_time_keys("A"), "fallback_keys": one_time_keys("F")})
    for _ in range(2):
        answer = await query(alice, bob.user_id)
        shown = {**keys, "unsigned": {"device_display_name": "Phone"}}
        assert answer["device_keys"] == {bob.user_id: {bob.device_id: shown}}
        await encrypted_room(pair)
    wanted = {"one_time_keys": {bob.user_id: {bob.device_id: "signed_curve25519"}}}
    claims = [await alice.post("/keys/claim", wanted) for _ in range(2)]
    assert [claim["one_time_keys"][bob.user_id][bob.device_id] for claim in claims] == [
        one_time_keys("A"),
        one_time_keys("F"),
    ]
    assert (await query(alice, f"@nobody:{pair.two.name}"))["failures"] == {}


async def test_changed_devices_reach_the_other_server(pair: Pair) -> None:
    alice, bob = pair.alice, pair.bob
    await encrypted_room(pair)
    known = {bob.device_id: await upload(bob)}
    await until_known(alice, bob.user_id, known)
    await wait_until(lambda: is_whole(pair, bob.user_id))
    since = await token(alice)
    async with new_device(bob) as second:
        known[second.device_id] = await upload(second)
        since = await until_told(alice, since, bob.user_id)
        await until_known(alice, bob.user_id, known)
        assert await is_whole(pair, bob.user_id), "the update was applied, nothing had to be fetched"
        since = await token(alice)
        del known[second.device_id]
        await second.post("/logout")
    await until_told(alice, since, bob.user_id)
    assert await devices(alice, bob.user_id) == known


async def test_cross_signing_and_verifying_across_servers(pair: Pair) -> None:
    """Alice signs Bob's master key: she sees it, he does not. He signs his device: both see it."""
    alice, bob = pair.alice, pair.bob
    await encrypted_room(pair)
    keys = await upload(bob)
    await until_known(alice, bob.user_id, {bob.device_id: keys})
    signers = {}
    for client in (alice, bob):
        signers[client.user_id] = CrossSigner(client.user_id)
        await client.post("/keys/device_signing/upload", signers[client.user_id].body())
    bobs, alices = signers[bob.user_id], signers[alice.user_id]

    async def has_keys() -> bool:
        return bool((await query(alice, bob.user_id))["master_keys"])

    await wait_until(has_keys)
    answer = await query(alice, bob.user_id)
    assert answer["master_keys"] == {bob.user_id: bobs.key_json("master")}
    assert answer["self_signing_keys"] == {bob.user_id: bobs.key_json("self_signing")}
    assert answer["user_signing_keys"] == {}

    signed_master = signed_with(bobs.key_json("master"), alice.user_id, alices.user_signing)
    upload_path = "/keys/signatures/upload"
    uploaded = await alice.post(upload_path, {bob.user_id: {bobs.master_public: signed_master}})
    assert uploaded == {"failures": {}}
    assert (await query(alice, bob.user_id))["master_keys"] == {bob.user_id: signed_master}
    assert (await query(bob, bob.user_id))["master_keys"] == {bob.user_id: bobs.key_json("master")}

    since = await token(alice)
    signed_device = signed_with(keys, bob.user_id, bobs.self_signing)
    assert await bob.post(upload_path, {bob.user_id: {bob.device_id: signed_device}}) == {"failures": {}}
    since = await until_told(alice, since, bob.user_id)

    async def is_signed() -> bool:
        return await devices(alice, bob.user_id) == {bob.device_id: signed_device}

    await wait_until(is_signed)


async def test_a_list_after_an_outage(fast_pair: Pair) -> None:
    """Devices come and go while the line is cut; afterwards the other server knows them all, and tells its clients."""
    pair = fast_pair
    alice, bob = pair.alice, pair.bob
    await encrypted_room(pair)
    known = {bob.device_id: await upload(bob)}
    await until_known(alice, bob.user_id, known)
    await wait_until(lambda: is_whole(pair, bob.user_id))
    network = pair.deployment.network
    since = await token(alice)
    network.cut([pair.one.name], [pair.two.name])
    async with new_device(bob) as second, new_device(bob) as third:
        await upload(second)
        known[third.device_id] = await upload(third)
        await second.post("/logout")
        known[bob.device_id] = await upload(bob)
        assert set(await devices(alice, bob.user_id)) == {bob.device_id}, "as it was before"
        network.mend([pair.one.name], [pair.two.name])
        await until_told(alice, since, bob.user_id)
        await until_known(alice, bob.user_id, known)
        await wait_until(lambda: is_whole(pair, bob.user_id))
        assert await devices(alice, bob.user_id) == known


async def test_a_server_that_was_down_learns_of_changes(fast_pair: Pair) -> None:
    pair = fast_pair
    alice, bob = pair.alice, pair.bob
    await encrypted_room(pair)
    await upload(bob)
    await query(alice, bob.user_id)
    await pair.one.stop()
    known = {bob.device_id: await upload(bob)}
    await pair.two.stop()
    await pair.deployment.restart(pair.two)
    await pair.deployment.restart(pair.one)
    await until_known(alice, bob.user_id, known)
    await wait_until(lambda: is_whole(pair, bob.user_id))
    assert await devices(alice, bob.user_id) == known


async def test_who_cannot_be_asked_is_named_and_asked_later(fast_pair: Pair) -> None:
    pair = fast_pair
    alice, bob = pair.alice, pair.bob
    await encrypted_room(pair)
    known = {bob.device_id: await upload(bob)}
    network = pair.deployment.network
    network.cut([pair.one.name], [pair.two.name])
    answer = await query(alice, bob.user_id)
    assert set(answer["failures"]) == {pair.two.name}
    assert answer["device_keys"].get(bob.user_id, {}) == {}
    wanted = {"one_time_keys": {bob.user_id: {bob.device_id: "signed_curve25519"}}}
    assert set((await alice.post("/keys/claim", wanted))["failures"]) == {pair.two.name}
    network.mend([pair.one.name], [pair.two.name])
    await wait_until(lambda: is_whole(pair, bob.user_id))
    assert await devices(alice, bob.user_id) == known


async def test_rooms_that_begin_and_cease_to_be_shared(pair: Pair) -> None:
    """Syncs tell of it exactly, and who comes back is never taken for what it was."""
    alice, bob = pair.alice, pair.bob
    await upload(bob)
    since = await token(alice)
    room_id = await encrypted_room(pair)
    since = await until_told(alice, since, bob.user_id)
    await until_synced(bob, lambda answer: room_id in answer.get("rooms", {}).get("join", {}))
    await devices(alice, bob.user_id)
    await act(bob, "leave", room_id)
    since = await until_told(alice, since, bob.user_id, member="left")
    known = {bob.device_id: await upload(bob)}
    assert await devices(alice, bob.user_id) == known, "nothing is kept, he is asked"
    await join(bob, room_id, pair.one.name)
    await until_membership(alice, room_id, bob.user_id, "join")
    await until_told(alice, since, bob.user_id)
    assert await devices(alice, bob.user_id) == known
