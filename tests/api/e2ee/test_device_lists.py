"""Whose devices have changed: https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user."""

import asyncio
from typing import Any
from urllib.parse import quote

from tests.api.e2ee.keys import CrossSigner, upload_device
from tests.api.server import Client, Site, refused

ENCRYPTION = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}


async def room_of(owner: Client, *others: Client, encrypted: bool = True) -> str:
    """A room with some users in it."""
    state = [ENCRYPTION] if encrypted else []
    created = await owner.post("/createRoom", {"preset": "public_chat", "initial_state": state})
    for other in others:
        await other.post(f"/rooms/{quote(created['room_id'])}/join")
    return str(created["room_id"])


async def token(client: Client) -> str:
    """Where a client stands now."""
    return str((await client.get("/sync"))["next_batch"])


async def lists(client: Client, since: str, *, timeout: int = 0) -> Any:
    """What a sync tells, which `/keys/changes` must tell as well."""
    answer = await client.get("/sync", since=since, timeout=timeout)
    told = answer.get("device_lists", {"changed": [], "left": []})
    changes = await client.get("/keys/changes", **{"from": since, "to": answer["next_batch"]})
    assert {name: set(users) for name, users in changes.items()} == {name: set(users) for name, users in told.items()}
    return told


async def test_changes_reach_those_who_share_a_room(site: Site, alice: Client, bob: Client) -> None:
    carol = await site.register("carol")
    await room_of(alice, bob, encrypted=False)
    tokens = {client.user_id: await token(client) for client in (alice, bob, carol)}
    await upload_device(alice)
    assert (await lists(bob, tokens[bob.user_id]))["changed"] == [alice.user_id]
    assert (await lists(alice, tokens[alice.user_id]))["changed"] == [alice.user_id]
    assert await lists(carol, tokens[carol.user_id]) == {"changed": [], "left": []}


async def test_what_counts_as_a_change(site: Site, alice: Client, bob: Client) -> None:
    await room_of(alice, bob)
    second = await site.login("alice")
    key_changes = (
        lambda: upload_device(second),
        lambda: second.put(f"/devices/{second.device_id}", {"display_name": "Telephone"}),
        lambda: alice.post("/keys/device_signing/upload", CrossSigner(alice.user_id).body()),
        lambda: second.post("/logout"),
    )
    for change in key_changes:
        since = await token(bob)
        await change()
        assert (await lists(bob, since))["changed"] == [alice.user_id]
    since = await token(bob)
    await alice.put(f"/devices/{alice.device_id}", {"display_name": "A device without keys"})
    assert (await lists(bob, since))["changed"] == []


async def test_who_waits_is_woken(alice: Client, bob: Client) -> None:
    await room_of(alice, bob)
    since = await token(bob)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(lists(bob, since, timeout=30_000))
        await upload_device(alice)
    assert waiting.result()["changed"] == [alice.user_id]


async def test_joining_an_encrypted_room(site: Site, alice: Client, bob: Client) -> None:
    carol = await site.register("carol")
    plain, encrypted = await room_of(alice, bob, encrypted=False), await room_of(alice, bob)
    tokens = {client.user_id: await token(client) for client in (bob, carol)}
    await carol.post(f"/rooms/{quote(plain)}/join")
    assert await lists(carol, tokens[carol.user_id]) == {"changed": [], "left": []}
    await carol.post(f"/rooms/{quote(encrypted)}/join")
    assert set((await lists(carol, tokens[carol.user_id]))["changed"]) == {alice.user_id, bob.user_id}
    assert (await lists(bob, tokens[bob.user_id]))["changed"] == [carol.user_id]
    since = await token(bob)
    await carol.put(f"/profile/{carol.user_id}/displayname", {"displayname": "Carola"})
    await carol.get("/sync")
    assert (await lists(bob, since))["changed"] == []


async def test_leaving_the_last_encrypted_room(alice: Client, bob: Client) -> None:
    first, second = await room_of(alice, bob), await room_of(alice, bob)
    await room_of(alice, bob, encrypted=False)
    tokens = {client.user_id: await token(client) for client in (alice, bob)}
    await bob.post(f"/rooms/{quote(first)}/leave")
    for client in (alice, bob):
        assert await lists(client, tokens[client.user_id]) == {"changed": [], "left": []}
    await bob.post(f"/rooms/{quote(second)}/leave")
    assert await lists(bob, tokens[bob.user_id]) == {"changed": [], "left": [alice.user_id]}
    assert await lists(alice, tokens[alice.user_id]) == {"changed": [], "left": [bob.user_id]}


async def test_a_room_that_becomes_encrypted(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob, encrypted=False)
    since = await token(bob)
    await alice.put(f"/rooms/{quote(room_id)}/state/m.room.encryption", ENCRYPTION["content"])
    assert (await lists(bob, since))["changed"] == [alice.user_id]


async def test_tokens_of_changes(alice: Client) -> None:
    since = await token(alice)
    refused(await alice.call("GET", "/keys/changes", **{"from": since}), 400, "M_MISSING_PARAM")
    refused(await alice.call("GET", "/keys/changes", **{"from": "x", "to": since}), 400, "M_INVALID_PARAM")
    refused(await alice.call("GET", "/keys/changes", **{"from": since, "to": "s1"}), 400, "M_INVALID_PARAM")
    refused(await alice.call("GET", "/keys/changes", **{"from": since, "to": f"s{2**60}"}), 400, "M_INVALID_PARAM")
