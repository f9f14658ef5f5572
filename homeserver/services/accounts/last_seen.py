"""Where devices were last seen, written down together and, for each device, only every few minutes.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices
"""

import logging
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.ids import DeviceId, UserId
from storage import devices
from storage.bounded_cache import BoundedCache
from storage.database import Database
from storage.devices import DeviceSeen
from storage.errors import DatabaseError

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 5.0
_PENDING_MAX: Final = 10_000
_KNOWN_MAX: Final = 100_000
_USER_AGENT_CHARACTERS_MAX: Final = 300


class LastSeen:
    """Collects sightings of devices; `run()` writes them."""

    def __init__(self, *, db: Database, clock: Clock, interval_ms: int) -> None:
        """Takes its means; `interval_ms` is the least time between two writes for one device."""
        self._db = db
        self._clock = clock
        self._interval_ms = interval_ms
        self._pending: dict[tuple[str, str], DeviceSeen] = {}
        self._noted_ts: BoundedCache[tuple[str, str], int] = BoundedCache("last_seen", weight_max=_KNOWN_MAX)

    def note(self, seen: DeviceSeen) -> None:
        """Notes that a device has made a request. More devices at once than can be remembered are passed over."""
        key = (seen.user_id, seen.device_id)
        noted_ts = self._noted_ts.get(key)
        due = noted_ts is None or seen.ts - noted_ts >= self._interval_ms
        if due and len(self._pending) < _PENDING_MAX:
            self._noted_ts.put(key, seen.ts)
            self._pending[key] = seen

    async def flush(self) -> None:
        """Writes down what was noted."""
        pending, self._pending = self._pending, {}
        if pending:
            async with self._db.connection() as conn:
                await devices.update_last_seen(conn, list(pending.values()))

    async def run(self) -> None:
        """Writes every few seconds until it is cancelled."""
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except DatabaseError as error:
                logger.warning("sightings of devices were not written: %s", type(error).__name__)


def seen_now(*, user_id: UserId, device_id: DeviceId, ts: int, ip: str, user_agent: str) -> DeviceSeen:
    """A sighting, with what came from outside cut to what can be stored."""
    return DeviceSeen(
        user_id=user_id,
        device_id=device_id,
        ts=ts,
        ip=ip[:64].replace("\0", ""),
        user_agent=user_agent[:_USER_AGENT_CHARACTERS_MAX].replace("\0", ""),
    )
