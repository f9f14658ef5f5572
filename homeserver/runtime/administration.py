"""The administrator's use cases without a server, for the command line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from homeserver.config.schema import Config
from homeserver.core.clock import Clock
from homeserver.runtime.accounts import Means, compose_accounts
from homeserver.services.accounts.administration import Administration
from homeserver.services.accounts.attempts import LocalAttemptCounts
from homeserver.services.ports import NoRemoteProfiles
from storage.bus.memory import MemoryBus
from storage.database import Database
from storage.migrate import migrate


@asynccontextmanager
async def administration(config: Config, clock: Clock) -> AsyncIterator[Administration]:
    """The use cases, on a database that is brought up to date first.

    A server that runs beside sees what was changed within a second or two: nothing wakes it.

    Raises:
        DatabaseError: the database is away, or of a newer program.
    """
    await migrate(config.database.url)
    async with Database(config.database.url, config.database) as db:
        accounts = compose_accounts(
            Means(config=config, db=db, bus=MemoryBus(), clock=clock),
            attempt_counts=LocalAttemptCounts(clock),
            remote_profiles=NoRemoteProfiles(),
        )
        yield accounts.administration
