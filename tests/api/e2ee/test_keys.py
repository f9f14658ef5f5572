"""Uploading, querying and claiming keys: https://spec.matrix.org/v1.19/client-server-api/#key-management-api."""

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.api.e2ee.keys import device_keys, new_key, one_time_keys, upload_device
from tests.api.server import Client, Site, refused

UPLOAD, QUERY, CLAIM = "/keys/upload", "/keys/query", "/keys/claim"


async def claim(client: Client, of: Client, algorithm: str = "signed_curve25519") -> dict[str, Any]:
    """The key that a client gets for another's device, by its name; empty if there is none."""
    answer = await client.post(CLAIM, {"one_time_keys": {of.user_id: {of.device_id: algorithm}}})
    assert answer["failures"] == {}
    return answer["one_time_keys"].get(of.user_id, {}).get(of.device_id, {})


async def test_identity_keys_are_shown_to_everybody(alice: Client, bob: Client) -> None:
    key = new_key(alice.device_id)
    uploaded = device_keys(alice, key)
    assert await alice.post(UPLOAD, {"device_keys": {**uploaded, "unsigned": {"x": 1}}}) == {"one_time_key_counts": {}}
    await alice.put(f"/devices/{alice.device_id}", {"display_name": "Telephone"})
    answer = await bob.post(QUERY, {"device_keys": {alice.user_id: []}})
    shown = answer["device_keys"][alice.user_id][alice.device_id]
    assert shown == {**uploaded, "unsigned": {"device_display_name": "Telephone"}}
    assert answer["failures"] == {}
    assert answer["master_keys"] == {}


async def test_single_devices_can_be_asked_for(site: Site, alice: Client, bob: Client) -> None:
    second = await site.login("alice")
    for client in (alice, second):
        await upload_device(client)
    answer = await bob.post(QUERY, {"device_keys": {alice.user_id: [second.device_id, "NONE"], "@nobody:test": []}})
    assert list(answer["device_keys"][alice.user_id]) == [second.device_id]
    assert answer["device_keys"]["@nobody:test"] == {}


async def test_who_cannot_be_asked_is_named(alice: Client) -> None:
    asked = {"@bob:elsewhere.example": []}
    answer = await alice.post(QUERY, {"device_keys": asked, "timeout": 1000})
    assert list(answer["failures"]) == ["elsewhere.example"]
    wanted = {"@bob:elsewhere.example": {"DEVICE": "signed_curve25519"}}
    answer = await alice.post(CLAIM, {"one_time_keys": wanted})
    assert list(answer["failures"]) == ["elsewhere.example"]


WRONG_IDENTITIES: Sequence[tuple[dict[str, Any], str]] = (
    ({"user_id": "@bob:test"}, "M_INVALID_PARAM"),
    ({"device_id": "OTHER"}, "M_INVALID_PARAM"),
    ({"algorithms": "text"}, "M_BAD_JSON"),
    ({"algorithms": [1]}, "M_BAD_JSON"),
    ({"keys": []}, "M_BAD_JSON"),
    ({"keys": {"ed25519:X": 1}}, "M_BAD_JSON"),
    ({"signatures": None}, "M_BAD_JSON"),
    ({"signatures": {"@alice:test": {"ed25519:X": 1}}}, "M_BAD_JSON"),
)


async def test_s24_wrong_identity_keys_are_refused(alice: Client) -> None:
    for changes, errcode in WRONG_IDENTITIES:
        keys = {**device_keys(alice, new_key(alice.device_id)), **changes}
        given = {"device_keys": keys, "one_time_keys": one_time_keys("a")}
        refused(await alice.call("POST", UPLOAD, given), 400, errcode)
    assert (await alice.post(UPLOAD))["one_time_key_counts"] == {}


async def test_s24_giant_keys_are_refused(alice: Client) -> None:
    keys = device_keys(alice, new_key(alice.device_id), padding="x" * 40_000)
    refused(await alice.call("POST", UPLOAD, {"device_keys": keys}), 413, "M_TOO_LARGE")
    refused(await alice.call("POST", UPLOAD, {"one_time_keys": one_time_keys("a", x="x" * 5_000)}), 413, "M_TOO_LARGE")
    many = one_time_keys(*(str(number) for number in range(501)))
    refused(await alice.call("POST", UPLOAD, {"one_time_keys": many}), 400, "M_INVALID_PARAM")
    assert (await alice.post(UPLOAD))["one_time_key_counts"] == {}


async def test_names_and_forms_of_one_time_keys(alice: Client) -> None:
    for name in ("", "signed_curve25519", ":a", "a:", "a:" + "x" * 300, "a:\0"):
        refused(await alice.call("POST", UPLOAD, {"one_time_keys": {name: "key"}}), 400, "M_INVALID_PARAM")
    wrong: Sequence[Any] = (1, None, [], {}, {"key": 1}, {"key": "x"}, {"key": "x", "signatures": []})
    for key in wrong:
        given = {"one_time_keys": {"signed_curve25519:a": key}}
        refused(await alice.call("POST", UPLOAD, given), 400, "M_BAD_JSON")


