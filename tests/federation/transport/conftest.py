"""One server's ways to others, without the server: its client, its back-off and its keys."""

from collections.abc import AsyncIterator

import pytest

from storage.database import Database
from tests.conftest import new_database
from tests.fast_clock import FastClock
from tests.federation.certificates import CertificateAuthority
from tests.federation.peer import Peer
from tests.federation.transport.ways import Ways, open_ways


@pytest.fixture(scope="module")
async def shared_db(postgres_url: str, database_template: str) -> AsyncIterator[Database]:
    """The pool of one process, for all tests of a module: making a database takes longer than most of them."""
    async for url in new_database(postgres_url, template=database_template):
        async with Database(url) as database:
            yield database


@pytest.fixture
async def db(shared_db: Database) -> Database:
    """A database in which no other server is known."""
    async with shared_db.connection() as conn:
        await conn.execute("TRUNCATE destinations, server_keys")
    return shared_db


@pytest.fixture
def clock() -> FastClock:
    """Real time, until a test advances it."""
    return FastClock(speed=1.0)


@pytest.fixture
async def ways(db: Database, clock: FastClock, authority: CertificateAuthority, peer: Peer) -> AsyncIterator[Ways]:
    """The ways of a server whose keys the peer knows."""
    async with open_ways(db, clock, authority, peers=[peer]) as opened:
        yield opened
