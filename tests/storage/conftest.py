"""A migrated database for each test, opened as the server opens it."""

from collections.abc import AsyncIterator

import pytest

from homeserver.config.schema import DatabaseConfig
from storage.database import Database


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """The pool of one process."""
    async with Database(database_url, DatabaseConfig(pool_size_max=12)) as database:
        yield database
