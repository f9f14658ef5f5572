"""Looks after the keys that sign access tokens: a new one each year, and none that nothing needs any more.

A key is needed as long as there are tokens from its time: those of sessions that never expire keep theirs.
"""

import logging
import secrets
from typing import Final

from homeserver.core.clock import Clock
from homeserver.services.accounts.token_signer import KEYS_FRESH_SECONDS, TokenSigner
from storage import token_keys
from storage.database import Database
from storage.errors import DatabaseError
from storage.leases import acquire_leases

logger = logging.getLogger(__name__)

KEY_MS_MAX: Final = 365 * 24 * 3600 * 1000
# For so long after a rotation tokens may still be signed with the older key: by processes that have not heard of it,
# and whose clocks differ.
OVERLAP_MS: Final = int(KEYS_FRESH_SECONDS * 1000) + 600_000
_INTERVAL_SECONDS: Final = 3600.0
_LEASE: Final = "token_key_upkeep"


class TokenKeyUpkeep:
    """Looks every hour, in one process at a time."""

    def __init__(self, *, db: Database, clock: Clock, signer: TokenSigner) -> None:
        self._db = db
        self._clock = clock
        self._signer = signer
        self._holder = secrets.token_urlsafe(9)

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            try:
                async with self._db.connection() as conn:
                    duration_ms = int(_INTERVAL_SECONDS * 1000)
                    is_ours = await acquire_leases(conn, [_LEASE], holder=self._holder, duration_ms=duration_ms)
                if is_ours:
                    await self.look()
            except (DatabaseError, TimeoutError) as error:
                logger.warning("The keys of access tokens were not looked after: %s", type(error).__name__)
            await self._clock.sleep(_INTERVAL_SECONDS)

    async def look(self) -> None:
        """Makes a new key if the newest has served its time, and removes those that nothing needs."""
        now = self._clock.now_ms()
        if await self._signer.newest_key_ts() <= now - KEY_MS_MAX:
            await self._signer.rotate()
        async with self._db.connection() as conn:
            gone = await token_keys.delete_unneeded_keys(conn, now_ms=now, overlap_ms=OVERLAP_MS)
        for key_id in gone:
            logger.info("Removed the key %s, of which no token is left", key_id)
