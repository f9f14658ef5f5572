"""A Synapse and this server are away for a while, or cut off from each other: afterwards both agree again.

Our server runs on a hasty clock here, so that it soon tries again what has failed.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from homeserver.runtime.signing_key import rotate_signing_key
from synapse_compat_tests.federation.conftest import NewHeliograph, Pair
from synapse_compat_tests.federation.rooms import bodies, event_of, until_agreed, until_event, until_member
from synapse_compat_tests.federation.servers import HastyClock, OurSide, SynapseSide
from tests.federation.servers.rooms import (
    act,
    membership,
    set_state,
    until_content,
    until_invited,
    until_membership,
    until_out,
    until_seen,
    until_synced,
)
from tests.real_client import Client
from tests.waiting import wait_until

pytestmark = pytest.mark.seconds_max(120)


@pytest.fixture(scope="module")
async def our_side(new_heliograph: NewHeliograph) -> AsyncIterator[OurSide]:
    """A Heliograph for which a minute is three seconds, and which may be stopped."""
    async with new_heliograph(clock=HastyClock(speed=20)) as side:
        yield side


def cut(pair: Pair) -> None:
    """Cuts the lines between both servers."""
    pair.home.line.cut()
    pair.away.line.cut()


def mend(pair: Pair) -> None:
    """Mends them."""
    pair.home.line.mend()
    pair.away.line.mend()


@pytest.fixture(autouse=True)
async def whole_lines(pair: Pair) -> AsyncIterator[None]:
    """Mends the lines after a test that has failed, for those that follow."""
    yield
    mend(pair)


async def until_both_end_together(pair: Pair, room_id: str) -> None:
    """Says something on both sides, and waits until both have heard it: from there on the graph has one end."""
    for speaker, listener in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
        event_id = await speaker.send(room_id, f"sign of life of {speaker.user_id}")
        await wait_until(lambda listener=listener, event_id=event_id: _has(listener, room_id, event_id), seconds_max=60)


async def _has(client: Client, room_id: str, event_id: str) -> bool:
    return await event_of(client, room_id, event_id) is not None


@pytest.mark.parametrize("count", [8, 120])
async def test_a_server_that_was_down_catches_up(pair: Pair, count: int) -> None:
    """After few events, and after more than fit into a transaction or two."""
    room_id = await pair.share_room()
    await pair.away.stop()
    said = [f"while down {number}" for number in range(count)]
    for body in said:
        await pair.alice.send(room_id, body)
    await set_state(pair.alice, room_id, "m.room.topic", {"topic": "while down"})
    await pair.away.start()
    # It asks for nothing by itself; what it says tells the other server that it is back.
    await pair.bob.send(room_id, "back again")
    await until_content(pair.bob, room_id, "m.room.topic", {"topic": "while down"})
    await until_both_end_together(pair, room_id)
    await until_agreed(room_id, pair.clients)

    async def is_whole() -> bool:
        return {*said, "back again"} <= set(bodies(await pair.bob.history(room_id)))

    await wait_until(is_whole, seconds_max=30)


async def test_nothing_is_lost_when_the_sender_stops_meanwhile(pair: Pair) -> None:
    room_id = await pair.share_room()
    await pair.away.stop()
    await pair.alice.send(room_id, "unsent")
    await pair.home.stop()
    await pair.away.start()
    await pair.home.start()
    await pair.alice.send(room_id, "and more")
    await until_seen(pair.bob, room_id, "unsent", "and more")
    await until_both_end_together(pair, room_id)
    await until_agreed(room_id, pair.clients)


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_a_cut_with_changes_on_both_sides(pair: Pair, version: str) -> None:
    alice, bob = pair.alice, pair.bob
    room_id = await pair.share_room(room_version=version)
    users = {bob.user_id: 50} if version == "12" else {alice.user_id: 100, bob.user_id: 50}
    levels = {"users": users, "state_default": 50, "users_default": 0}
    await set_state(alice, room_id, "m.room.power_levels", levels)
    await until_content(bob, room_id, "m.room.power_levels", levels)
    cut(pair)
    for number in range(5):
        await alice.send(room_id, f"home {number}")
        await bob.send(room_id, f"away {number}")
    await set_state(alice, room_id, "m.room.topic", {"topic": "of home"})
    await set_state(bob, room_id, "m.room.topic", {"topic": "of away"})
    await set_state(alice, room_id, "m.room.name", {"name": "of home"})
    await set_state(bob, room_id, "m.room.avatar", {"url": "mxc://localhost/away"})
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice of home"})
    await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Bob of away"})
    await until_member(alice, room_id, alice.user_id, displayname="Alice of home")
    await until_member(bob, room_id, bob.user_id, displayname="Bob of away")
    mend(pair)

    await until_both_end_together(pair, room_id)
    state = await until_agreed(room_id, pair.clients)
    assert state["m.room.name", ""]["content"] == {"name": "of home"}
    assert state["m.room.avatar", ""]["content"] == {"url": "mxc://localhost/away"}
    assert state["m.room.member", alice.user_id]["content"]["displayname"] == "Alice of home"
    assert state["m.room.member", bob.user_id]["content"]["displayname"] == "Bob of away"
    said = {f"{side} {number}" for side in ("home", "away") for number in range(5)}

    async def are_whole() -> bool:
        histories = [set(bodies(await client.history(room_id))) for client in pair.clients]
        return all(said <= history for history in histories)

    await wait_until(are_whole, seconds_max=30)


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_a_ban_that_the_banned_do_not_know_of(pair: Pair, version: str) -> None:
    """Bob goes on in a room from which he is banned: none of it counts, for anybody."""
    alice, bob = pair.alice, pair.bob
    room_id = await pair.share_room(room_version=version)
    users = {bob.user_id: 50} if version == "12" else {alice.user_id: 100, bob.user_id: 50}
    levels = {"users": users, "ban": 50, "state_default": 50}
    await set_state(alice, room_id, "m.room.power_levels", levels)
    await until_content(bob, room_id, "m.room.power_levels", levels)
    cut(pair)
    await act(alice, "ban", room_id, user_id=bob.user_id)
    said = await bob.send(room_id, "of no account")
    await set_state(bob, room_id, "m.room.topic", {"topic": "of no account"})
    mend(pair)
    # Bob's server learns of the ban, and takes it: the ban is stronger than what he did beside it.
    await until_out(bob, room_id, seconds_max=60)
    await alice.send(room_id, "still here")
    assert await membership(alice, room_id, bob.user_id) == "ban"
    assert await event_of(alice, room_id, said) is None
    topic = await alice.call("GET", f"/rooms/{quote(room_id)}/state/m.room.topic")
    assert topic.status == 404


@pytest.mark.parametrize("version", ["1", "11", "12"])
async def test_power_levels_change_on_both_sides(pair: Pair, version: str) -> None:
    """Alice takes Bob's power while he uses it for others: what she did, who has more power, comes first."""
    alice, bob = pair.alice, pair.bob
    room_id = await pair.share_room(room_version=version)
    own = {} if version == "12" else {alice.user_id: 100}
    users = {**own, bob.user_id: 50}
    before = {"users": users, "state_default": 50}
    await set_state(alice, room_id, "m.room.power_levels", before)
    await until_content(bob, room_id, "m.room.power_levels", before)
    cut(pair)
    friend = f"@friend:{pair.away.name}"
    by_alice = {**before, "users": own}
    await set_state(alice, room_id, "m.room.power_levels", by_alice)
    await set_state(bob, room_id, "m.room.power_levels", {**before, "users": {**users, friend: 25}})
    await set_state(bob, room_id, "m.room.topic", {"topic": "while I can"})
    mend(pair)
    for client in pair.clients:
        await client.send(room_id, f"mended, says {client.user_id}")
    await until_content(alice, room_id, "m.room.power_levels", by_alice)
    await until_both_end_together(pair, room_id)
    state = await until_agreed(room_id, pair.clients, seconds_max=30)
    if version != "1":
        assert state["m.room.power_levels", ""]["content"] == by_alice
        assert ("m.room.topic", "") not in state


