"""A PostgreSQL that is restarted: requests fail meanwhile, and everything continues by itself afterwards."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeserver.services.stream.hub import Hub
from storage.bus.memory import MemoryBus
from storage.database import Database
from storage.embedded import EmbeddedPostgres
from storage.errors import DatabaseUnavailable
from storage.migrate import migrate
from storage.positions import stream_position
from tests.fast_clock import FastClock
from tests.waiting import wait_until


@pytest.fixture
def postgres(cluster_folder: Path) -> Iterator[EmbeddedPostgres]:
    cluster = EmbeddedPostgres(cluster_folder, settings={"fsync": "off", "max_connections": "20"})
    yield cluster
    cluster.stop()


async def test_pool_and_hub_continue_after_a_restart(postgres: EmbeddedPostgres) -> None:
    url = await asyncio.to_thread(postgres.start)
    await migrate(url, to=1)
    bus = MemoryBus()
    async with Database(url) as db, asyncio.TaskGroup() as tasks:
        hub = Hub(db=db, bus=bus, clock=FastClock(), streams=())
        run = tasks.create_task(hub.run())
        before = await hub.bound()
        with hub.subscribe({"room:!a:b"}) as waiter:
            await asyncio.to_thread(postgres.stop)
            with pytest.raises(DatabaseUnavailable):
                await hub.bound()
            await asyncio.to_thread(postgres.start)

            async def is_back() -> bool:
                try:
                    return await hub.bound() >= before
                except DatabaseUnavailable:
                    return False

            await wait_until(is_back)
            async with db.transaction() as conn:
                position = await stream_position(conn)
            await bus.wake({"room:!a:b"}, position)
            assert await waiter.wait(5)
            assert await hub.bound() > position
        run.cancel()
