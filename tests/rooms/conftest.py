"""Workers on a fresh database."""

from collections.abc import AsyncIterator

import pytest

from homeserver.config.schema import DatabaseConfig
from storage.database import Database
from tests.rooms.workers import Worker


@pytest.fixture
async def worker(database_url: str) -> AsyncIterator[Worker]:
    """A worker."""
    async with Database(database_url, DatabaseConfig(pool_size_max=12)) as db:
        yield Worker(db)


@pytest.fixture
async def other_worker(database_url: str) -> AsyncIterator[Worker]:
    """Another worker on the same database."""
    async with Database(database_url, DatabaseConfig(pool_size_max=12)) as db:
        yield Worker(db)