async def test_an_invitation_is_rejected_while_the_inviter_is_away(pair: Pair) -> None:
    room_id = await pair.alice.create_room(preset="private_chat")
    await act(pair.alice, "invite", room_id, user_id=pair.bob.user_id)
    await until_invited(pair.bob, room_id)
    cut(pair)
    await act(pair.bob, "leave", room_id)
    await until_synced(pair.bob, lambda answer: room_id not in answer.get("rooms", {}).get("invite", {}))
    mend(pair)
    assert await membership(pair.alice, room_id, pair.bob.user_id) == "invite"


async def test_a_room_whose_other_server_is_away(pair: Pair) -> None:
    """Nobody waits for a server that does not answer: messages, leaving, joining by local users."""
    room_id = await pair.share_room()
    # Until it knows all of the state, a Synapse needs the other server for further joins.
    await until_agreed(room_id, pair.clients)
    # The room will fork, and the later one of Bob's memberships count: both shall be dated by the same clock, which for
    # his joining was that of Alice's server.
    await pair.bob.put(f"/profile/{pair.bob.user_id}/displayname", {"displayname": "Bob who leaves"})
    await until_member(pair.alice, room_id, pair.bob.user_id, displayname="Bob who leaves")
    cut(pair)
    await pair.alice.send(room_id, "alone")
    await until_seen(pair.alice, room_id, "alone")
    async with pair.away.user(pair.bob.user_id.split(":")[0][1:] + "-friend") as friend:
        await friend.post(f"/join/{quote(room_id)}")
        await friend.send(room_id, "joined meanwhile")
        await until_seen(pair.bob, room_id, "joined meanwhile")
        await act(pair.bob, "leave", room_id)
        mend(pair)
        await friend.send(room_id, "is anybody there")
        await until_membership(pair.alice, room_id, friend.user_id, "join")
        await until_membership(pair.alice, room_id, pair.bob.user_id, "leave")
        await until_seen(pair.alice, room_id, "joined meanwhile", "is anybody there")
        event_id = await pair.alice.send(room_id, "now there is")
        await until_event(friend, room_id, event_id)
        await until_agreed(room_id, [pair.alice, friend])


