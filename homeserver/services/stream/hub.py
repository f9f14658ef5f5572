"""The hub of a process: it wakes the tasks that wait for something new in the streams, and says how far they may read.

A wake comes over the bus with the position of what was written, and is passed on once the bound lies above it. Wakes
may be lost: each second the hub reads the keys of all rows written since the second before, and passes those on.

Whoever waits subscribes first, then asks for the bound, then reads; whatever is written later will wake it.
"""

import asyncio
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import Gauge, Histogram

from homeserver.core.clock import Clock
from storage.bus.base import INTEREST_SECONDS, WAKES_LOST, Bus, Subscription, kind_of
from storage.database import Database
from storage.errors import DatabaseError, DatabaseUnavailable, TimeLimitReached
from storage.positions import stream_bound

logger = logging.getLogger(__name__)

TICK_SECONDS: Final = 1.0
# How long to wait for open transactions before the bound is asked again; doubled each time.
PATIENCE_SECONDS_MIN: Final = 0.005
PATIENCE_SECONDS_MAX: Final = 0.16
BOUND_SECONDS_MAX: Final = 15.0
KEYS_PENDING_MAX: Final = 100_000
KEYS_PER_TICK_MAX: Final = 20_000
POSITION_MAX: Final = 2**63 - 1
# The least time between two looks, of which there is one more for each gap in what the bus brings.
LOOK_SECONDS_MIN: Final = 0.1

TICKED_KINDS: Final = frozenset({"presence:"})
"""Kinds of keys that nobody wakes over the bus, for the tick is soon enough."""

WAITERS: Final = Gauge(
    "heliograph_hub_waiters", "Tasks that wait for something new in the streams.", multiprocess_mode="livesum"
)
WAKE_AGE: Final = Gauge(
    "heliograph_stream_bound_age_seconds",
    "How long the oldest wake has been held back by an open transaction; should be milliseconds.",
    multiprocess_mode="livemax",
)
WAKE_SECONDS: Final = Histogram(
    "heliograph_wake_seconds",
    "From the coming of a wake to its being passed on to those who wait.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5),
)


@dataclass(frozen=True, slots=True)
class StreamKeys:
    """What a streamed table contributes to the tick.

    Attributes:
        name: the table, for the log.
        statement: takes two positions and a limit, and gives rows `(key, position)`: the keys to wake for the rows
            between the positions, each key once with its largest position, no more of them than the limit.
    """

    name: str
    statement: str


class Notified(Protocol):
    """What the hub tells of news."""

    def notify(self, position: int) -> None:
        """Takes note that rows of this position may be read now."""
        ...


