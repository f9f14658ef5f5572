"""Dehydrated devices: made by one client, used by a later one, without a session of their own.

https://github.com/matrix-org/matrix-spec-proposals/pull/3814
"""

from dataclasses import replace
from typing import Any

import pytest

from homeserver.services.e2ee.dehydrated_devices import MESSAGES_MAX
from tests.api.e2ee.keys import device_keys, new_key, one_time_keys
from tests.api.server import Client, Site, password_auth, refused

PREFIX = "/_matrix/client/unstable/org.matrix.msc3814.v1"
DEVICE = f"{PREFIX}/dehydrated_device"


def body(client: Client, device_id: str = "ASLEEP", **members: Any) -> dict[str, Any]:
    """What a client uploads."""
    keys = device_keys(replace(client, device_id=device_id), new_key(device_id), dehydrated=True)
    return {
        "device_id": device_id,
        "device_data": {"algorithm": "org.matrix.msc3814.v2", "device_pickle": "secret"},
        "initial_device_display_name": "Asleep",
        "device_keys": keys,
        "one_time_keys": one_time_keys(device_id),
        "fallback_keys": one_time_keys(f"F{device_id}"),
        **members,
    }


async def put(client: Client, device_id: str = "ASLEEP", **members: Any) -> dict[str, Any]:
    """Makes a dehydrated device; what was uploaded."""
    uploaded = body(client, device_id, **members)
    assert await client.put(DEVICE, uploaded) == {"device_id": device_id}
    return uploaded


async def send(sender: Client, recipient: Client, first: int, count: int = 1, device_id: str = "ASLEEP") -> None:
    for number in range(first, first + count):
        messages = {recipient.user_id: {device_id: {"n": number}}}
        await sender.put(f"/sendToDevice/m.test/{device_id}{number}", {"messages": messages})


async def test_a_device_is_kept_and_found(alice: Client, bob: Client) -> None:
    refused(await alice.call("GET", DEVICE), 404, "M_NOT_FOUND")
    uploaded = await put(alice)
    assert await alice.get(DEVICE) == {"device_id": "ASLEEP", "device_data": uploaded["device_data"]}
    refused(await bob.call("GET", DEVICE), 404, "M_NOT_FOUND")
    listed = {device["device_id"]: device for device in (await alice.get("/devices"))["devices"]}
    assert set(listed) == {alice.device_id, "ASLEEP"}
    assert listed["ASLEEP"]["display_name"] == "Asleep"
    keys = (await bob.post("/keys/query", {"device_keys": {alice.user_id: []}}))["device_keys"][alice.user_id]
    assert keys == {"ASLEEP": {**uploaded["device_keys"], "unsigned": {"device_display_name": "Asleep"}}}
    wanted = {"one_time_keys": {alice.user_id: {"ASLEEP": "signed_curve25519"}}}
    claimed = [await bob.post("/keys/claim", wanted) for _ in range(2)]
    given = [claim["one_time_keys"][alice.user_id]["ASLEEP"] for claim in claimed]
    assert given == [uploaded["one_time_keys"], uploaded["fallback_keys"]]


async def test_messages_wait_until_another_takes_its_place(alice: Client, bob: Client) -> None:
    """Any client of the user can read them, page by page, however often."""
    await put(alice)
    count = MESSAGES_MAX + 5
    await send(bob, alice, 0, count)
    events = f"{DEVICE}/ASLEEP/events"
    for _ in range(2):
        first = await alice.get(events)
        second = await alice.get(events, **{"from": first["next_batch"]})
        assert [len(page["events"]) for page in (first, second)] == [MESSAGES_MAX, 5]
        contents = [event["content"] for event in (*first["events"], *second["events"])]
        assert contents == [{"n": number} for number in range(count)]
        assert {(event["type"], event["sender"]) for event in second["events"]} == {("m.test", bob.user_id)}
        assert await alice.get(events, **{"from": second["next_batch"]}) == {"events": []}
    refused(await alice.call("GET", f"{DEVICE}/{alice.device_id}/events"), 404, "M_NOT_FOUND")
    refused(await bob.call("GET", events), 404, "M_NOT_FOUND")
    await put(alice, "NEXT")
    refused(await alice.call("GET", events), 404, "M_NOT_FOUND")
    assert await alice.get(f"{DEVICE}/NEXT/events") == {"events": []}
    assert {device["device_id"] for device in (await alice.get("/devices"))["devices"]} == {alice.device_id, "NEXT"}


