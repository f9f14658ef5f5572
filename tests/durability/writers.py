"""Users who send messages one after the other, and remember what was acknowledged and what was not."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from tests.real_client import Client, Follower, send_path
from tests.waiting import wait_until


@dataclass
class Writer:
    """Sends numbered messages to rooms in turn; each is tried until it is acknowledged, with one transaction id.

    Attributes:
        client: the device that sends.
        name: what the texts begin with.
        rooms: where to send.
        acknowledged: the event id for each text.
        refusals: the statuses of answers other than 200.
        disconnections: how often there was no answer.
        pause_seconds: how long it rests after each message.
    """

    client: Client
    name: str
    rooms: Sequence[str]
    acknowledged: dict[str, str] = field(default_factory=dict)
    refusals: Counter[int] = field(default_factory=Counter)
    disconnections: int = 0
    pause_seconds: float = 0.0
    pending: str | None = None
    _count: int = 0

    async def run(self, *, until: asyncio.Event) -> None:
        """Sends until the event is set; the last message may stay unacknowledged, for `finish`."""
        while not until.is_set():
            if self.pending is None:
                self._count += 1
                self.pending = f"{self.name} {self._count}"
            await asyncio.sleep(self.pause_seconds if await self.try_pending() else 0.05)

    async def finish(self) -> None:
        """Sends the message that has not been acknowledged."""
        while self.pending is not None:
            if not await self.try_pending():
                await asyncio.sleep(0.05)

    async def try_pending(self) -> bool:
        """Tries once to send the pending message."""
        assert self.pending is not None
        room_id = self.room_of(self.pending)
        try:
            answer = await self.client.call(
                "PUT", send_path(room_id, self.pending), {"msgtype": "m.text", "body": self.pending}
            )
        except (aiohttp.ClientError, ConnectionError):
            self.disconnections += 1
            return False
        if answer.status != 200:
            self.refusals[answer.status] += 1
            assert answer.body["errcode"], "an error without a code"
            return False
        self.acknowledged[self.pending] = answer.body["event_id"]
        self.pending = None
        return True

    async def repeat(self, text: str) -> str:
        """Sends an acknowledged message again, as a client does that has not seen the answer; its event id."""
        room_id = self.room_of(text)
        answer = await self.client.put(send_path(room_id, text), {"msgtype": "m.text", "body": text})
        return str(answer["event_id"])

    def room_of(self, text: str) -> str:
        """Where a message goes."""
        return self.rooms[int(text.rpartition(" ")[2]) % len(self.rooms)]


async def check_nothing_lost(writers: Sequence[Writer], reader: Client) -> None:
    """What was acknowledged is there, once and in order: in the history of the rooms, and in a fresh sync."""
    rooms = {room_id for writer in writers for room_id in writer.rooms}
    fresh = Follower(reader)
    await fresh.step()
    for room_id in rooms:
        events = [event for event in await reader.history(room_id) if event["type"] == "m.room.message"]
        told = {event["content"]["body"]: event["event_id"] for event in events}
        assert len(told) == len(events), "a message is there twice"
        expected = {
            text: event_id
            for writer in writers
            for text, event_id in writer.acknowledged.items()
            if writer.room_of(text) == room_id
        }
        assert told == expected
        assert sorted(fresh.event_ids(room_id)) == sorted(expected.values())
        check_order(writers, fresh.bodies(room_id), room_id)
        check_order(writers, [event["content"]["body"] for event in events], room_id)


@asynccontextmanager
async def writing(writers: Sequence[Writer]) -> AsyncIterator[None]:
    """All writers send while the block runs; at its end each message is acknowledged."""
    done = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for writer in writers:
            tasks.create_task(writer.run(until=done))
        yield
        done.set()
    async with asyncio.TaskGroup() as tasks:
        for writer in writers:
            tasks.create_task(writer.finish())


@asynccontextmanager
async def following(followers: Sequence[Follower], writers: Sequence[Writer]) -> AsyncIterator[None]:
    """All followers sync while the block runs, and until they have what was sent in it."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(follower.run()) for follower in followers]
        yield
        try:
            await wait_until(lambda: all(has_all(follower, writers) for follower in followers), seconds_max=20)
        except TimeoutError:
            raise AssertionError([missing(follower, writers) for follower in followers]) from None
        for task in running:
            task.cancel()


def check_order(writers: Sequence[Writer], bodies: Sequence[str], room_id: str) -> None:
    """The messages of each writer stand in the order in which they were acknowledged."""
    for writer in writers:
        mine = [body for body in bodies if body.startswith(f"{writer.name} ")]
        assert mine == [text for text in writer.acknowledged if writer.room_of(text) == room_id]


def check_follower(follower: Follower, writers: Sequence[Writer]) -> None:
    """Somebody who followed the syncs has received each message once, those of each writer in order."""
    for room_id in {room_id for writer in writers for room_id in writer.rooms}:
        bodies = follower.bodies(room_id)
        expected = [text for writer in writers for text in writer.acknowledged if writer.room_of(text) == room_id]
        assert Counter(bodies) == Counter(expected)
        check_order(writers, bodies, room_id)


def missing(follower: Follower, writers: Sequence[Writer]) -> list[str]:
    """What a follower has not received of what was acknowledged."""
    received = {
        body for room_id in {room for writer in writers for room in writer.rooms} for body in follower.bodies(room_id)
    }
    return [text for writer in writers for text in writer.acknowledged if text not in received]


def has_all(follower: Follower, writers: Sequence[Writer]) -> bool:
    """Whether a follower has received as many messages as were acknowledged."""
    received = sum(len(messages) for messages in follower.messages.values())
    return received >= sum(len(writer.acknowledged) for writer in writers)
