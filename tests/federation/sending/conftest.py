"""A worker that writes rooms, on a fresh database."""

from collections.abc import AsyncIterator

import pytest

from homeserver.config.schema import DatabaseConfig
from storage.database import Database
from tests.rooms.workers import Worker


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """The pool of one process."""
    async with Database(database_url, DatabaseConfig(pool_size_max=15)) as database:
        yield database


@pytest.fixture
def worker(db: Database) -> Worker:
    """Makes rooms and adds events to them."""
    return Worker(db)
