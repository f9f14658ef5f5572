"""Cross-signing: https://spec.matrix.org/v1.19/client-server-api/#cross-signing."""

import asyncio
from collections.abc import Sequence
from typing import Any

from homeserver.core.signing import sign_json
from tests.api.e2ee.keys import CrossSigner, device_keys, signed_with, upload_device
from tests.api.server import Client, Site, password_auth, refused

UPLOAD, SIGN, QUERY = "/keys/device_signing/upload", "/keys/signatures/upload", "/keys/query"


async def query(client: Client, *users: Client) -> Any:
    """What a client is told of the keys of users."""
    return await client.post(QUERY, {"device_keys": {user.user_id: [] for user in users}})


async def signer_of(client: Client) -> CrossSigner:
    """Uploads cross-signing keys for a user who has none."""
    signer = CrossSigner(client.user_id)
    await client.post(UPLOAD, signer.body())
    return signer


async def test_keys_are_shown(alice: Client, bob: Client) -> None:
    signer = await signer_of(alice)
    own = await query(alice, alice)
    assert own["master_keys"] == {alice.user_id: signer.key_json("master")}
    assert own["self_signing_keys"] == {alice.user_id: signer.key_json("self_signing")}
    assert own["user_signing_keys"] == {alice.user_id: signer.key_json("user_signing")}
    seen = await query(bob, alice)
    assert (seen["master_keys"], seen["self_signing_keys"]) == (own["master_keys"], own["self_signing_keys"])
    assert seen["user_signing_keys"] == {}


async def test_only_new_keys_need_authentication(alice: Client) -> None:
    signer = await signer_of(alice)
    await alice.post(UPLOAD, signer.body())
    await alice.post(UPLOAD, signer.body(["master"]))
    other = CrossSigner(alice.user_id)
    challenge = await alice.call("POST", UPLOAD, other.body())
    assert challenge.status == 401
    assert challenge.json["flows"] == [{"stages": ["m.login.password"]}]
    assert (await query(alice, alice))["master_keys"][alice.user_id] == signer.key_json("master")
    auth = {**password_auth("alice"), "session": challenge.json["session"]}
    await alice.post(UPLOAD, {**other.body(), "auth": auth})
    assert (await query(alice, alice))["master_keys"][alice.user_id] == other.key_json("master")


async def test_another_master_key_ends_what_hangs_on_the_old_one(alice: Client, bob: Client) -> None:
    key = await upload_device(alice)
    signer = await signer_of(alice)
    device = signed_with(device_keys(alice, key), alice.user_id, signer.self_signing)
    assert await alice.post(SIGN, {alice.user_id: {alice.device_id: device}}) == {"failures": {}}
    other = CrossSigner(alice.user_id)
    challenge = await alice.call("POST", UPLOAD, other.body(["master"]))
    auth = {**password_auth("alice"), "session": challenge.json["session"]}
    await alice.post(UPLOAD, {**other.body(["master"]), "auth": auth})
    seen = await query(bob, alice)
    assert seen["master_keys"][alice.user_id] == other.key_json("master")
    assert seen["self_signing_keys"] == {}
    assert seen["device_keys"][alice.user_id][alice.device_id]["signatures"] == device_keys(alice, key)["signatures"]


async def test_keys_must_hang_together(alice: Client) -> None:
    signer, stranger = CrossSigner(alice.user_id), CrossSigner(alice.user_id)
    refused(await alice.call("POST", UPLOAD, signer.body(["self_signing"])), 400, "M_MISSING_PARAM")
    mixed = {**signer.body(["master"]), **stranger.body(["self_signing"])}
    refused(await alice.call("POST", UPLOAD, mixed), 400, "M_INVALID_SIGNATURE")
    unsigned = {"user_id": alice.user_id, "usage": ["user_signing"], "keys": {"ed25519:AAAA": "AAAA"}}
    refused(await alice.call("POST", UPLOAD, {"user_signing_key": unsigned}), 400, "M_INVALID_PARAM")
    assert (await query(alice, alice))["master_keys"] == {}


WRONG_KEYS: Sequence[tuple[dict[str, Any], int, str]] = (
    ({"user_id": "@bob:test"}, 400, "M_INVALID_PARAM"),
    ({"usage": ["self_signing"]}, 400, "M_INVALID_PARAM"),
    ({"usage": "master"}, 400, "M_BAD_JSON"),
    ({"keys": {}}, 400, "M_INVALID_PARAM"),
    ({"keys": {"ed25519:abc": "abd"}}, 400, "M_INVALID_PARAM"),
    ({"keys": {"curve25519:abc": "abc"}}, 400, "M_INVALID_PARAM"),
    ({"keys": {"ed25519:abc": "abc"}}, 400, "M_INVALID_PARAM"),
    ({"keys": {"ed25519:1": 1}}, 400, "M_INVALID_PARAM"),
    ({"signatures": {"@alice:test": []}}, 400, "M_BAD_JSON"),
    ({"padding": "x" * 40_000}, 413, "M_TOO_LARGE"),
)


