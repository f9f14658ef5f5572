"""What other servers may know of the keys and devices of this server's users.

https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption
https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from tests.api.e2ee.keys import CrossSigner, device_keys, new_key, one_time_keys
from tests.federation.encryption.world import identity_keys
from tests.federation.servers.encounter import Encounter
from tests.federation.servers.rooms import act, until_synced
from tests.federation.signed_http import Reply
from tests.real_client import Client
from tests.waiting import wait_until

V1 = "/_matrix/federation/v1"
QUERY, CLAIM = f"{V1}/user/keys/query", f"{V1}/user/keys/claim"


async def upload_all(client: Client) -> tuple[dict[str, Any], CrossSigner]:
    """A device with a name and keys, and cross-signing keys; returns the device's keys."""
    keys = device_keys(client, new_key(client.device_id))  # type: ignore[arg-type]
    await client.put(f"/devices/{client.device_id}", {"display_name": "Telephone"})
    await client.post("/keys/upload", {"device_keys": keys, "one_time_keys": one_time_keys("A", "B")})
    signer = CrossSigner(client.user_id)
    await client.post("/keys/device_signing/upload", signer.body())
    return keys, signer


async def devices_of(encounter: Encounter, user_id: str) -> Reply:
    """What the peer gets to know of a user's devices."""
    return await encounter.peer.ask(encounter.server.name, "GET", f"{V1}/user/devices/{quote(user_id, safe='')}")


async def post(encounter: Encounter, path: str, body: Any) -> Reply:
    """What the peer gets as an answer."""
    return await encounter.peer.ask(encounter.server.name, "POST", path, body)


async def test_the_list_of_a_user(encounter: Encounter) -> None:
    """Its number is that of the last update that was told."""
    alice = encounter.alice.user_id
    assert (await devices_of(encounter, alice)).body == {"user_id": alice, "stream_id": 0, "devices": []}
    keys, signer = await upload_all(encounter.alice)
    await wait_until(lambda: any(edu["edu_type"] == "m.signing_key_update" for edu in encounter.peer.edus))
    updates = [edu["content"] for edu in encounter.peer.edus if edu["edu_type"] == "m.device_list_update"]
    answer = await devices_of(encounter, alice)
    assert answer.status == 200
    assert answer.body == {
        "user_id": alice,
        "stream_id": updates[-1]["stream_id"],
        "devices": [
            {"device_id": encounter.alice.device_id, "keys": keys, "device_display_name": "Telephone"},
        ],
        "master_key": signer.key_json("master"),
        "self_signing_key": signer.key_json("self_signing"),
    }


async def test_lists_are_told_only_where_a_room_is_shared_s22(encounter: Encounter) -> None:
    """S22: of users of whom a server need not know, it learns neither that they have devices nor that they exist."""
    async with encounter.server.user("carol") as carol:
        await upload_all(carol)
        server_name = encounter.server.name
        answers = [
            await devices_of(encounter, user_id)
            for user_id in (carol.user_id, f"@nobody:{server_name}", encounter.mallory, "@eve:elsewhere.example")
        ]
        assert {each.status for each in answers} == {403}
        assert len({str(each.body) for each in answers}) == 1
    assert (await devices_of(encounter, "nobody")).errcode == "M_INVALID_PARAM"
    await act(encounter.alice, "leave", encounter.room_id)
    assert (await devices_of(encounter, encounter.alice.user_id)).status == 403


async def test_keys_can_be_asked_for(encounter: Encounter) -> None:
    """Without a shared room too: whoever invites somebody has to encrypt for the invited."""
    async with encounter.server.user("carol") as carol:
        keys, signer = await upload_all(carol)
        answer = await post(encounter, QUERY, {"device_keys": {carol.user_id: []}})
        unsigned = {"device_display_name": "Telephone"}
        assert answer.body == {
            "device_keys": {carol.user_id: {carol.device_id: {**keys, "unsigned": unsigned}}},
            "master_keys": {carol.user_id: signer.key_json("master")},
            "self_signing_keys": {carol.user_id: signer.key_json("self_signing")},
        }
        single = await post(encounter, QUERY, {"device_keys": {carol.user_id: ["NONE"]}})
        assert single.body["device_keys"] == {carol.user_id: {}}


