"""Workers that evaluate push rules, on a fresh database."""

from collections.abc import AsyncIterator

import pytest

from homeserver.config.schema import DatabaseConfig
from storage.database import Database
from tests.push.workers import PushWorker


@pytest.fixture
async def worker(database_url: str) -> AsyncIterator[PushWorker]:
    """A worker."""
    async with Database(database_url, DatabaseConfig(pool_size_max=6)) as db:
        yield PushWorker(db)


@pytest.fixture
async def other_worker(database_url: str) -> AsyncIterator[PushWorker]:
    """Another worker on the same database."""
    async with Database(database_url, DatabaseConfig(pool_size_max=6)) as db:
        yield PushWorker(db)
