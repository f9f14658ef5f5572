"""Collects states of rooms that nothing refers to any more: of joins that were given up, of history that was fetched
twice, of a room whose members came later.

They are found by a walk over all states, a bounded number of them at a time. One that is found is removed hours later,
if nobody has come back to it: whoever finds out a state may need it some time before an event refers to it.
"""

import logging
from typing import Final

from prometheus_client import Counter

from homeserver.core.clock import Clock
from storage.database import Database
from storage.errors import DatabaseError
from storage.leases import acquire_leases, new_holder
from storage.state_collection import advance_walk, collect, continue_walk, list_due, mark_unreferenced

logger = logging.getLogger(__name__)

AGE_MS_MIN: Final = 6 * 3600 * 1000
"""How long after a state was found without a reference it is removed."""
WALK_INTERVAL_MS: Final = 6 * 3600 * 1000
"""How long after the beginning of a walk the next one begins, if it has ended."""
_INTERVAL_SECONDS: Final = 600.0
_PAGE_SIZE: Final = 500
_PAGES_MAX: Final = 200
_PAUSE_SECONDS: Final = 0.05
_BATCH_MAX: Final = 1_000
_LEASE: Final = "state_collection"

STATES: Final = Counter(
    "heliograph_collected_states",
    "States that were found without a reference, were removed, or were in use after all when they were to be removed.",
    ["outcome"],
)
_FOUND, _REMOVED, _SPARED = (STATES.labels(outcome) for outcome in ("found", "removed", "spared"))


class StateCollection:
    """Walks and removes every ten minutes, in one process at a time."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._holder = new_holder()

    async def run(self) -> None:
        """Collects until it is cancelled."""
        while True:
            try:
                async with self._db.connection() as conn:
                    duration_ms = int(_INTERVAL_SECONDS * 1000)
                    is_ours = await acquire_leases(conn, [_LEASE], holder=self._holder, duration_ms=duration_ms)
                if is_ours:
                    await self.walk()
                    await self.collect()
            except DatabaseError as error:
                logger.warning("States without a reference were not collected: %s", error)
            await self._clock.sleep(_INTERVAL_SECONDS)

    async def walk(
        self, *, interval_ms: int = WALK_INTERVAL_MS, page_size: int = _PAGE_SIZE, pages_max: int = _PAGES_MAX
    ) -> int:
        """Goes on with the walk, up to its end if that is not too far away; returns how many states were found.

        Args:
            interval_ms: a new walk begins so long after the beginning of the last, if that has ended.
            page_size: how many states are looked at by one statement.
            pages_max: after how many statements it pauses.
        """
        found = 0
        async with self._db.connection() as conn:
            below = await continue_walk(conn, interval_ms=interval_ms)
        for _ in range(pages_max):
            if not below:
                break
            async with self._db.connection() as conn:
                lowest, marked = await mark_unreferenced(conn, below_state_id=below, limit=page_size)
                if not marked:
                    # Otherwise the page is looked at again: what was marked may have been the last to refer to others.
                    await advance_walk(conn, lowest)
                    below = lowest
            found += marked
            await self._clock.sleep(_PAUSE_SECONDS)
        _FOUND.inc(found)
        return found

    async def collect(self, *, age_ms: int = AGE_MS_MIN) -> int:
        """Removes states that were found `age_ms` ago, if nothing refers to them; returns how many."""
        removed, count = 0, -1
        while count:
            count = 0
            async with self._db.connection() as conn:
                due = await list_due(conn, age_ms=age_ms, limit=_BATCH_MAX)
            for room_nid, state_ids in due.items():
                async with self._db.transaction() as conn:
                    collected = await collect(conn, room_nid, state_ids, age_ms=age_ms)
                _REMOVED.inc(collected.removed)
                _SPARED.inc(collected.spared)
                removed += collected.removed
                count += collected.removed + collected.spared
        return removed
