"""Our server, whose other servers are one by value."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest

from homeserver.core.signing import SigningKey
from homeserver.runtime.signing_key import load_signing_key
from storage.database import Database
from tests.api.server import CONFIG, SERVER_NAME, Site, composed_server, with_changes
from tests.fast_clock import FastClock
from tests.federation.peer_room import now_ms
from tests.rooms.remote_membership.resident import Resident


def clock_of_today() -> FastClock:
    """A clock that shows the real time, as the other server's does: keys are not good for the far future."""
    clock = FastClock(speed=1)
    clock.advance((now_ms() - clock.now_ms()) / 1000)
    return clock


def key_of(site: Site) -> SigningKey:
    """What a server of ours signs with."""
    return load_signing_key(site.config.data_dir)


class Serve(Protocol):
    """Starts our server beside a resident one."""

    def __call__(self, resident: Resident, *, faster_joins: bool = False) -> AbstractAsyncContextManager[Site]:
        """Our server, until the block ends."""
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
    async def start(resident: Resident, *, faster_joins: bool = False) -> AsyncIterator[Site]:
        config = with_changes(CONFIG, federation={"faster_joins": faster_joins}, registration={"guest_access": True})
        async with composed_server(database_url, config, clock=clock_of_today(), remotes=resident.remotes) as site:
            resident.know(SERVER_NAME, key_of(site))
            yield site

    return start
