"""Users who wait for messages, and whether each message came to each of them exactly once and in order."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from bench.client import Client

ARRIVAL_SECONDS_MAX: Final = 60
_LONG_POLL_MS: Final = 60_000
_MESSAGE: Final = "m.room.message"


class WrongAnswer(Exception):
    """A server did not do what was measured, or not all of it."""


def check(holds: bool, wrong: str) -> None:
    """Says what is wrong, if the answer does not hold what it must.

    Raises:
        WrongAnswer: it does not.
    """
    if not holds:
        raise WrongAnswer(wrong)


class Transport(StrEnum):
    """How syncs reach a user."""

    LONG_POLL = "long poll"
    WEBSOCKET = "WebSocket"


@dataclass(frozen=True, slots=True)
class Room:
    """A room that a server has made."""

    room_id: str
    members: Sequence[Client]


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that was sent, and when its request began and was answered, in seconds of a clock."""

    room_id: str
    event_id: str
    began: float
    answered: float


async def send(client: Client, room_id: str) -> Sent:
    """Sends a message."""
    began = time.perf_counter()
    event_id = await client.send(room_id)
    return Sent(room_id, event_id, began, time.perf_counter())


class Follower:
    """A user who waits, and what has come so far."""

    def __init__(self, client: Client, rooms: Collection[Room]) -> None:
        self.client = client
        self.room_ids = frozenset(room.room_id for room in rooms if client in room.members)
        self.arrived: Mapping[str, list[str]] = defaultdict(list)
        self._news = asyncio.Event()

    async def run(self, syncs: AsyncIterator[Any]) -> None:
        """Takes in one sync after the other."""
        async for sync in syncs:
            for room_id, room in sync.get("rooms", {}).get("join", {}).items():
                timeline = room.get("timeline", {})
                check(not timeline.get("limited"), "more messages came at once than a timeline may hold: send fewer")
                events = timeline.get("events", ())
                self.arrived[room_id].extend(event["event_id"] for event in events if event["type"] == _MESSAGE)
            self._news.set()

    async def wait_for(self, count: int) -> None:
        """Until so many messages have come, of any room."""
        while sum(map(len, self.arrived.values())) < count:
            await self._news.wait()
            self._news.clear()


@asynccontextmanager
async def following(
    clients: Sequence[Client], rooms: Collection[Room], transport: Transport, filter_ids: Mapping[Client, str]
) -> AsyncIterator[list[Follower]]:
    """Users who have synced, and wait for what is sent in the block."""
    async with AsyncExitStack() as stack:
        followers = []
        group = await stack.enter_async_context(asyncio.TaskGroup())
        running = []
        for client in clients:
            filter_id = filter_ids[client]
            await client.sync_answer(filter=filter_id)
            if transport is Transport.WEBSOCKET:
                syncs = await stack.enter_async_context(client.pushed_syncs(filter=filter_id))
            else:
                syncs = _polled(client, filter_id)
            follower = Follower(client, rooms)
            followers.append(follower)
            running.append(group.create_task(follower.run(syncs)))
        yield followers
        for task in running:
            task.cancel()


async def _polled(client: Client, filter_id: str) -> AsyncIterator[Any]:
    while True:
        yield await client.sync_answer(timeout_ms=_LONG_POLL_MS, filter=filter_id)


async def wait_for_all(followers: Sequence[Follower], sent: Sequence[Sent]) -> None:
    """Until every follower has got as many messages as its rooms were sent.

    Raises:
        WrongAnswer: they do not all come in time.
    """
    try:
        async with asyncio.timeout(ARRIVAL_SECONDS_MAX):
            for follower in followers:
                await follower.wait_for(sum(one.room_id in follower.room_ids for one in sent))
    except TimeoutError:
        missing = _deliveries(followers, sent) - sum(len(ids) for one in followers for ids in one.arrived.values())
        raise WrongAnswer(f"{missing} deliveries did not come within {ARRIVAL_SECONDS_MAX} seconds") from None


def check_deliveries(followers: Sequence[Follower], sent: Sequence[Sent]) -> int:
    """Checks that each message came once to each follower in its room, in one order that respects how they were sent.

    Returns:
        How many deliveries that were.

    Raises:
        WrongAnswer: they were not so.
    """
    expected: dict[str, dict[str, Sent]] = defaultdict(dict)
    for one in sent:
        expected[one.room_id][one.event_id] = one
    orders: dict[str, list[str]] = {}
    for follower in followers:
        if foreign := [room_id for room_id, ids in follower.arrived.items() if ids and room_id not in expected]:
            raise WrongAnswer(f"messages came from {foreign}, where none were sent")
        for room_id in follower.room_ids & expected.keys():
            came = follower.arrived[room_id]
            if sorted(came) != sorted(expected[room_id]):
                raise WrongAnswer(
                    f"{len(came)} messages came to {follower.client.user_id}, {len(set(came))} different ones, "
                    f"of {len(expected[room_id])} in {room_id}"
                )
            if orders.setdefault(room_id, came) != came:
                raise WrongAnswer(f"messages came in different orders to members of {room_id}")
    for room_id, order in orders.items():
        _check_order([expected[room_id][event_id] for event_id in order])
    return _deliveries(followers, sent)


def _check_order(order: Sequence[Sent]) -> None:
    """What was answered before another was begun comes before it."""
    last_began = float("-inf")
    for one in order:
        if one.answered < last_began:
            raise WrongAnswer(f"{one.event_id} came after a message that was sent later, in {one.room_id}")
        last_began = max(last_began, one.began)


def _deliveries(followers: Sequence[Follower], sent: Sequence[Sent]) -> int:
    return sum(one.room_id in follower.room_ids for follower in followers for one in sent)
