"""A server for each test, and other servers that read from it."""

from collections.abc import AsyncIterator

import pytest

from homeserver.config.schema import DatabaseConfig
from storage.database import Database
from tests.federation.reading.world import World, running_world
from tests.rooms.workers import Worker


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A server with its user Alice."""
    async with running_world(database_url) as running:
        yield running


@pytest.fixture
async def worker(database_url: str) -> AsyncIterator[Worker]:
    """Rooms without the web, on a database of their own."""
    async with Database(database_url, DatabaseConfig(pool_size_max=5)) as db:
        yield Worker(db)
