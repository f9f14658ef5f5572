"""Servers that are away for a while, and lines that are cut: afterwards all is as if nothing had been.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

import pytest

from tests.federation.servers.conftest import Pair
from tests.federation.servers.rooms import (
    act,
    set_state,
    shared_room,
    until_agreed,
    until_content,
    until_membership,
    until_seen,
    visible,
)


@pytest.fixture
def pair(fast_pair: Pair) -> Pair:
    """Two servers for which a minute is a second: they soon try again what has failed."""
    return fast_pair


async def test_a_server_that_was_down_catches_up(pair: Pair) -> None:
    room_id = await shared_room(pair.places)
    await pair.two.stop()
    for number in range(10):
        await pair.alice.send(room_id, f"while down {number}")
    await set_state(pair.alice, room_id, "m.room.topic", {"topic": "while down"})
    await pair.deployment.restart(pair.two)
    # It asks for nothing by itself; what it says tells the other server that it is back.
    await pair.bob.send(room_id, "back again")
    await until_seen(pair.bob, room_id, *(f"while down {number}" for number in range(10)))
    await until_content(pair.bob, room_id, "m.room.topic", {"topic": "while down"})
    await until_agreed(room_id, pair.places)


async def test_a_server_that_was_restarted_still_sends(pair: Pair) -> None:
    room_id = await shared_room(pair.places)
    await pair.two.stop()
    await pair.alice.send(room_id, "unsent")
    await pair.one.stop()
    await pair.deployment.restart(pair.two)
    await pair.deployment.restart(pair.one)
    await pair.alice.send(room_id, "and more")
    await until_seen(pair.bob, room_id, "unsent", "and more")


async def test_a_cut_with_changes_on_both_sides(pair: Pair) -> None:
    room_id = await shared_room(pair.places)
    levels = {"users": {pair.bob.user_id: 50}, "state_default": 50, "users_default": 0}
    await set_state(pair.alice, room_id, "m.room.power_levels", levels)
    await until_content(pair.bob, room_id, "m.room.power_levels", levels)
    network = pair.deployment.network
    network.cut([pair.one.name], [pair.two.name])
    await set_state(pair.alice, room_id, "m.room.topic", {"topic": "of one"})
    await set_state(pair.bob, room_id, "m.room.topic", {"topic": "of two"})
    await set_state(pair.alice, room_id, "m.room.name", {"name": "of one"})
    await set_state(pair.bob, room_id, "m.room.avatar", {"url": "mxc://localhost/two"})
    for number in range(5):
        await pair.alice.send(room_id, f"one {number}")
        await pair.bob.send(room_id, f"two {number}")
    network.mend([pair.one.name], [pair.two.name])

    await pair.alice.send(room_id, "one again")
    await pair.bob.send(room_id, "two again")
    said = [f"{side} {number}" for side in ("one", "two") for number in range(5)]
    await until_seen(pair.alice, room_id, *said, "two again")
    await until_seen(pair.bob, room_id, *said, "one again")
    # Both ends are joined by the next event.
    await pair.alice.send(room_id, "together")
    await until_seen(pair.bob, room_id, "together")
    state = await until_agreed(room_id, pair.places)
    assert state["m.room.name", ""]["content"] == {"name": "of one"}
    assert state["m.room.avatar", ""]["content"] == {"url": "mxc://localhost/two"}
    assert await visible(pair.alice, room_id) == await visible(pair.bob, room_id)


async def test_a_bad_line_loses_nothing(pair: Pair) -> None:
    room_id = await shared_room(pair.places)
    names = [pair.one.name, pair.two.name]
    pair.deployment.network.set(names, delay_seconds_max=0.05, repeat=0.5, lose_answers=0.2)
    said = [f"number {number}" for number in range(20)]
    for number, body in enumerate(said):
        await (pair.alice, pair.bob)[number % 2].send(room_id, body)
    pair.deployment.network.set(names, delay_seconds_max=0.0, repeat=0.0, lose_answers=0.0)
    await pair.alice.send(room_id, "end of one")
    await pair.bob.send(room_id, "end of two")
    await until_seen(pair.alice, room_id, *said, "end of two")
    await until_seen(pair.bob, room_id, *said, "end of one")
    await pair.alice.send(room_id, "together")
    await until_seen(pair.bob, room_id, "together")
    await until_agreed(room_id, pair.places)
    assert await visible(pair.alice, room_id) == await visible(pair.bob, room_id)


async def test_what_a_cut_line_withholds_comes_around(pair: Pair) -> None:
    """A server asks whoever tells it of an event for those before it."""
    (three,) = await pair.deployment.start()
    async with three.user("carol") as carol:
        places = [*pair.places, (three, carol)]
        room_id = await shared_room(places)
        pair.deployment.network.cut([pair.one.name], [three.name])
        await pair.alice.send(room_id, "not for three")
        await set_state(pair.alice, room_id, "m.room.topic", {"topic": "neither this"})
        await until_content(pair.bob, room_id, "m.room.topic", {"topic": "neither this"})
        await pair.bob.send(room_id, "for all")
        await until_seen(carol, room_id, "not for three", "for all")
        await until_content(carol, room_id, "m.room.topic", {"topic": "neither this"})
        pair.deployment.network.mend([pair.one.name], [three.name])
        await carol.send(room_id, "thanks")
        await until_seen(pair.alice, room_id, "thanks")
        await until_agreed(room_id, places)


async def test_two_moderators_fall_out_during_a_cut(pair: Pair) -> None:
    """Both remove each other: the one with more power stays, for everybody."""
    (three,) = await pair.deployment.start()
    async with three.user("carol") as carol:
        places = [*pair.places, (three, carol)]
        room_id = await shared_room(places, room_version="11")
        users = {pair.alice.user_id: 100, pair.bob.user_id: 50, carol.user_id: 40}
        await set_state(pair.alice, room_id, "m.room.power_levels", {"users": users, "ban": 40, "kick": 40})
        for client in (pair.bob, carol):
            await until_content(client, room_id, "m.room.power_levels", {"users": users, "ban": 40, "kick": 40})
        pair.deployment.network.cut([pair.two.name], [three.name])
        pair.deployment.network.cut([pair.one.name], [three.name])
        await act(pair.bob, "ban", room_id, user_id=carol.user_id)
        await set_state(pair.alice, room_id, "m.room.power_levels", {"users": users, "ban": 50, "kick": 50})
        said = await carol.send(room_id, "said by who is banned elsewhere")
        pair.deployment.network.mend([pair.one.name, pair.two.name], [three.name])

        await pair.alice.send(room_id, "mended")
        await until_membership(pair.alice, room_id, carol.user_id, "ban")
        await until_membership(carol, room_id, carol.user_id, "ban")
        await until_agreed(room_id, pair.places)
        # Those who knew of the ban do not show what came after it, though it was sent before it was known.
        assert said not in await visible(pair.alice, room_id)
