"""What is said and shown in a room of a Synapse and this server reaches the users of the other one.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from typing import Any
from urllib.parse import quote

import pytest

from synapse_compat_tests.federation.conftest import Pair
from synapse_compat_tests.federation.rooms import (
    VERSIONS,
    bodies,
    event_of,
    redact,
    send_event,
    until_agreed,
    until_event,
    until_member,
)
from tests.federation.servers.rooms import (
    act,
    join,
    set_state,
    state,
    until_content,
    until_seen,
)
from tests.real_client import Client
from tests.waiting import wait_until


async def test_messages_keep_their_order(pair: Pair) -> None:
    room_id = await pair.share_room()
    said = [f"number {number}" for number in range(60)]
    for body in said:
        await pair.alice.send(room_id, body)
    await until_seen(pair.bob, room_id, said[-1])
    assert [body for body in bodies(await pair.bob.history(room_id)) if body in said] == said


async def test_a_conversation(pair: Pair) -> None:
    """Each answers when they have seen what the other said: nothing is out of order for anybody."""
    room_id = await pair.share_room()
    said = []
    for number in range(10):
        for speaker, listener in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
            body = f"{number} of {speaker.user_id}"
            said.append(body)
            event_id = await speaker.send(room_id, body)
            await until_event(listener, room_id, event_id)
    for client in pair.clients:
        assert [body for body in bodies(await client.history(room_id)) if body in said] == said


async def test_what_was_said_is_the_same_for_both(pair: Pair) -> None:
    room_id = await pair.share_room()
    content = {
        "msgtype": "m.text",
        "body": "<b>“Ünïcode”</b> 🦔 \u0000 \\ / \u007f",
        "m.mentions": {"user_ids": [pair.bob.user_id]},
        "org.example.numbers": [0, -1, 2**53 - 1, -(2**53) + 1],
        "org.example.nested": {"deep": {"empty": {}, "none": None, "list": []}},
    }
    for number, speaker in enumerate(pair.clients):
        event_id = await send_event(speaker, room_id, "m.room.message", content, txn_id=f"odd{number}")
        seen = [await until_event(client, room_id, event_id) for client in pair.clients]
        essential = [
            {name: event[name] for name in ("content", "event_id", "origin_server_ts", "sender", "type")}
            for event in seen
        ]
        assert essential[0] == essential[1]
        assert essential[0]["content"] == content


async def test_large_events(pair: Pair) -> None:
    room_id = await pair.share_room()
    for speaker, listener in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
        event_id = await speaker.send(room_id, "x" * 60_000)
        assert len((await until_event(listener, room_id, event_id))["content"]["body"]) == 60_000


@pytest.mark.parametrize("version", VERSIONS)
async def test_state_goes_both_ways(pair: Pair, version: str) -> None:
    room_id = await pair.share_room(room_version=version)
    levels = {"users": {pair.alice.user_id: 100, pair.bob.user_id: 50}}
    if version == "12":
        del levels["users"][pair.alice.user_id]
    await set_state(pair.alice, room_id, "m.room.power_levels", levels)
    await until_content(pair.bob, room_id, "m.room.power_levels", levels)
    await set_state(pair.bob, room_id, "m.room.topic", {"topic": "by Bob"})
    await until_content(pair.alice, room_id, "m.room.topic", {"topic": "by Bob"})
    await set_state(pair.bob, room_id, "org.example", {"any": "thing"}, state_key="a/b ü")
    await until_content(pair.alice, room_id, "org.example", {"any": "thing"}, state_key="a/b ü")
    await until_agreed(room_id, pair.clients)


async def until_redacted(client: Client, room_id: str, event_id: str) -> Any:
    """Waits until an event has lost its content for a client; returns it."""
    found: list[Any] = []

    async def is_redacted() -> bool:
        found[:] = [await event_of(client, room_id, event_id)]
        return found[0] is not None and found[0]["content"] == {} and "redacted_because" in found[0]["unsigned"]

    await wait_until(is_redacted)
    return found[0]


@pytest.mark.parametrize("version", VERSIONS)
async def test_redactions_take_the_content_everywhere(pair: Pair, version: str) -> None:
    room_id = await pair.share_room(room_version=version)
    for speaker, listener in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
        event_id = await speaker.send(room_id, f"regretted by {speaker.user_id}")
        await until_event(listener, room_id, event_id)
        redaction_id = await redact(speaker, room_id, event_id, reason="regret")
        event = await until_redacted(listener, room_id, event_id)
        assert event["unsigned"]["redacted_because"]["event_id"] == redaction_id
        redaction = await until_event(listener, room_id, redaction_id)
        assert redaction["content"]["reason"] == "regret"
        # Clients of any room version find it in both places.
        assert event_id in (redaction.get("redacts"), redaction["content"].get("redacts"))


@pytest.mark.parametrize("version", ["1", "11"])
async def test_moderators_redact_what_others_said(pair: Pair, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await pair.share_room(room_version=version)
    by_bob = await bob.send(room_id, "by Bob")
    await until_event(alice, room_id, by_bob)
    by_alice = await alice.send(room_id, "by Alice")
    await until_event(bob, room_id, by_alice)
    refused = await bob.call("PUT", f"/rooms/{room_id}/redact/{quote(by_alice, safe='')}/r", {})
    assert refused.status == 403
    await redact(alice, room_id, by_bob)
    await until_redacted(bob, room_id, by_bob)
    levels = {"users": {alice.user_id: 100, bob.user_id: 50}}
    await set_state(alice, room_id, "m.room.power_levels", levels)
    await until_content(bob, room_id, "m.room.power_levels", levels)
    await redact(bob, room_id, by_alice)
    await until_redacted(alice, room_id, by_alice)


@pytest.mark.parametrize("version", ["10", "11"])
async def test_redacted_state_is_the_same_for_both(pair: Pair, version: str) -> None:
    """What a redaction leaves differs between versions 10 and 11; both servers must agree on it."""
    room_id = await pair.share_room(room_version=version)
    rules = await set_state(pair.alice, room_id, "m.room.join_rules", {"join_rule": "public", "org.example": 1})
    topic = await set_state(pair.alice, room_id, "m.room.topic", {"topic": "secret"})
    levels = {"users": {pair.alice.user_id: 100}, "invite": 30, "notifications": {"room": 20}}
    power = await set_state(pair.alice, room_id, "m.room.power_levels", levels)
    await until_content(pair.bob, room_id, "m.room.power_levels", levels)
    for event_id in (rules, topic, power):
        await redact(pair.alice, room_id, event_id)
    await until_redacted(pair.bob, room_id, topic)

    async def agreed() -> bool:
        contents = []
        for client in pair.clients:
            entries = await state(client, room_id)
            contents.append({slot: event["content"] for slot, event in entries.items()})
        return contents[0] == contents[1] and ("notifications" not in contents[0]["m.room.power_levels", ""])

    await wait_until(agreed)
    content = (await state(pair.bob, room_id))["m.room.power_levels", ""]["content"]
    assert content.get("invite") == (30 if version == "11" else None)
    await pair.bob.send(room_id, "all well")
    await until_seen(pair.alice, room_id, "all well")


async def test_reactions_edits_and_threads(pair: Pair) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await pair.share_room()
    event_id = await alice.send(room_id, "original")
    await until_event(bob, room_id, event_id)
    annotation = {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": "👍"}}
    reaction = await send_event(bob, room_id, "m.reaction", annotation, txn_id="reaction")
    threaded = {
        "msgtype": "m.text",
        "body": "in the thread",
        "m.relates_to": {"rel_type": "m.thread", "event_id": event_id},
    }
    reply = await send_event(bob, room_id, "m.room.message", threaded, txn_id="thread")
    edited = {
        "msgtype": "m.text",
        "body": "* better",
        "m.new_content": {"msgtype": "m.text", "body": "better"},
        "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
    }
    edit = await send_event(alice, room_id, "m.room.message", edited, txn_id="edit")
    path = f"/_matrix/client/v1/rooms/{quote(room_id)}/relations/{quote(event_id, safe='')}"
    for client in pair.clients:
        for each in (reaction, reply, edit):
            await until_event(client, room_id, each)
        related = {event["event_id"] for event in (await client.get(path))["chunk"]}
        assert related == {reaction, reply, edit}
        relations = (await event_of(client, room_id, event_id))["unsigned"]["m.relations"]
        assert relations["m.thread"]["count"] == 1
        assert relations["m.thread"]["latest_event"]["event_id"] == reply
        assert relations["m.replace"]["event_id"] == edit


async def test_a_changed_name_reaches_the_room(pair: Pair) -> None:
    room_id = await pair.share_room()
    for changed, watching in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
        await changed.put(f"/profile/{changed.user_id}/displayname", {"displayname": "Renamed"})
        await until_member(watching, room_id, changed.user_id, displayname="Renamed")
    await until_agreed(room_id, pair.clients)


@pytest.mark.parametrize("versions", [("10", "12"), ("11", "11"), ("1", "10")])
async def test_an_upgraded_room_is_followed(pair: Pair, versions: tuple[str, str]) -> None:
    before, after = versions
    room_id = await pair.share_room(room_version=before)
    upgraded = await pair.alice.post(f"/rooms/{room_id}/upgrade", {"new_version": after})
    successor: str = upgraded["replacement_room"]

    async def is_told() -> bool:
        answer = await pair.bob.call("GET", f"/rooms/{room_id}/state/m.room.tombstone")
        return answer.status == 200 and answer.body["replacement_room"] == successor

    await wait_until(is_told)
    await join(pair.bob, successor, pair.home.name)
    await pair.bob.send(successor, "the new place")
    await until_seen(pair.alice, successor, "the new place")
    state = await until_agreed(successor, pair.clients)
    assert state["m.room.create", ""]["content"]["predecessor"]["room_id"] == room_id
    await act(pair.bob, "leave", room_id)


async def test_a_guest_upgrades_the_room(pair: Pair) -> None:
    """A moderator of the other server does it: the new room then lives there."""
    alice, bob = pair.alice, pair.bob
    room_id = await pair.share_room(room_version="10")
    levels = {"users": {alice.user_id: 100, bob.user_id: 100}}
    await set_state(alice, room_id, "m.room.power_levels", levels)
    await until_content(bob, room_id, "m.room.power_levels", levels)
    upgraded = await bob.post(f"/rooms/{room_id}/upgrade", {"new_version": "12"})
    successor: str = upgraded["replacement_room"]
    await until_content(
        alice, room_id, "m.room.tombstone", {"body": "This room has been replaced", "replacement_room": successor}
    )
    await join(alice, successor, pair.away.name)
    await alice.send(successor, "followed")
    await until_seen(bob, successor, "followed")
    await until_agreed(successor, pair.clients)