async def test_a_key_cannot_be_replaced(alice: Client) -> None:
    first = {**one_time_keys("a"), "curve25519:b": "text"}
    counts = {"signed_curve25519": 1, "curve25519": 1}
    assert (await alice.post(UPLOAD, {"one_time_keys": first}))["one_time_key_counts"] == counts
    assert (await alice.post(UPLOAD, {"one_time_keys": first}))["one_time_key_counts"] == counts
    signed_again = one_time_keys("a", signatures={"@a:b": {"ed25519:D": "another"}})
    assert (await alice.post(UPLOAD, {"one_time_keys": signed_again}))["one_time_key_counts"] == counts
    for other in (one_time_keys("a", key="other"), {"curve25519:b": "other"}):
        given = {"one_time_keys": {**other, "new:new": "key"}}
        refused(await alice.call("POST", UPLOAD, given), 400, "M_INVALID_PARAM")
    assert (await alice.post(UPLOAD))["one_time_key_counts"] == counts


async def test_keys_are_claimed_oldest_first_and_once(alice: Client, bob: Client) -> None:
    for name in ("first", "second", "third"):
        await alice.post(UPLOAD, {"one_time_keys": one_time_keys(name)})
    assert await claim(bob, alice) == one_time_keys("first")
    assert await claim(bob, alice) == one_time_keys("second")
    assert await claim(bob, alice, "curve25519") == {}
    assert await claim(bob, alice) == one_time_keys("third")
    assert await claim(bob, alice) == {}


async def test_many_claims_at_once_never_get_the_same_key(alice: Client, bob: Client) -> None:
    await alice.post(UPLOAD, {"one_time_keys": one_time_keys(*(str(number) for number in range(20)))})
    async with asyncio.TaskGroup() as tasks:
        claims = [tasks.create_task(claim(bob, alice)) for _ in range(30)]
    names = [name for each in claims for name in each.result()]
    assert len(names) == len(set(names)) == 20


async def test_the_fallback_key_comes_last_and_stays(alice: Client, bob: Client) -> None:
    fallback = one_time_keys("fall", fallback=True)
    await alice.post(UPLOAD, {"one_time_keys": one_time_keys("once"), "fallback_keys": fallback})
    assert (await alice.get("/sync"))["device_unused_fallback_key_types"] == ["signed_curve25519"]
    assert await claim(bob, alice) == one_time_keys("once")
    assert await claim(bob, alice) == fallback
    assert await claim(bob, alice) == fallback
    assert (await alice.get("/sync"))["device_unused_fallback_key_types"] == []
    await alice.post(UPLOAD, {"fallback_keys": fallback})
    assert (await alice.get("/sync"))["device_unused_fallback_key_types"] == []
    newer = one_time_keys("newer", fallback=True)
    await alice.post(UPLOAD, {"fallback_keys": newer})
    assert (await alice.get("/sync"))["device_unused_fallback_key_types"] == ["signed_curve25519"]
    assert await claim(bob, alice) == newer
    two = one_time_keys("x", "y")
    refused(await alice.call("POST", UPLOAD, {"fallback_keys": two}), 400, "M_INVALID_PARAM")


async def test_counts_come_with_every_sync(alice: Client, bob: Client) -> None:
    assert "device_one_time_keys_count" not in await alice.get("/sync")
    await upload_device(alice)
    assert (await alice.get("/sync"))["device_one_time_keys_count"] == {"signed_curve25519": 0}
    await alice.post(UPLOAD, {"one_time_keys": one_time_keys("a", "b")})
    first = await alice.get("/sync")
    assert first["device_one_time_keys_count"] == {"signed_curve25519": 2}
    quiet = await alice.get("/sync", since=first["next_batch"])
    assert quiet["device_one_time_keys_count"] == {"signed_curve25519": 2}
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(alice.get("/sync", since=quiet["next_batch"], timeout=30_000))
        await claim(bob, alice)
    assert waiting.result()["device_one_time_keys_count"] == {"signed_curve25519": 1}
    later = await alice.get("/sync", since=waiting.result()["next_batch"])
    assert later["device_one_time_keys_count"] == {"signed_curve25519": 1}


async def test_keys_go_with_the_device(site: Site, alice: Client, bob: Client) -> None:
    second = await site.login("alice")
    await upload_device(second)
    await second.post(UPLOAD, {"one_time_keys": one_time_keys("a"), "fallback_keys": one_time_keys("b")})
    await second.post("/logout")
    answer = await bob.post(QUERY, {"device_keys": {alice.user_id: []}})
    assert answer["device_keys"][alice.user_id] == {}
    assert await claim(bob, second) == {}


WRONG_QUESTIONS: Sequence[tuple[str, Any]] = (
    (QUERY, {"device_keys": []}),
    (QUERY, {"device_keys": {"@a:test": {}}}),
    (QUERY, {"device_keys": {"@a:test": [1]}}),
    (QUERY, {"device_keys": {}, "timeout": "x"}),
    (CLAIM, {"one_time_keys": []}),
    (CLAIM, {"one_time_keys": {"@a:test": []}}),
    (CLAIM, {"one_time_keys": {"@a:test": {"D": 1}}}),
    (CLAIM, {"one_time_keys": {"@a:test": {"D": "\0"}}}),
)


async def test_wrong_questions(alice: Client) -> None:
    for path, body in WRONG_QUESTIONS:
        refused(await alice.call("POST", path, body), 400, "M_BAD_JSON")


async def test_wrong_ids_in_questions(alice: Client) -> None:
    for body in ({"device_keys": {"nobody": []}}, {"device_keys": {"@a:test": [""]}}):
        refused(await alice.call("POST", QUERY, body), 400, "M_INVALID_PARAM")
    many = {f"@user{number}:test": [] for number in range(10_001)}
    refused(await alice.call("POST", QUERY, {"device_keys": many}), 400, "M_INVALID_PARAM")