class Waiter:
    """A task's place in the hub."""

    __slots__ = ("_news", "_position")

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._position = -1

    def notify(self, position: int) -> None:
        """Says that rows of this position may be read now."""
        self._position = max(self._position, position)
        self._news.set()

    async def wait(self, timeout_seconds: float, *, upto: int = 0) -> bool:
        """Waits for news since the subscription or the last wait; False if there were none in time.

        Args:
            timeout_seconds: how long to wait at most.
            upto: what has been read already; wakes for positions below it are no news.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    await self._news.wait()
                    self._news.clear()
                    if self._position >= upto:
                        return True
        except TimeoutError:
            return False


class Hub:
    """One for each process. `run()` must be running for anybody to be woken."""

    def __init__(self, *, db: Database, bus: Bus, clock: Clock, streams: Sequence[StreamKeys]) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._streams = tuple(streams)
        self._waiters: dict[str, set[Notified]] = {}
        # Wakes that the bound has not passed: for each key the position and when it came.
        self._pending: dict[str, tuple[int, float]] = {}
        self._has_pending = asyncio.Event()
        # Keys that wakes have been passed on for since the last tick, which need not repeat them.
        self._passed_on: dict[str, int] = {}
        self._ticked_upto: int | None = None
        self._look_due = asyncio.Event()
        # What the bus was told of since its interests were renewed: who waits again and again costs nothing more.
        self._told: set[str] = set()
        self._asking = asyncio.Lock()
        self._rounds_started = 0
        self._last_round = 0
        self._last_answer: int | DatabaseError = -1
        self._known_bound = -1
        self.is_stopping = False
        bus.on_gap(self._look_due.set)

    def stop(self) -> None:
        """Ends all waiting, for the server is about to stop; whoever waits asks `is_stopping` then."""
        self.is_stopping = True
        self._notify_all(POSITION_MAX)

    async def bound(self) -> int:
        """The bound of what may be read now; callers at the same time share one query, which begins after they asked.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        wanted = self._rounds_started + 1
        try:
            async with asyncio.timeout(BOUND_SECONDS_MAX), self._asking:
                if self._last_round < wanted:
                    await self._ask()
                answer = self._last_answer
        except TimeoutError as error:
            raise DatabaseUnavailable from error
        if isinstance(answer, DatabaseError):
            raise answer
        return self._known_bound

    async def recent_bound(self, *, since: int) -> int:
        """A bound that may lag behind by what nobody has been woken for yet, without asking where that is known.

        For those who wait for news: they are subscribed before they ask, so they are woken for what this leaves out.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        if self._pending or self._known_bound < since:
            return await self.bound()
        return self._known_bound

    async def _ask(self) -> None:
        """One round; if the asking task is cancelled the round has no answer and the next one asks again."""
        self._rounds_started += 1
        number = self._rounds_started
        try:
            async with self._db.connection() as conn:
                answer = await stream_bound(conn)
        except DatabaseError as error:
            self._last_round, self._last_answer = number, error
            return
        self._last_round, self._last_answer = number, answer
        self._known_bound = max(self._known_bound, answer)
        if self._ticked_upto is None:
            self._ticked_upto = answer

    @contextmanager
    def subscribe(self, keys: Collection[str]) -> Iterator[Waiter]:
        """A waiter for any of the keys. A key that ends with its colon (`room:`) stands for all of its kind."""
        waiter = Waiter()
        self.add(waiter, keys)
        WAITERS.inc()
        try:
            yield waiter
        finally:
            WAITERS.dec()
            self.remove(waiter, keys)

    def add(self, notified: Notified, keys: Collection[str]) -> None:
        """Has something notified for any of the keys, until it is removed from them."""
        fresh = []
        for key in keys:
            waiters = self._waiters.get(key)
            if waiters is None:
                self._waiters[key] = {notified}
                if key not in self._told:
                    fresh.append(key)
            else:
                waiters.add(notified)
        if fresh:
            self._listen_for(fresh)

    def remove(self, notified: Notified, keys: Collection[str]) -> None:
        """Ends what `add` began."""
        for key in keys:
            waiters = self._waiters[key]
            waiters.discard(notified)
            if not waiters:
                del self._waiters[key]

    def _listen_for(self, keys: Collection[str]) -> None:
        self._told.update(keys)
        self._bus.listen_for([key for key in keys if kind_of(key) not in TICKED_KINDS])

    async def run(self) -> None:
        """Passes wakes on until it is cancelled."""
        with self._bus.subscribe() as wakes:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._receive(wakes))
                tasks.create_task(self._pass_on_pending())
                tasks.create_task(self._tick())
                tasks.create_task(self._look())
                tasks.create_task(self._renew_interests())

    async def _receive(self, wakes: Subscription) -> None:
        while True:
            wake = await wakes.next()
            for key in wake.keys:
                if wake.position < self._known_bound:
                    WAKE_SECONDS.observe(0)
                    self._pass_on(key, wake.position)
                elif len(self._pending) < KEYS_PENDING_MAX or key in self._pending:
                    position, since = self._pending.get(key, (wake.position, self._clock.monotonic()))
                    self._pending[key] = (max(position, wake.position), since)
                else:
                    WAKES_LOST.inc()
            if self._pending:
                self._has_pending.set()

    async def _pass_on_pending(self) -> None:
        patience_seconds = PATIENCE_SECONDS_MIN
        while True:
            await self._has_pending.wait()
            try:
                passed_on = self._pass_on_below(await self.bound())
            except DatabaseError:
                # Whoever is woken now would find no database either.
                await self._clock.sleep(TICK_SECONDS)
                continue
            WAKE_AGE.set(self._oldest_pending_seconds())
            if not self._pending:
                self._has_pending.clear()
                patience_seconds = PATIENCE_SECONDS_MIN
                continue
            if passed_on:
                patience_seconds = PATIENCE_SECONDS_MIN
            await self._clock.sleep(patience_seconds)
            patience_seconds = min(2 * patience_seconds, PATIENCE_SECONDS_MAX)

    def _pass_on_below(self, bound: int) -> bool:
        now = self._clock.monotonic()
        ready = [(key, position, since) for key, (position, since) in self._pending.items() if position < bound]
        for key, position, since in ready:
            del self._pending[key]
            WAKE_SECONDS.observe(now - since)
            self._pass_on(key, position)
        return bool(ready)

    def _oldest_pending_seconds(self) -> float:
        since = min((since for _, since in self._pending.values()), default=None)
        return 0.0 if since is None else self._clock.monotonic() - since

    def _pass_on(self, key: str, position: int) -> None:
        self._passed_on[key] = max(position, self._passed_on.get(key, -1))
        for name in (key, kind_of(key)):
            for waiter in self._waiters.get(name, ()):
                waiter.notify(position)

    async def _tick(self) -> None:
        while True:
            self._look_due.set()
            await self._clock.sleep(TICK_SECONDS)

    async def _renew_interests(self) -> None:
        while True:
            await self._clock.sleep(INTEREST_SECONDS)
            self._told.clear()
            self._listen_for(self._waiters.keys())

    async def _look(self) -> None:
        """Wakes, whenever that is due, for what was written since the last time."""
        while True:
            await self._look_due.wait()
            self._look_due.clear()
            try:
                upto = await self.bound()
                await self._pass_on_rows(upto)
                self._ticked_upto = upto
                self._passed_on = {key: position for key, position in self._passed_on.items() if position >= upto}
            except DatabaseError as error:
                logger.warning("The tick failed and will be repeated: %s", error)
            await self._clock.sleep(LOOK_SECONDS_MIN)

    async def _pass_on_rows(self, upto: int) -> None:
        """Wakes for all rows since the last tick whose wake has not come."""
        since = self._ticked_upto
        if since is None or since >= upto:
            return
        try:
            async with self._db.connection() as conn:
                for stream in self._streams:
                    rows = await conn.fetch(stream.statement, since, upto, KEYS_PER_TICK_MAX)
                    if len(rows) >= KEYS_PER_TICK_MAX:
                        logger.warning("Very much is new in %s: all are woken", stream.name)
                        self._notify_all(upto)
                        return
                    for row in rows:
                        if self._passed_on.get(row["key"], -1) < row["position"]:
                            self._pass_on(row["key"], row["position"])
        except TimeLimitReached:
            # Reading what happened since the last tick takes too long, and would take longer with each attempt.
            self._notify_all(upto)

    def _notify_all(self, position: int) -> None:
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.notify(position)
