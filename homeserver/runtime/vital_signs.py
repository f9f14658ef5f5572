"""How a worker is: its processor, its memory, its event loop, its connections, its leases and its caches, as metrics.

The library measures processes by itself, but not where several workers answer as one; these are told by each of them.
"""

import logging
import os
import resource
from pathlib import Path
from typing import Final

from prometheus_client import Gauge, Histogram

from homeserver.core.clock import Clock
from storage.cache_budget import PROCESS_BUDGET
from storage.database import Database
from storage.errors import DatabaseError
from storage.leases import PROCESS, count_leases_of_process

logger = logging.getLogger(__name__)

BEAT_SECONDS: Final = 1.0
"""How often the event loop is watched."""
PUBLISHED_EVERY_BEATS: Final = 5
LEASES_COUNTED_EVERY_BEATS: Final = 30

LOOP_LAG_SECONDS: Final = Histogram(
    "heliograph_event_loop_lag_seconds",
    "How late the event loop came to a task whose time had come, looked at each second.",
    buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 1, 5),
)
CPU_SECONDS: Final = Gauge(
    "heliograph_process_cpu_seconds",
    "Processor time that a worker has used since it started.",
    multiprocess_mode="liveall",
)
RESIDENT_BYTES: Final = Gauge(
    "heliograph_process_resident_bytes", "Memory that a worker takes now.", multiprocess_mode="liveall"
)
OPEN_FILES: Final = Gauge(
    "heliograph_process_open_files", "Files and connections that a worker has open.", multiprocess_mode="liveall"
)
POOL_CONNECTIONS: Final = Gauge(
    "heliograph_database_pool_connections", "Connections to the database.", ["state"], multiprocess_mode="livesum"
)
LEASES_HELD: Final = Gauge(
    "heliograph_leases_held", "Leases that a worker holds: its share of the work.", multiprocess_mode="liveall"
)

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_STATM: Final = Path("/proc/self/statm")
_FILES: Final = Path("/proc/self/fd")


class VitalSigns:
    """Measures the worker that it runs in."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._beats = 0

    async def run(self) -> None:
        """Measures until it is cancelled."""
        while True:
            await self.beat()

    async def beat(self) -> None:
        """Waits for a moment, and measures what is due."""
        due = self._clock.monotonic() + BEAT_SECONDS
        await self._clock.sleep(BEAT_SECONDS)
        LOOP_LAG_SECONDS.observe(max(0.0, self._clock.monotonic() - due))
        if self._beats % PUBLISHED_EVERY_BEATS == 0:
            publish(self._db)
        if self._beats % LEASES_COUNTED_EVERY_BEATS == 0:
            try:
                async with self._db.connection() as conn:
                    LEASES_HELD.set(await count_leases_of_process(conn, PROCESS))
            except DatabaseError as error:
                logger.debug("Leases were not counted: %s", error)
        self._beats += 1


def publish(db: Database) -> None:
    """Brings up to date what takes no waiting."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    CPU_SECONDS.set(usage.ru_utime + usage.ru_stime)
    if _STATM.exists():  # Linux
        RESIDENT_BYTES.set(int(_STATM.read_text().split()[1]) * _PAGE_BYTES)
        OPEN_FILES.set(sum(1 for _ in _FILES.iterdir()))
    pool = db.pool_size()
    POOL_CONNECTIONS.labels("in_use").set(pool.in_use)
    POOL_CONNECTIONS.labels("idle").set(pool.open - pool.in_use)
    PROCESS_BUDGET.publish()