async def test_pages_as_the_proposal_had_them_first(alice: Client, bob: Client) -> None:
    await put(alice)
    await send(bob, alice, 0, 3)
    events = f"{DEVICE}/ASLEEP/events"
    page = await alice.post(events)
    assert [event["content"] for event in page["events"]] == [{"n": number} for number in range(3)]
    last = await alice.post(events, {"next_batch": page["next_batch"]})
    assert last == {"events": [], "next_batch": page["next_batch"]}


async def test_the_same_id_again(alice: Client, bob: Client) -> None:
    """The device is another one, without the messages of the old one."""
    await put(alice)
    await send(bob, alice, 0)
    uploaded = await put(alice)
    assert await alice.get(f"{DEVICE}/ASLEEP/events") == {"events": []}
    keys = await bob.post("/keys/query", {"device_keys": {alice.user_id: []}})
    assert keys["device_keys"][alice.user_id]["ASLEEP"]["keys"] == uploaded["device_keys"]["keys"]


async def test_a_device_that_is_removed(alice: Client) -> None:
    refused(await alice.call("DELETE", DEVICE), 404, "M_NOT_FOUND")
    await put(alice)
    assert await alice.delete(DEVICE) == {"device_id": "ASLEEP"}
    await put(alice)
    await alice.delete("/devices/ASLEEP", {"auth": password_auth(alice.user_id)})
    refused(await alice.call("GET", DEVICE), 404, "M_NOT_FOUND")
    assert [device["device_id"] for device in (await alice.get("/devices"))["devices"]] == [alice.device_id]


async def test_it_is_told_of_in_syncs(site: Site, alice: Client) -> None:
    since = (await alice.get("/sync"))["next_batch"]
    await put(alice)
    answer = await alice.get("/sync", since=since)
    assert answer["device_lists"]["changed"] == [alice.user_id]
    await alice.delete(DEVICE)
    later = await alice.get("/sync", since=answer["next_batch"])
    assert later["device_lists"]["changed"] == [alice.user_id]


@pytest.mark.parametrize(
    ("members", "status", "errcode"),
    [
        ({"device_keys": None}, 400, "M_BAD_JSON"),
        ({"device_keys": {}}, 400, "M_BAD_JSON"),
        ({"device_id": "OTHER"}, 400, "M_INVALID_PARAM"),
        ({"device_data": {}}, 400, "M_MISSING_PARAM"),
        ({"device_data": {"algorithm": "x", "more": "x" * 70_000}}, 400, "M_INVALID_PARAM"),
        ({"initial_device_display_name": "x" * 300}, 400, "M_INVALID_PARAM"),
        ({"initial_device_display_name": "\0"}, 400, "M_INVALID_PARAM"),
        ({"one_time_keys": {"x": 1}}, 400, "M_INVALID_PARAM"),
    ],
    ids=["no-keys", "empty-keys", "other-id", "no-algorithm", "large", "long-name", "nul", "one-time-key"],
)
async def test_what_is_wrong_leaves_the_old_one(
    alice: Client, members: dict[str, Any], status: int, errcode: str
) -> None:
    uploaded = await put(alice, "FIRST")
    refused(await alice.call("PUT", DEVICE, {**body(alice), **members}), status, errcode)
    assert await alice.get(DEVICE) == {"device_id": "FIRST", "device_data": uploaded["device_data"]}


async def test_a_device_with_a_session_is_none(site: Site, alice: Client) -> None:
    second = await site.login("alice")
    refused(await alice.call("PUT", DEVICE, body(alice, second.device_id)), 400, "M_INVALID_PARAM")
    assert await second.get("/account/whoami")


async def test_wrong_places(alice: Client) -> None:
    await put(alice)
    for wrong in ("x", "1", "1_", "1_2_3", "-1_2", "9" * 40 + "_1", "\0"):
        reply = await alice.call("GET", f"{DEVICE}/ASLEEP/events", **{"from": wrong})
        refused(reply, 400, "M_INVALID_PARAM")