async def test_keys_can_be_claimed_once(encounter: Encounter) -> None:
    alice = encounter.alice
    await upload_all(alice)
    wanted = {"one_time_keys": {alice.user_id: {alice.device_id: "signed_curve25519"}}}
    claimed = [(await post(encounter, CLAIM, wanted)).body["one_time_keys"] for _ in range(3)]
    keys = one_time_keys("A", "B")
    assert [list(each.get(alice.user_id, {}).get(alice.device_id, {}).items()) for each in claimed] == [
        [each] for each in keys.items()
    ] + [[]]
    sync = await until_synced(alice, lambda answer: "device_one_time_keys_count" in answer)
    assert sync["device_one_time_keys_count"] == {"signed_curve25519": 0}


async def test_nothing_is_told_of_other_servers_users_s22(encounter: Encounter) -> None:
    """S22 (CVE-2023-43796): what is known here of a third server's user is not passed on."""
    own, other = encounter.alice.user_id, "@eve:elsewhere.example"
    for user_ids in ([other], [own, other], [encounter.mallory]):
        asked = await post(encounter, QUERY, {"device_keys": {user_id: [] for user_id in user_ids}})
        assert (asked.status, asked.errcode) == (400, "M_INVALID_PARAM")
        wanted = {user_id: {"DEVICE": "signed_curve25519"} for user_id in user_ids}
        claimed = await post(encounter, CLAIM, {"one_time_keys": wanted})
        assert (claimed.status, claimed.errcode) == (400, "M_INVALID_PARAM")


async def test_wrong_questions(encounter: Encounter) -> None:
    alice = encounter.alice.user_id
    wrong: Sequence[tuple[str, Any]] = (
        (QUERY, {}),
        (QUERY, []),
        (QUERY, {"device_keys": []}),
        (QUERY, {"device_keys": {alice: {}}}),
        (QUERY, {"device_keys": {alice: [1]}}),
        (QUERY, {"device_keys": {alice: [""]}}),
        (QUERY, {"device_keys": {"nobody": []}}),
        (CLAIM, {}),
        (CLAIM, {"one_time_keys": 7}),
        (CLAIM, {"one_time_keys": {alice: []}}),
        (CLAIM, {"one_time_keys": {alice: {"D": None}}}),
        (CLAIM, {"one_time_keys": {alice: {"": "x"}}}),
    )
    for path, body in wrong:
        answer = await post(encounter, path, body)
        assert answer.status == 400, (path, body, answer)


async def test_a_peer_that_lies_about_devices_hurts_nobody_s24(encounter: Encounter) -> None:
    """S24 (CVE-2025-61672): bad keys in updates, lists and answers; events and EDUs still go both ways."""
    peer, mallory = encounter.peer, encounter.mallory
    bad = {**identity_keys(mallory, "BAD"), "signatures": "x"}
    good = identity_keys(mallory, "GOOD")
    listed = [{"device_id": "BAD", "keys": bad}, {"device_id": "GOOD", "keys": good}]
    answer = {"user_id": mallory, "stream_id": 5, "devices": listed, "master_key": {"keys": 1}}
    peer.answers[f"GET {V1}/user/devices/{{user_id}}"] = answer
    asked = {"device_keys": {mallory: []}}
    assert (await encounter.alice.post("/keys/query", asked))["device_keys"] == {mallory: {"GOOD": good}}
    update = {"user_id": mallory, "device_id": "BAD", "stream_id": 6, "prev_id": [5], "keys": bad}
    edus = [
        {"edu_type": "m.device_list_update", "content": update},
        {"edu_type": "m.signing_key_update", "content": {"user_id": mallory, "master_key": []}},
    ]
    new = identity_keys(mallory, "NEW")
    listed.append({"device_id": "NEW", "keys": new})
    since = (await encounter.alice.sync())["next_batch"]
    await peer.send(encounter.server.name, edus=edus)
    told = await encounter.alice.sync(since, timeout_ms=10_000)
    assert told["device_lists"]["changed"] == [mallory]
    assert (await encounter.alice.post("/keys/query", asked))["device_keys"] == {mallory: {"GOOD": good, "NEW": new}}
    await encounter.check_well()
