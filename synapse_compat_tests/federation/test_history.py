"""What was said in a room before a server came into it, or while it was away from it.

https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
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
)
from tests.federation.servers.rooms import act, join, set_state, until_membership, until_seen
from tests.real_client import Client
from tests.waiting import wait_until


async def until_history(client: Client, room_id: str, *said: str) -> list[dict[str, Any]]:
    """Waits until a client's history has just these texts, in this order; returns the history.

    A server may answer with what it has, and fetch the rest meanwhile.
    """
    found: list[dict[str, Any]] = []

    async def is_whole() -> bool:
        found[:] = await client.history(room_id)
        return bodies(found) == list(said)

    try:
        await wait_until(is_whole, seconds_max=30)
    except TimeoutError:
        raise AssertionError(f"the history of {client.user_id} stays {bodies(found)}") from None
    return found


@pytest.mark.parametrize("version", VERSIONS)
async def test_paging_back_fetches_what_was_before(pair: Pair, version: str) -> None:
    room_id = await pair.alice.create_room(preset="public_chat", room_version=version, name="first")
    said = [f"old {number}" for number in range(130)]
    for number, body in enumerate(said):
        await pair.alice.send(room_id, body)
        if number % 50 == 0:
            await set_state(pair.alice, room_id, "m.room.topic", {"topic": body})
    await join(pair.bob, room_id, pair.home.name)
    await pair.bob.send(room_id, "new")
    await until_seen(pair.alice, room_id, "new")
    history = await until_history(pair.bob, room_id, *said, "new")
    assert history[0]["type"] == "m.room.create"
    ids = [event["event_id"] for event in history]
    assert len(set(ids)) == len(ids)
    # Both know all of it, in one order.
    assert ids == [event["event_id"] for event in await pair.alice.history(room_id)]


async def test_what_is_hidden_from_newcomers_stays_hidden(pair: Pair) -> None:
    room_id = await pair.alice.create_room(preset="public_chat")
    await set_state(pair.alice, room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    hidden = await pair.alice.send(room_id, "not for you")
    await join(pair.bob, room_id, pair.home.name)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "join")
    await pair.alice.send(room_id, "for you")
    await until_seen(pair.bob, room_id, "for you")
    assert bodies(await pair.bob.history(room_id)) == ["for you"]
    assert await event_of(pair.bob, room_id, hidden) is None


async def test_what_was_said_since_the_invitation(pair: Pair) -> None:
    room_id = await pair.alice.create_room(preset="private_chat")
    await set_state(pair.alice, room_id, "m.room.history_visibility", {"history_visibility": "invited"})
    await pair.alice.send(room_id, "not for you")
    await act(pair.alice, "invite", room_id, user_id=pair.bob.user_id)
    await pair.alice.send(room_id, "since the invitation")
    await join(pair.bob, room_id, pair.home.name)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "join")
    await pair.alice.send(room_id, "for you")
    await until_history(pair.bob, room_id, "since the invitation", "for you")


@pytest.mark.parametrize("count", [5, 80])
async def test_what_was_said_during_an_absence(pair: Pair, count: int) -> None:
    """After few messages, and after more than fit into one answer."""
    room_id = await pair.share_room()
    await pair.bob.send(room_id, "first")
    await until_seen(pair.alice, room_id, "first")
    await act(pair.bob, "leave", room_id)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "leave")
    absent = [f"absent {number}" for number in range(count)]
    for body in absent:
        await pair.alice.send(room_id, body)
    await join(pair.bob, room_id, pair.home.name)
    await pair.bob.send(room_id, "last")
    await until_seen(pair.alice, room_id, "last")
    await until_history(pair.bob, room_id, "first", *absent, "last")
    await until_agreed(room_id, pair.clients)


async def test_an_old_event_that_was_redacted(pair: Pair) -> None:
    """What is fetched later comes without its content, or is redacted as soon as the redaction is known."""
    room_id = await pair.alice.create_room(preset="public_chat")
    event_id = await pair.alice.send(room_id, "regretted")
    for number in range(30):
        await pair.alice.send(room_id, f"old {number}")
    redaction_id = await redact(pair.alice, room_id, event_id)
    await join(pair.bob, room_id, pair.home.name)
    await until_history(pair.bob, room_id, *(f"old {number}" for number in range(30)))
    seen = await until_event(pair.bob, room_id, event_id)
    assert seen["content"] == {}
    assert seen["unsigned"]["redacted_because"]["event_id"] == redaction_id


async def test_the_context_of_an_old_event(pair: Pair, resident: str) -> None:
    room_id = await pair.alice.create_room(preset="public_chat")
    ids = [await pair.alice.send(room_id, f"old {number}") for number in range(20)]
    await join(pair.bob, room_id, pair.home.name)
    await until_history(pair.bob, room_id, *(f"old {number}" for number in range(20)))
    path = f"/rooms/{quote(room_id)}/context/{quote(ids[10], safe='')}"
    around = [await client.get(path, limit=6) for client in pair.clients]
    shown = [
        [[event["event_id"] for event in each[part]] for part in ("events_before", "events_after")] for each in around
    ]
    before, after = [ids[9], ids[8], ids[7]], [ids[11], ids[12], ids[13]]
    assert shown[0] == [before, after]
    # A Synapse (1.163) leaves out the one just before an event that it has fetched.
    assert shown[1] in ([[before, after], [ids[8:5:-1], after]] if resident == "ours" else [[before, after]])
    relevant = [{(event["type"], event["state_key"]): event["event_id"] for event in each["state"]} for each in around]
    assert relevant[0] == relevant[1]


async def test_an_old_thread(pair: Pair) -> None:
    """A reply in a thread whose root lies before the join; whoever pages back finds both."""
    room_id = await pair.alice.create_room(preset="public_chat")
    root = await pair.alice.send(room_id, "root")
    threaded = {"msgtype": "m.text", "body": "reply", "m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    await send_event(pair.alice, room_id, "m.room.message", threaded, txn_id="old reply")
    for number in range(30):
        await pair.alice.send(room_id, f"old {number}")
    await join(pair.bob, room_id, pair.home.name)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "join")
    await send_event(pair.alice, room_id, "m.room.message", {**threaded, "body": "again"}, txn_id="new reply")
    await until_seen(pair.bob, room_id, "again")
    await until_history(pair.bob, room_id, "root", "reply", *(f"old {number}" for number in range(30)), "again")
    path = f"/_matrix/client/v1/rooms/{quote(room_id)}/relations/{quote(root, safe='')}/m.thread"
    assert bodies((await pair.bob.get(path))["chunk"]) == ["again", "reply"]


async def test_the_day_of_an_event_elsewhere(pair: Pair) -> None:
    """The message was sent before the second server came, and is found nevertheless."""
    room_id = await pair.alice.create_room(preset="public_chat")
    event_id = await pair.alice.send(room_id, "long ago")
    event = await event_of(pair.alice, room_id, event_id)
    for number in range(30):
        await pair.alice.send(room_id, f"later {number}")
    await join(pair.bob, room_id, pair.home.name)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "join")
    path = f"/_matrix/client/v1/rooms/{quote(room_id)}/timestamp_to_event"
    for direction in ("f", "b"):
        answer = await pair.bob.get(path, ts=event["origin_server_ts"], dir=direction)
        assert answer["event_id"] == event_id
