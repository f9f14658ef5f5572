"""The loop that all consumers of the streams share: one process holds the lease and handles what is new, in batches.

Producers do not know consumers. A consumer that was away, or failed, continues from its saved position: each row is
handled at least once, and exactly once where the effect is saved in the same transaction as the position.
"""

import asyncio
import logging
from typing import Final, Protocol

from prometheus_client import Counter, Gauge

from homeserver.core.clock import Clock
from homeserver.services.lease_renewal import LeaseLost, keep_lease
from homeserver.services.stream.hub import Hub
from storage.database import Connection, Database
from storage.errors import DatabaseError, DatabaseUnavailable
from storage.followers import advance_follower, get_follower_position
from storage.leases import LEASE_MS, STANDBY_SECONDS, acquire_leases, delete_leases, new_holder

logger = logging.getLogger(__name__)

# What comes within this time is handled together.
GATHER_SECONDS: Final = 0.02
# How long to sleep without a wake; then the position is saved even if there was nothing.
IDLE_SECONDS: Final = 10.0
# A position that a consumer does not save itself is saved no more often: what was handled since is handled again.
SAVE_SECONDS: Final = 2.0
BACKOFF_SECONDS_MIN: Final = 0.5
BACKOFF_SECONDS_MAX: Final = 60.0
RELEASE_SECONDS_MAX: Final = 3.0

FAILURES: Final = Counter("heliograph_follower_failures", "Batches that failed and will be repeated.", ["follower"])
LAG: Final = Gauge(
    "heliograph_follower_lag_seconds",
    "How long ago the follower had handled everything.",
    ["follower"],
    multiprocess_mode="livemostrecent",
)


class Batch:
    """What a consumer is given: the rows with `since <= position < upto`."""

    def __init__(self, *, follower: str, since: int, upto: int, saved_upto: int) -> None:
        self.since = since
        self.upto = upto
        self._follower = follower
        self.saved_upto = saved_upto

    async def save(self, conn: Connection, upto: int) -> None:
        """Saves, in the transaction of the effect, that everything before `upto` has been handled.

        A consumer whose effects are idempotent need not call it: the follower then saves what `handle` returns.

        Raises:
            LeaseLost: another process has taken over; the transaction must roll back, so let this pass.
        """
        if not await advance_follower(conn, self._follower, since=self.saved_upto, upto=upto):
            raise LeaseLost
        self.saved_upto = upto


class Consumer(Protocol):
    """Something that reacts to what the streams bring."""

    async def handle(self, batch: Batch) -> int:
        """Handles rows from `batch.since` on, a bounded number of them, and returns up to which position it has come.

        That is `batch.upto`, or less if there is more than one batch should hold; then it is called again at once.
        It may be given rows again that it has handled before. An exception is logged and the batch repeated later.
        """
        ...


class Follower:
    """Runs one consumer in one process of all."""

    def __init__(
        self,
        *,
        name: str,
        keys: frozenset[str],
        consumer: Consumer,
        db: Database,
        hub: Hub,
        clock: Clock,
        from_beginning: bool = False,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        """Takes what runs and what wakes it.

        Args:
            name: of the lease and of the saved position; never changes.
            keys: hub keys, mostly kinds such as `room:`.
            consumer: what handles the rows.
            from_beginning: a new follower begins with all rows that there are, instead of those to come.
            gather_seconds: what comes within this time is handled together.
        """
        self._name = name
        self._keys = keys
        self._consumer = consumer
        self._db = db
        self._hub = hub
        self._clock = clock
        self._from_beginning = from_beginning
        self._gather_seconds = gather_seconds
        self._holder = new_holder()
        # Before this everything has been handled for good, and not before that is it saved again.
        self._saved = 0
        self._save_at = 0.0
        self._failures = FAILURES.labels(name)
        self._lag = LAG.labels(name)

    async def run(self) -> None:
        """Follows, or stands by for the process that does, until it is cancelled."""
        while True:
            try:
                acquired_at = self._clock.monotonic()
                if await self._acquire():
                    await self._follow_under_lease(acquired_at)
            except DatabaseError as error:
                logger.warning("follower %s: %s", self._name, error)
            await self._clock.sleep(STANDBY_SECONDS)

    async def _acquire(self) -> bool:
        async with self._db.connection() as conn:
            acquired = await acquire_leases(conn, [self._name], holder=self._holder, duration_ms=LEASE_MS)
        return bool(acquired)

    async def _follow_under_lease(self, acquired_at: float) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(
                    keep_lease(self._db, self._clock, name=self._name, holder=self._holder, renewed_at=acquired_at)
                )
                tasks.create_task(self._follow())
        except* LeaseLost:
            logger.warning("follower %s: another process has taken over", self._name)
        finally:
            self._lag.set(0)
            await self._release()

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_SECONDS_MAX), self._db.connection() as conn:
                await delete_leases(conn, [self._name], holder=self._holder)
        except (DatabaseError, TimeoutError):
            logger.info("follower %s: the lease is left to expire", self._name)

    async def _follow(self) -> None:
        position: int | None = None
        backoff_seconds = BACKOFF_SECONDS_MIN
        caught_up_at = self._clock.monotonic()
        with self._hub.subscribe(self._keys) as waiter:
            while True:
                try:
                    # Whoever starts asks; later each wake says that the bound has passed what it is about.
                    upto = await (self._hub.bound() if position is None else self._hub.recent_bound(since=position))
                    if position is None:
                        position = self._saved = await self._saved_position(upto)
                    reached = await self._handle_batch(position, upto)
                except LeaseLost:
                    raise
                except Exception as error:
                    self._failures.inc()
                    self._lag.set(self._clock.monotonic() - caught_up_at)
                    if isinstance(error, DatabaseUnavailable):
                        logger.warning("follower %s: %s", self._name, error)
                    else:
                        logger.exception("follower %s: a batch failed", self._name)
                    position = None
                    await self._clock.sleep(backoff_seconds)
                    backoff_seconds = min(2 * backoff_seconds, BACKOFF_SECONDS_MAX)
                    continue
                backoff_seconds = BACKOFF_SECONDS_MIN
                advanced, position = reached > position, max(position, reached)
                if position >= upto:
                    caught_up_at = self._clock.monotonic()
                self._lag.set(self._clock.monotonic() - caught_up_at)
                if position >= upto or not advanced:
                    unsaved = position > self._saved
                    await waiter.wait(SAVE_SECONDS if unsaved else IDLE_SECONDS, upto=upto)
                    await self._clock.sleep(self._gather_seconds)

    async def _saved_position(self, upto: int) -> int:
        async with self._db.connection() as conn:
            return await get_follower_position(conn, self._name, start=0 if self._from_beginning else upto)

    async def _handle_batch(self, since: int, upto: int) -> int:
        """Has the consumer handle what is new, and saves how far it has come, if it is time."""
        batch = Batch(follower=self._name, since=since, upto=upto, saved_upto=self._saved)
        reached = since if since >= upto else await self._consumer.handle(batch)
        self._saved = batch.saved_upto
        now = self._clock.monotonic()
        if reached > self._saved and now >= self._save_at:
            async with self._db.connection() as conn:
                await batch.save(conn, reached)
            self._saved = reached
            self._save_at = now + SAVE_SECONDS
        return reached
