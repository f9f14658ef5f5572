"""Serves other servers: for each one transaction at a time, for many of them side by side.

A server is served on demand, as long as something waits for it. Whoever queues something wakes the worker that serves
the server; what no wake has told of is found by looking every few seconds. A server that does not answer is left to the
back-off, which is shared with all other requests, and is tried again when its pause is over or when it asks something
of this one.
"""

import asyncio
import logging
from typing import Final

from prometheus_client import Gauge

from federation.outbound.backoff import Destinations
from federation.outbound.delivery import Delivery, Outcome
from federation.outbound.destination_wakes import listen_for_shares, wake_destinations, woken_destinations
from federation.outbound.edu_feed import EduFeed
from federation.outbound.pending_edus import PendingEdus
from federation.outbound.shares import Shares
from homeserver.core.clock import Clock
from homeserver.core.ids import ServerName
from storage.bus.base import Bus
from storage.database import Database
from storage.destination_queues import count_queues, delete_old_edus, list_waiting_destinations
from storage.errors import DatabaseError

logger = logging.getLogger(__name__)

SERVED_MAX: Final = 100
"""How many servers are sent to at once: fewer than all requests that may run, for users wait for others."""
FAILING_SERVED_MAX: Final = 20
"""How many of these may be servers that have not answered lately, which take long to fail again."""

LOOK_SECONDS: Final = 10.0
LOOKS_PER_SWEEP: Final = 360
EDUS_KEPT_MS: Final = 30 * 86_400_000
STOP_SECONDS_MAX: Final = 5.0

SERVED: Final = Gauge("heliograph_federation_served", "Servers that are being sent to.", multiprocess_mode="livesum")
FAILING: Final = Gauge("heliograph_federation_failing", "Servers that do not answer.", multiprocess_mode="livemax")
QUEUED_ROOMS: Final = Gauge(
    "heliograph_federation_queued_rooms", "Rooms with events that wait, for each server.", multiprocess_mode="livemax"
)
QUEUED_EDUS: Final = Gauge(
    "heliograph_federation_queued_edus", "EDUs that wait and must arrive.", multiprocess_mode="livemax"
)


