"""Keys, devices and messages to devices, between a Synapse and this server.

https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption
https://spec.matrix.org/v1.19/server-server-api/#device-management
https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging
"""

from typing import Any

from synapse_compat_tests.federation.conftest import Pair
from tests.api.e2ee.keys import CrossSigner, device_keys, new_key, one_time_keys, signed_with
from tests.federation.servers.rooms import act, join, until_membership
from tests.real_client import Client, new_device
from tests.waiting import wait_until

ENCRYPTION = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}


async def upload(client: Client) -> dict[str, Any]:
    """New identity keys of a client's device."""
    keys = device_keys(client, new_key(client.device_id))  # type: ignore[arg-type]
    await client.post("/keys/upload", {"device_keys": keys})
    return keys


async def query(client: Client, user_id: str) -> Any:
    """The whole answer about one user."""
    return await client.post("/keys/query", {"device_keys": {user_id: []}})


async def until_known(client: Client, user_id: str, expected: dict[str, Any]) -> None:
    """Waits until a client is told of just these devices of a user."""
    answers: list[Any] = []

    async def holds() -> bool:
        answers[:] = [await query(client, user_id)]
        known = answers[0]["device_keys"].get(user_id, {})
        return {device_id: each["keys"] for device_id, each in known.items()} == {
            device_id: each["keys"] for device_id, each in expected.items()
        }

    try:
        await wait_until(holds)
    except TimeoutError:
        raise AssertionError(f"the answer stays {answers} in place of {expected}") from None


async def token(client: Client) -> str:
    """Where a client's syncs stand."""
    return str((await client.sync())["next_batch"])


async def until_told(client: Client, since: str, user_id: str, *, member: str = "changed") -> str:
    """Syncs on until a user is named among the changed devices; returns where the sync stands then."""
    named: list[str] = []
    while user_id not in named:
        answer = await client.sync(since, timeout_ms=5_000)
        named, since = answer.get("device_lists", {}).get(member, []), answer["next_batch"]
    return since


async def test_keys_of_users_elsewhere(pair: Pair) -> None:
    """Before a room is shared too, and each one-time key once."""
    alice, bob = pair.alice, pair.bob
    keys = await upload(bob)
    await bob.post("/keys/upload", {"one_time_keys": one_time_keys("A"), "fallback_keys": one_time_keys("F")})
    for _ in range(2):
        await until_known(alice, bob.user_id, {bob.device_id: keys})
        shown = (await query(alice, bob.user_id))["device_keys"][bob.user_id][bob.device_id]
        assert {name: value for name, value in shown.items() if name != "unsigned"} == keys
        await pair.share_room(initial_state=[ENCRYPTION])
    wanted = {"one_time_keys": {bob.user_id: {bob.device_id: "signed_curve25519"}}}
    claims = [await alice.post("/keys/claim", wanted) for _ in range(2)]
    claimed = [claim["one_time_keys"][bob.user_id][bob.device_id] for claim in claims]
    assert claimed == [one_time_keys("A"), one_time_keys("F")]
    nobody = await query(alice, f"@nobody:{pair.away.name}")
    assert nobody["device_keys"].get(f"@nobody:{pair.away.name}", {}) == {}


async def test_changed_devices_reach_the_other_server(pair: Pair) -> None:
    alice, bob = pair.alice, pair.bob
    await pair.share_room(initial_state=[ENCRYPTION])
    known = {bob.device_id: await upload(bob)}
    await until_known(alice, bob.user_id, known)
    since = await token(alice)
    async with new_device(bob) as second:
        known[second.device_id] = await upload(second)
        since = await until_told(alice, since, bob.user_id)
        await until_known(alice, bob.user_id, known)
        del known[second.device_id]
        await second.post("/logout")
    await until_told(alice, since, bob.user_id)
    await until_known(alice, bob.user_id, known)


