"""Whole servers with users on both sides, and a worker that keeps lists of other servers' devices."""

from collections.abc import AsyncIterator

import pytest

from homeserver.config.schema import DatabaseConfig
from storage.database import Database
from tests.federation.encryption.world import Keeping
from tests.federation.servers.conftest import deployment as deployment
from tests.federation.servers.conftest import encounter as encounter
from tests.federation.servers.conftest import fast_deployment as fast_deployment
from tests.federation.servers.conftest import fast_pair as fast_pair
from tests.federation.servers.conftest import nothing_fails as nothing_fails
from tests.federation.servers.conftest import pair as pair
from tests.rooms.workers import Worker


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """The pool of one process."""
    async with Database(database_url, DatabaseConfig(pool_size_max=10)) as database:
        yield database


@pytest.fixture
def worker(db: Database) -> Worker:
    """Makes rooms and adds events to them."""
    return Worker(db)


@pytest.fixture
def keeping(worker: Worker) -> Keeping:
    """What keeps device lists, with other servers that answer."""
    return Keeping(worker)
