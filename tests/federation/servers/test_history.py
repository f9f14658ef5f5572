"""What was said in a room before a server came into it.

https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from typing import Any

from tests.federation.servers.conftest import Pair
from tests.federation.servers.rooms import act, join, set_state, until_agreed, until_membership, until_seen


def bodies(events: list[dict[str, Any]]) -> list[str]:
    return [event["content"]["body"] for event in events if "body" in event["content"]]


async def test_paging_back_fetches_what_was_before(pair: Pair) -> None:
    room_id = await pair.alice.create_room(preset="public_chat")
    said = [f"old {number}" for number in range(150)]
    for body in said:
        await pair.alice.send(room_id, body)
    await join(pair.bob, room_id, pair.one.name)
    await pair.bob.send(room_id, "new")
    await until_seen(pair.alice, room_id, "new")
    history = await pair.bob.history(room_id)
    assert bodies(history) == [*said, "new"]
    assert history[0]["type"] == "m.room.create"
    assert len({event["event_id"] for event in history}) == len(history)
    assert bodies(await pair.alice.history(room_id)) == bodies(history)


async def test_what_is_hidden_from_newcomers_stays_hidden(pair: Pair) -> None:
    """S20: history visibility is asked for other servers too."""
    room_id = await pair.alice.create_room(preset="public_chat")
    await set_state(pair.alice, room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    await pair.alice.send(room_id, "not for you")
    await join(pair.bob, room_id, pair.one.name)
    await pair.alice.send(room_id, "for you")
    await until_seen(pair.bob, room_id, "for you")
    assert bodies(await pair.bob.history(room_id)) == ["for you"]


async def test_what_was_said_during_an_absence(pair: Pair) -> None:
    room_id = await pair.alice.create_room(preset="public_chat")
    await join(pair.bob, room_id, pair.one.name)
    await pair.bob.send(room_id, "first")
    await until_seen(pair.alice, room_id, "first")
    await act(pair.bob, "leave", room_id)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "leave")
    for number in range(20):
        await pair.alice.send(room_id, f"absent {number}")
    await join(pair.bob, room_id, pair.one.name)
    await pair.bob.send(room_id, "last")
    await until_seen(pair.alice, room_id, "last")
    expected = ["first", *(f"absent {number}" for number in range(20)), "last"]
    assert bodies(await pair.bob.history(room_id)) == expected
    await until_agreed(room_id, pair.places)