async def test_cross_signing_and_verifying_across_servers(pair: Pair) -> None:
    """Alice signs Bob's master key: she sees it, he does not. He signs his device: both see it."""
    alice, bob = pair.alice, pair.bob
    await pair.share_room(initial_state=[ENCRYPTION])
    keys = await upload(bob)
    await until_known(alice, bob.user_id, {bob.device_id: keys})
    since = await token(alice)
    signers = {}
    for client in (alice, bob):
        signers[client.user_id] = CrossSigner(client.user_id)
        await client.post("/keys/device_signing/upload", signers[client.user_id].body())
    bobs, alices = signers[bob.user_id], signers[alice.user_id]
    since = await until_told(alice, since, bob.user_id)

    async def master_is(client: Client, expected: Any) -> bool:
        return bool((await query(client, bob.user_id))["master_keys"].get(bob.user_id) == expected)

    await wait_until(lambda: master_is(alice, bobs.key_json("master")))
    answer = await query(alice, bob.user_id)
    assert answer["self_signing_keys"] == {bob.user_id: bobs.key_json("self_signing")}
    assert answer["user_signing_keys"] == {}

    signed_master = signed_with(bobs.key_json("master"), alice.user_id, alices.user_signing)
    upload_path = "/keys/signatures/upload"
    uploaded = await alice.post(upload_path, {bob.user_id: {bobs.master_public: signed_master}})
    assert uploaded == {"failures": {}}
    assert await master_is(alice, signed_master)
    assert await master_is(bob, bobs.key_json("master"))

    signed_device = signed_with(keys, bob.user_id, bobs.self_signing)
    assert await bob.post(upload_path, {bob.user_id: {bob.device_id: signed_device}}) == {"failures": {}}
    await until_told(alice, since, bob.user_id)

    async def is_signed() -> bool:
        shown = (await query(alice, bob.user_id))["device_keys"][bob.user_id][bob.device_id]
        return bool(shown["signatures"] == signed_device["signatures"])

    await wait_until(is_signed)


async def test_keys_that_were_there_before_the_room(pair: Pair) -> None:
    """Who comes to share a room is told of, with all devices and cross-signing keys."""
    alice, bob = pair.alice, pair.bob
    keys = await upload(bob)
    signer = CrossSigner(bob.user_id)
    await bob.post("/keys/device_signing/upload", signer.body())
    since = await token(alice)
    await pair.share_room(initial_state=[ENCRYPTION])
    await until_told(alice, since, bob.user_id)
    await until_known(alice, bob.user_id, {bob.device_id: keys})
    assert (await query(alice, bob.user_id))["master_keys"] == {bob.user_id: signer.key_json("master")}


async def test_rooms_that_begin_and_cease_to_be_shared(pair: Pair) -> None:
    alice, bob = pair.alice, pair.bob
    await upload(bob)
    since = await token(alice)
    room_id = await pair.share_room(initial_state=[ENCRYPTION])
    since = await until_told(alice, since, bob.user_id)
    await act(bob, "leave", room_id)
    since = await until_told(alice, since, bob.user_id, member="left")
    known = {bob.device_id: await upload(bob)}
    await until_known(alice, bob.user_id, known)
    await join(bob, room_id, pair.home.name)
    await until_membership(alice, room_id, bob.user_id, "join")
    await until_told(alice, since, bob.user_id)
    await until_known(alice, bob.user_id, known)


class Inbox:
    """What a device has been handed, each message confirmed by the next sync."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._since: str | None = None
        self.events: list[Any] = []

    async def reaches(self, count: int) -> bool:
        """Takes what is there; whether that makes so many messages."""
        answer = await self._client.sync(self._since)
        self._since = answer["next_batch"]
        self.events += answer.get("to_device", {"events": []})["events"]
        return len(self.events) >= count


async def test_messages_to_devices(pair: Pair) -> None:
    """They arrive once, in order, at one device and at all."""
    for sender, recipient in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
        async with new_device(recipient) as second:
            inboxes = [Inbox(recipient), Inbox(second)]
            for number in range(10):
                messages = {recipient.user_id: {"*": {"n": number}}}
                await sender.put(f"/sendToDevice/m.test/{number}", {"messages": messages})
            await sender.put(
                "/sendToDevice/m.test/last", {"messages": {recipient.user_id: {second.device_id: {"n": "only you"}}}}
            )
            await wait_until(lambda inbox=inboxes[0]: inbox.reaches(10))
            await wait_until(lambda inbox=inboxes[1]: inbox.reaches(11))
            expected = [{"n": number} for number in range(10)]
            assert [event["content"] for event in inboxes[0].events] == expected
            assert [event["content"] for event in inboxes[1].events] == [*expected, {"n": "only you"}]
            assert {(event["sender"], event["type"]) for event in inboxes[0].events} == {(sender.user_id, "m.test")}
