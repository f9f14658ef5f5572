"""What is said and shown in a room reaches the users of the other server.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from typing import Any
from urllib.parse import quote

import pytest

from tests.federation.deployment import Deployment
from tests.federation.servers.conftest import Pair
from tests.federation.servers.rooms import (
    join,
    membership,
    set_state,
    shared_room,
    try_join,
    until_agreed,
    until_content,
    until_membership,
    until_seen,
    until_synced,
)
from tests.waiting import wait_until


async def event_of(pair: Pair, room_id: str, event_id: str) -> Any:
    """An event as Bob sees it."""
    answer = await pair.bob.call("GET", f"/rooms/{quote(room_id)}/event/{quote(event_id, safe='')}")
    return answer.body if answer.status == 200 else None


async def test_messages_keep_their_order(pair: Pair) -> None:
    room_id = await shared_room(pair.places)
    bodies = [f"number {number}" for number in range(60)]
    for body in bodies:
        await pair.alice.send(room_id, body)
    await until_seen(pair.bob, room_id, bodies[-1])
    history = [event["content"].get("body") for event in await pair.bob.history(room_id)]
    assert [body for body in history if body in bodies] == bodies


async def test_state_goes_both_ways(pair: Pair) -> None:
    room_id = await shared_room(pair.places)
    levels = {"users": {pair.alice.user_id: 100, pair.bob.user_id: 50}}
    room_version = (await pair.alice.get(f"/rooms/{room_id}/state/m.room.create"))["room_version"]
    if room_version == "12":
        del levels["users"][pair.alice.user_id]
    await set_state(pair.alice, room_id, "m.room.power_levels", levels)
    await until_content(pair.bob, room_id, "m.room.power_levels", levels)
    await set_state(pair.bob, room_id, "m.room.topic", {"topic": "by Bob"})
    await until_content(pair.alice, room_id, "m.room.topic", {"topic": "by Bob"})
    await until_agreed(room_id, pair.places)


@pytest.mark.parametrize("version", ["1", "10", "11", "12"])
async def test_a_redaction_takes_the_content_everywhere(pair: Pair, version: str) -> None:
    room_id = await shared_room(pair.places, room_version=version)
    event_id = await pair.alice.send(room_id, "regretted")
    await until_seen(pair.bob, room_id, "regretted")
    await pair.alice.put(f"/rooms/{room_id}/redact/{quote(event_id, safe='')}/r1", {"reason": "regret"})

    async def redacted() -> bool:
        event = await event_of(pair, room_id, event_id)
        return event["content"] == {} and "redacted_because" in event["unsigned"]

    await wait_until(redacted)


async def test_users_redact_their_own_and_no_others(pair: Pair) -> None:
    room_id = await shared_room(pair.places)
    event_id = await pair.bob.send(room_id, "mine")
    await until_seen(pair.alice, room_id, "mine")
    theirs = await pair.alice.send(room_id, "hers")
    await until_seen(pair.bob, room_id, "hers")
    await pair.bob.put(f"/rooms/{room_id}/redact/{quote(event_id, safe='')}/r1", {})
    refused = await pair.bob.call("PUT", f"/rooms/{room_id}/redact/{quote(theirs, safe='')}/r2", {})
    assert refused.status == 403

    async def redacted() -> bool:
        event = await pair.alice.get(f"/rooms/{room_id}/event/{quote(event_id, safe='')}")
        return bool(event["content"] == {})

    await wait_until(redacted)


async def test_typing_is_shown_and_ends(pair: Pair) -> None:
    room_id = await shared_room(pair.places)
    typing = f"/rooms/{room_id}/typing/{pair.bob.user_id}"

    def types(answer: Any, *expected: str) -> bool:
        room = answer.get("rooms", {}).get("join", {}).get(room_id, {})
        edus = [event for event in room.get("ephemeral", {}).get("events", []) if event["type"] == "m.typing"]
        return bool(edus) and edus[-1]["content"]["user_ids"] == list(expected)

    await pair.bob.put(typing, {"typing": True, "timeout": 30_000})
    await until_synced(pair.alice, lambda answer: types(answer, pair.bob.user_id))
    await pair.bob.put(typing, {"typing": False})
    await until_synced(pair.alice, lambda answer: not types(answer, pair.bob.user_id))


async def test_receipts_are_shown(pair: Pair) -> None:
    room_id = await shared_room(pair.places)
    event_id = await pair.alice.send(room_id, "read this")
    await until_seen(pair.bob, room_id, "read this")
    await pair.bob.post(f"/rooms/{room_id}/receipt/m.read/{quote(event_id, safe='')}", {})

    def has_read(answer: Any) -> bool:
        room = answer.get("rooms", {}).get("join", {}).get(room_id, {})
        contents = [event["content"] for event in room.get("ephemeral", {}).get("events", [])]
        return any(pair.bob.user_id in content.get(event_id, {}).get("m.read", {}) for content in contents)

    await until_synced(pair.alice, has_read)


async def test_presence_is_shown(pair: Pair) -> None:
    await shared_room(pair.places)
    await pair.bob.put(f"/presence/{pair.bob.user_id}/status", {"presence": "online", "status_msg": "busy"})

    async def known() -> bool:
        answer = await pair.alice.call("GET", f"/presence/{pair.bob.user_id}/status")
        return answer.status == 200 and answer.body.get("status_msg") == "busy"

    await wait_until(known)


async def test_a_changed_name_reaches_the_room(pair: Pair) -> None:
    room_id = await shared_room(pair.places)
    await pair.bob.put(f"/profile/{pair.bob.user_id}/displayname", {"displayname": "Robert"})

    async def renamed() -> bool:
        content = await pair.alice.get(f"/rooms/{room_id}/state/m.room.member/{pair.bob.user_id}")
        return bool(content.get("displayname") == "Robert")

    await wait_until(renamed)


async def test_an_upgraded_room_is_followed(pair: Pair) -> None:
    room_id = await shared_room(pair.places, room_version="10")
    successor = (await pair.alice.post(f"/rooms/{room_id}/upgrade", {"new_version": "12"}))["replacement_room"]

    async def told() -> bool:
        content = await pair.bob.call("GET", f"/rooms/{room_id}/state/m.room.tombstone")
        return content.status == 200 and content.body["replacement_room"] == successor

    await wait_until(told)
    await join(pair.bob, successor, pair.one.name)
    await pair.bob.send(successor, "the new place")
    await until_seen(pair.alice, successor, "the new place")
    await until_agreed(successor, pair.places)


async def test_servers_that_are_kept_out(deployment: Deployment) -> None:
    """S7: the ACL of a room holds for whatever a server sends into it, and for joining it; case does not matter."""
    (one,), (two,) = await deployment.start(host="127.0.0.1"), await deployment.start()
    async with one.user("alice") as alice, one.user("dora") as dora, two.user("bob") as bob, two.user("eve") as eve:
        room_id = await alice.create_room(preset="public_chat")
        await join(dora, room_id)
        await join(bob, room_id, one.name)
        await until_membership(alice, room_id, bob.user_id, "join")
        acl = {"allow": ["*"], "deny": ["LOCAL*"], "allow_ip_literals": True}
        await set_state(alice, room_id, "m.room.server_acl", acl)
        await until_content(bob, room_id, "m.room.server_acl", acl)
        await bob.send(room_id, "from outside")
        assert (await try_join(eve, room_id)).status in (200, 403)
        await alice.send(room_id, "among us")
        await until_seen(dora, room_id, "among us")
        assert "from outside" not in [event["content"].get("body") for event in await dora.history(room_id)]
        assert await membership(dora, room_id, eve.user_id) is None