async def test_messages_to_devices_that_were_away(pair: Pair) -> None:
    await pair.share_room()
    await pair.away.stop()
    for number in range(3):
        messages = {pair.bob.user_id: {pair.bob.device_id: {"n": number}}}
        await pair.alice.put(f"/sendToDevice/m.test/{number}", {"messages": messages})
    await pair.away.start()
    received: list[int] = []

    def have_come(answer: Any) -> bool:
        events = answer.get("to_device", {}).get("events", [])
        received.extend(event["content"]["n"] for event in events)
        return len(received) >= 3

    await until_synced(pair.bob, have_come, seconds_max=60)
    assert received == [0, 1, 2]


async def test_our_key_is_changed(pair: Pair, our_side: OurSide) -> None:
    """What the old key has signed stays good, also for those who come later."""
    room_id = await pair.share_room(room_version="11")
    ours = pair.alice if pair.home is our_side else pair.bob
    await ours.send(room_id, "by the old key")
    await our_side.stop()
    clock = our_side.homeserver.clock
    rotate_signing_key(our_side.homeserver.config.data_dir, now_ms=clock.now_ms())
    await our_side.start()
    await ours.send(room_id, "by the new key")
    for client in pair.clients:
        await until_seen(client, room_id, "by the old key", "by the new key")
    await until_both_end_together(pair, room_id)
    await until_agreed(room_id, pair.clients)


async def test_the_key_of_the_synapse_is_changed(pair: Pair, synapse_side: SynapseSide) -> None:
    """Its new key is asked for when it is first seen."""
    room_id = await pair.share_room(room_version="11")
    theirs = pair.alice if pair.home is synapse_side else pair.bob
    await theirs.send(room_id, "by the old key")
    await synapse_side.change_key()
    await theirs.send(room_id, "by the new key")
    for client in pair.clients:
        await until_seen(client, room_id, "by the old key", "by the new key")
    await until_both_end_together(pair, room_id)
    await until_agreed(room_id, pair.clients)
