"""Our server beside one whose room has a past."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest

from storage.bus.base import Bus
from storage.database import Database
from tests.api.server import CONFIG, SERVER_NAME, Site, composed_server, with_changes
from tests.rooms.backfill.past_room import PastRoom
from tests.rooms.remote_membership.conftest import clock_of_today, key_of


class Serve(Protocol):
    """Starts our server beside another one."""

    def __call__(
        self, resident: PastRoom, *, bus: Bus | None = None, faster_joins: bool = False
    ) -> AbstractAsyncContextManager[Site]:
        """Our server, until the block ends; several share a database and a bus."""
        ...


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """What our server has stored."""
    async with Database(database_url) as db:
        yield db


@pytest.fixture
def serve(database_url: str) -> Serve:
    """Starts servers on the test's database."""

    @asynccontextmanager
    async def start(resident: PastRoom, *, bus: Bus | None = None, faster_joins: bool = False) -> AsyncIterator[Site]:
        config = with_changes(CONFIG, federation={"faster_joins": faster_joins})
        clock = clock_of_today()
        async with composed_server(database_url, config, clock=clock, bus=bus, remotes=resident.remotes) as site:
            resident.know(SERVER_NAME, key_of(site))
            yield site

    return start