class DestinationQueues:
    """The servers that this worker serves. `run()` must be running, and the `Shares` and the `EduFeed`."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        destinations: Destinations,
        shares: Shares,
        delivery: Delivery,
        pending: PendingEdus,
        feed: EduFeed,
    ) -> None:
        """Takes its means, and has itself told of servers that are back, of shares, and of what passes."""
        self._db = db
        self._bus = bus
        self._clock = clock
        self._destinations = destinations
        self._shares = shares
        self._delivery = delivery
        self._pending = pending
        self._feed = feed
        # Servers that wait their turn, in order; those that did not answer wait apart.
        self._ready: dict[ServerName, None] = {}
        self._ready_failing: dict[ServerName, None] = {}
        self._failing: set[ServerName] = set()
        self._served: dict[ServerName, asyncio.Task[None]] = {}
        self._woken_meanwhile: set[ServerName] = set()
        self._news = asyncio.Event()
        self._back: set[ServerName] = set()
        self._has_back = asyncio.Event()
        destinations.on_back(self._note_back)
        pending.on_news(self.wake)
        shares.on_change(self._shares_changed)

    def wake(self, destination: ServerName) -> None:
        """Says that something waits for a server; servers of other workers are passed over."""
        if not self._shares.serves(destination):
            return
        if destination in self._served:
            self._woken_meanwhile.add(destination)
            return
        ready = self._ready_failing if destination in self._failing else self._ready
        ready[destination] = None
        self._news.set()

    async def run(self) -> None:
        """Serves until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._pass_on_back())
            tasks.create_task(self._look_regularly())
            while True:
                await self._news.wait()
                self._news.clear()
                while (destination := self._next()) is not None:
                    self._served[destination] = tasks.create_task(self._serve(destination))
                SERVED.set(len(self._served))

    def _next(self) -> ServerName | None:
        """The server whose turn it is; None if nobody waits or there is no room."""
        if len(self._served) >= SERVED_MAX:
            return None
        failing = len(self._failing & self._served.keys())
        for ready in (self._ready, self._ready_failing):
            if ready and (ready is self._ready or failing < FAILING_SERVED_MAX):
                destination = next(iter(ready))
                del ready[destination]
                return destination
        return None

    async def _serve(self, destination: ServerName) -> None:
        """Sends to a server as long as something waits and it takes it."""
        try:
            while self._shares.serves(destination):
                if not await self._destinations.is_due(destination):
                    self._pending.give_up(destination)
                    break
                if self._pending.is_lagging(destination):
                    await self._feed.recover(destination)
                # Whoever wakes it from now on may have come too late for what is sent now.
                self._woken_meanwhile.discard(destination)
                outcome = await self._delivery.send(destination)
                self._note(destination, outcome)
                if outcome in (Outcome.NOTHING, Outcome.FAILED):
                    break
                if outcome is Outcome.SENT_ALL and destination not in self._woken_meanwhile:
                    break
            await self._feed.note_lags()
        except (DatabaseError, TimeoutError) as error:
            # The next look begins anew.
            logger.warning("Sending to %s stops for now: %s", destination, type(error).__name__)
        except Exception:
            logger.exception("Sending to %s has failed", destination)
        finally:
            del self._served[destination]
            if destination in self._woken_meanwhile:
                self._woken_meanwhile.discard(destination)
                self.wake(destination)
            self._news.set()

    def _note(self, destination: ServerName, outcome: Outcome) -> None:
        if outcome is Outcome.FAILED:
            self._failing.add(destination)
            # What wakes it now finds it failing; it is looked for when its pause is over.
            self._woken_meanwhile.discard(destination)
        elif outcome in (Outcome.SENT, Outcome.SENT_ALL):
            self._failing.discard(destination)

    async def _listen(self) -> None:
        with self._bus.subscribe() as wakes:
            while True:
                wake = await wakes.next()
                for destination in woken_destinations(wake.keys):
                    self.wake(destination)

    def _note_back(self, destination: ServerName) -> None:
        self._back.add(destination)
        self._has_back.set()

    async def _pass_on_back(self) -> None:
        """Tells the worker that serves it of a server that can be reached again: this worker has heard of it."""
        while True:
            await self._has_back.wait()
            self._has_back.clear()
            back, self._back = self._back, set()
            await wake_destinations(self._bus, back)

    async def _look_regularly(self) -> None:
        looks = 0
        while True:
            listen_for_shares(self._bus, self._shares.held)
            try:
                await self.look()
                if looks % LOOKS_PER_SWEEP == 0:
                    async with self._db.connection() as conn:
                        await delete_old_edus(conn, before_ts=self._clock.now_ms() - EDUS_KEPT_MS)
            except DatabaseError as error:
                logger.warning("What waits for other servers could not be read: %s", type(error).__name__)
            looks += 1
            await self._clock.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Wakes the servers of this worker for which something waits and that may be asked.

        Raises:
            DatabaseError: the database is away.
        """
        async with self._db.connection() as conn:
            waiting = await list_waiting_destinations(conn, now_ms=self._clock.now_ms())
            totals = await count_queues(conn)
        FAILING.set(totals.failing)
        QUEUED_ROOMS.set(totals.rows)
        QUEUED_EDUS.set(totals.edus)
        for destination, is_failing in waiting:
            if is_failing and self._shares.serves(destination) and destination not in self._ready:
                self._failing.add(destination)
            self.wake(destination)

    async def _shares_changed(self, held: frozenset[int]) -> None:
        """Stops what goes on for servers of shares that are to be given back; looks what waits in new ones."""
        self._ready = {server: None for server in self._ready if self._shares.serves(server)}
        self._ready_failing = {server: None for server in self._ready_failing if self._shares.serves(server)}
        self._failing = {server for server in self._failing if self._shares.serves(server)}
        stopped = [task for destination, task in self._served.items() if not self._shares.serves(destination)]
        for task in stopped:
            task.cancel()
        if stopped:
            await asyncio.wait(stopped, timeout=STOP_SECONDS_MAX)
        if held:
            listen_for_shares(self._bus, held)
            try:
                await self.look()
            except DatabaseError as error:
                logger.warning("What waits for other servers could not be read: %s", type(error).__name__)
