"""Users of a Synapse and of this server quarrel while their servers cannot hear each other, again and again.

What they do is drawn at random, from a seed. Afterwards both servers must have resolved it all to the same state.

https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import pytest

from synapse_compat_tests.federation.conftest import NewHeliograph, Pair
from synapse_compat_tests.federation.rooms import event_of, until_agreed
from synapse_compat_tests.federation.servers import HastyClock, OurSide
from tests.federation.servers.rooms import join, membership, set_state, state, until_content, until_membership
from tests.real_client import Client, Refused
from tests.waiting import wait_until

ROUNDS, ACTS = 3, 12
OTHERS = 2
HEARING_SECONDS_MAX = 40


@pytest.fixture(scope="module")
async def our_side(new_heliograph: NewHeliograph) -> AsyncIterator[OurSide]:
    """A Heliograph that soon tries again what has failed, with a clock that is not far ahead of the Synapse's."""
    async with new_heliograph(clock=HastyClock(speed=5)) as side:
        yield side


@pytest.fixture
async def crowd(pair: Pair) -> AsyncIterator[list[Client]]:
    """Some more users of both servers."""
    async with AsyncExitStack() as stack:
        clients = []
        for side, client in ((pair.home, pair.alice), (pair.away, pair.bob)):
            stem = client.user_id.split(":")[0][1:]
            for number in range(OTHERS):
                clients.append(await stack.enter_async_context(side.user(f"{stem}-{number}")))
        yield clients


def levels_of(pair: Pair, crowd: list[Client], version: str) -> dict[str, Any]:
    """Bob can do nearly as much as Alice, one more of each server a little, the others nothing."""
    users = {pair.bob.user_id: 90, crowd[0].user_id: 50, crowd[OTHERS].user_id: 50}
    own = {} if version == "12" else {pair.alice.user_id: 100}
    return {"users": {**users, **own}, "users_default": 0, "state_default": 50, "ban": 50, "kick": 50, "invite": 0}


async def act_at_random(random: Random, client: Client, room_id: str, everybody: list[Client]) -> None:
    """Does something, if it may."""
    target, stamp = random.choice(everybody), random.randrange(10**6)
    match random.choice(("topic", "name", "levels", "rules", "ban", "kick", "unban", "come", "leave", "say", "say")):
        case "topic" | "name" as what:
            await _try(client, "PUT", f"/rooms/{room_id}/state/m.room.{what}/", {what: f"{client.user_id} {stamp}"})
        case "levels" if target is not everybody[0]:
            content = (await state(client, room_id)).get(("m.room.power_levels", ""), {}).get("content")
            if content is not None:
                users = {**content["users"], target.user_id: random.choice((0, 25, 50))}
                path = f"/rooms/{room_id}/state/m.room.power_levels/"
                await _try(client, "PUT", path, {**content, "users": users, "notifications": {"room": stamp % 50}})
        case "rules":
            rule = {"join_rule": random.choice(("public", "invite"))}
            await _try(client, "PUT", f"/rooms/{room_id}/state/m.room.join_rules/", rule)
        case "ban" | "kick" | "unban" as what if target.user_id != client.user_id:
            await _try(client, "POST", f"/rooms/{room_id}/{what}", {"user_id": target.user_id, "reason": f"{stamp}"})
        case "come":
            await _try(client, "POST", f"/rooms/{room_id}/invite", {"user_id": target.user_id})
        case "leave" if client not in everybody[:2]:
            await _try(client, "POST", f"/rooms/{room_id}/leave", {})
        case _:
            await _try(
                client, "PUT", f"/rooms/{room_id}/send/m.room.message/{stamp}", {"body": "!", "msgtype": "m.text"}
            )


async def _try(client: Client, method: str, path: str, body: Any) -> None:
    answer = await client.call(method, path, body)
    assert answer.status < 500 or answer.status == 502, answer


async def is_in(client: Client, room_id: str) -> bool:
    """Whether a user still has a part in a room."""
    return (await client.call("GET", f"/rooms/{room_id}/state")).status == 200 and room_id in (
        await client.get("/joined_rooms")
    )["joined_rooms"]


async def until_all_is_told(pair: Pair, everybody: list[Client], room_id: str) -> None:
    """Has somebody of each server speak, and waits until both agree.

    Alice cannot be removed by anybody, so hers does in any case. What is said first wakes the other server: a Synapse
    that has given up for a while tries again when it hears from somebody. Then Alice speaks before anybody else, who
    may find out so that they have been banned, and that nobody would hear them any more.
    """
    others = [client for client in everybody if client.url == pair.bob.url and await is_in(client, room_id)]
    members = [pair.alice, *others[:1]]
    for speaker in members:
        await say(speaker, room_id, "is anybody there?")
    for speaker in members:
        event_id = await say(speaker, room_id, "mended")
        if event_id is not None:
            for listener in members:
                await wait_until(
                    lambda who=listener, what=event_id: has_heard(who, room_id, what), seconds_max=HEARING_SECONDS_MAX
                )
    for other in others[:1]:
        if await is_in(other, room_id):
            await until_agreed(room_id, members, seconds_max=HEARING_SECONDS_MAX)
        else:
            assert await membership(pair.alice, room_id, other.user_id) != "join"


async def say(client: Client, room_id: str, body: str) -> str | None:
    """Sends a message, if the user still may; returns its id."""
    try:
        return await client.send(room_id, body)
    except Refused as refused:
        assert refused.answer.status == 403, refused
        return None


async def has_heard(client: Client, room_id: str, event_id: str) -> bool:
    """Whether somebody sees an event, or has no part in the room any more."""
    return await event_of(client, room_id, event_id) is not None or not await is_in(client, room_id)


@pytest.mark.seconds_max(240)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_both_agree_after_a_quarrel(pair: Pair, crowd: list[Client], version: str, seed: int) -> None:
    random = Random(f"{version} {seed}")
    everybody = [pair.alice, pair.bob, *crowd]
    room_id = await pair.share_room(room_version=version)
    for client in crowd:
        await join(client, room_id, pair.home.name)
        await until_membership(pair.bob, room_id, client.user_id, "join")
    levels = levels_of(pair, crowd, version)
    await set_state(pair.alice, room_id, "m.room.power_levels", levels)
    await until_content(pair.bob, room_id, "m.room.power_levels", levels)
    await until_agreed(room_id, pair.clients)

    for _ in range(ROUNDS):
        pair.home.line.cut()
        pair.away.line.cut()
        for _ in range(ACTS):
            client = random.choice([*everybody, pair.alice, pair.bob])
            if await is_in(client, room_id):
                await act_at_random(random, client, room_id, everybody)
        pair.home.line.mend()
        pair.away.line.mend()
        await until_all_is_told(pair, everybody, room_id)
