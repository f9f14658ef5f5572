"""Many who write and some who listen at the same time: nothing is missed, nothing comes twice, the order is kept."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from storage.bus.memory import MemoryBus
from tests.api.server import Site, composed_server
from tests.api.sync.api import Device, register, timeline_filter

WRITERS = 8
MESSAGES = 15
QUERY = {"filter": timeline_filter(limit=1000, types=["m.room.message"]), "set_presence": "offline"}


@asynccontextmanager
async def workers(database_url: str, buses: Sequence[MemoryBus]) -> AsyncIterator[list[Site]]:
    """A server with one worker for each bus; those with the same bus wake each other."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(composed_server(database_url, bus=bus)) for bus in buses]


async def _listen(
    listener: Device, sites: Sequence[Site], rooms: Sequence[str], done: set[str]
) -> dict[str, list[str]]:
    """Syncs, with each worker in turn, until all is heard that was sent; the texts by room, in order."""
    heard: dict[str, list[str]] = {room_id: [] for room_id in rooms}
    turn = 0
    while {text for texts in heard.values() for text in texts} != done or len(done) < WRITERS * MESSAGES:
        listener.server = sites[turn % len(sites)]
        turn += 1
        sync = await listener.sync(timeout=5_000)
        for room_id in rooms:
            assert not sync.rooms().get(room_id, {"timeline": {"limited": False}})["timeline"]["limited"]
            heard[room_id] += sync.bodies(room_id)
    return heard


async def _run(sites: Sequence[Site]) -> None:
    writers = await register(sites[0], *(f"writer{number}" for number in range(WRITERS)))
    listeners = await register(sites[0], "one", "two", "three")
    rooms = [await writers[0].create(*writers[1:], *listeners) for _ in range(2)]
    for listener in listeners:
        listener.sync_query = QUERY
        await listener.sync()
    done: set[str] = set()

    async def write(number: int) -> None:
        writer = writers[number]
        writer.server = sites[number % len(sites)]
        for serial in range(MESSAGES):
            text = f"{number}/{serial:03}"
            await writer.send(rooms[(number + serial) % 2], text)
            done.add(text)

    async with asyncio.TaskGroup() as group:
        # The last of the listeners goes from worker to worker with its token.
        homes = [sites[:1], sites[-1:], sites]
        listening = [
            group.create_task(_listen(listener, home, rooms, done))
            for listener, home in zip(listeners, homes, strict=True)
        ]
        for number in range(WRITERS):
            group.create_task(write(number))
    for heard in (task.result() for task in listening):
        assert heard == listening[0].result(), "all hear the same in the same order"
        texts = [text for room_id in rooms for text in heard[room_id]]
        assert sorted(texts) == sorted(done), "each of them once"
        for room_id in rooms:
            for number in range(WRITERS):
                own = [text for text in heard[room_id] if text.startswith(f"{number}/")]
                assert own == sorted(own)


async def test_on_one_worker(database_url: str) -> None:
    async with workers(database_url, [MemoryBus()]) as sites:
        await _run(sites)


async def test_on_two_workers_with_one_bus(database_url: str) -> None:
    bus = MemoryBus()
    async with workers(database_url, [bus, bus]) as sites:
        await _run(sites)


@pytest.mark.seconds_max(120)
async def test_on_two_workers_whose_wakes_are_lost(database_url: str) -> None:
    async with workers(database_url, [MemoryBus(), MemoryBus()]) as sites:
        await _run(sites)


async def test_a_room_that_is_entered_while_others_write(database_url: str) -> None:
    async with workers(database_url, [MemoryBus()]) as (site,):
        alice, bob = await register(site, "alice", "bob")
        bob.sync_query = QUERY
        room_id = await alice.create()
        await bob.sync()
        sent: list[str] = []

        async def write() -> None:
            for serial in range(30):
                sent.append(f"{serial:03}")
                await alice.send(room_id, sent[-1])

        async def come_and_listen() -> list[str]:
            await bob.act(room_id, "join")
            heard: list[str] = []
            while not heard or heard[-1] != "029":
                heard += (await bob.sync(timeout=5_000)).bodies(room_id)
            return heard

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            listening = group.create_task(come_and_listen())
        assert listening.result() == sent