async def test_wrong_keys(alice: Client) -> None:
    for changes, status, errcode in WRONG_KEYS:
        key = {**CrossSigner(alice.user_id).key_json("master"), **changes}
        refused(await alice.call("POST", UPLOAD, {"master_key": key}), status, errcode)
    assert (await query(alice, alice))["master_keys"] == {}


async def test_keys_and_devices_are_not_called_alike(site: Site, alice: Client) -> None:
    signer = CrossSigner(alice.user_id)
    await site.login("alice", device_id=signer.master_public)
    refused(await alice.call("POST", UPLOAD, signer.body()), 403, "M_FORBIDDEN")
    other = await signer_of(alice)
    login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}}
    body = {**login, "password": "correct horse battery staple", "device_id": other.master_public}
    refused(await alice.call("POST", "/login", body), 403, "M_FORBIDDEN")


async def test_a_user_signs_a_device_and_a_device_the_master_key(alice: Client, bob: Client) -> None:
    key, signer = await upload_device(alice), await signer_of(alice)
    device = signed_with(device_keys(alice, key), alice.user_id, signer.self_signing)
    master = sign_json(signer.key_json("master"), alice.user_id, key)
    signed = {alice.user_id: {alice.device_id: device, signer.master_public: master}}
    assert await alice.post(SIGN, signed) == {"failures": {}}
    seen = await query(bob, alice)
    assert seen["device_keys"][alice.user_id][alice.device_id]["signatures"] == device["signatures"]
    assert seen["master_keys"][alice.user_id]["signatures"] == master["signatures"]


async def test_who_verified_whom_is_told_to_nobody_else(site: Site, alice: Client, bob: Client) -> None:
    carol, second = await site.register("carol"), await site.login("alice")
    signer, signed = await signer_of(alice), await signer_of(bob)
    since = (await second.get("/sync"))["next_batch"]
    master = signed_with(signed.key_json("master"), alice.user_id, signer.user_signing)
    assert await alice.post(SIGN, {bob.user_id: {signed.master_public: master}}) == {"failures": {}}
    assert (await query(alice, bob))["master_keys"][bob.user_id] == master
    for other in (bob, carol):
        assert (await query(other, bob))["master_keys"][bob.user_id] == signed.key_json("master")
    assert (await second.get("/sync", since=since))["device_lists"] == {"changed": [bob.user_id], "left": []}


async def test_s24_wrong_signatures_are_not_stored(alice: Client, bob: Client) -> None:
    key, signer, signed = await upload_device(alice), await signer_of(alice), await signer_of(bob)
    plain = device_keys(alice, key)
    forged = {**plain, "signatures": {alice.user_id: {f"ed25519:{signer.self_signing.verify_key.encode()}": "AAAA"}}}
    changed = signed_with({**plain, "algorithms": []}, alice.user_id, signer.self_signing)
    strange = signed_with(plain, alice.user_id, signer.user_signing)
    by_bob = signed_with(plain, bob.user_id, signed.self_signing)
    for wrong in (forged, changed, strange, by_bob, plain):
        answer = await alice.post(SIGN, {alice.user_id: {alice.device_id: wrong}})
        assert answer["failures"][alice.user_id][alice.device_id]["errcode"] == "M_INVALID_SIGNATURE"
    for wrong, errcode in (([], "M_BAD_JSON"), ({**plain, "signatures": []}, "M_BAD_JSON")):
        answer = await alice.post(SIGN, {alice.user_id: {alice.device_id: wrong}})
        assert answer["failures"][alice.user_id][alice.device_id]["errcode"] == errcode
    answer = await alice.post(SIGN, {alice.user_id: {"NONE": plain}, bob.user_id: {"NONE": plain}})
    assert answer["failures"][alice.user_id]["NONE"]["errcode"] == "M_NOT_FOUND"
    assert answer["failures"][bob.user_id]["NONE"]["errcode"] == "M_NOT_FOUND"
    with_self_signing = signed_with(signed.key_json("master"), alice.user_id, signer.self_signing)
    answer = await alice.post(SIGN, {bob.user_id: {signed.master_public: with_self_signing}})
    assert answer["failures"][bob.user_id][signed.master_public]["errcode"] == "M_INVALID_SIGNATURE"
    shown = (await query(bob, alice))["device_keys"][alice.user_id][alice.device_id]
    assert shown["signatures"] == plain["signatures"]


async def test_of_two_first_uploads_one_is_refused(alice: Client) -> None:
    signers = [CrossSigner(alice.user_id) for _ in range(5)]
    async with asyncio.TaskGroup() as tasks:
        replies = [tasks.create_task(alice.call("POST", UPLOAD, signer.body())) for signer in signers]
    statuses = [reply.result().status for reply in replies]
    assert statuses.count(200) == 1
    assert set(statuses) <= {200, 401, 403}
