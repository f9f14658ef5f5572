"""The tokens that allow to register, as administrators keep them.

https://element-hq.github.io/synapse/latest/usage/administration/admin_api/registration_tokens.html
"""

import re
import secrets
from collections.abc import Callable
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.errors import InvalidParam, NotFound
from storage import registration_tokens
from storage.database import Database
from storage.registration_tokens import RegistrationTokenRow

TOKEN_LENGTH: Final = 16
TOKEN_LENGTH_MAX: Final = 64
USES_MAX: Final = 2**31 - 1
_TOKEN: Final = re.compile(rf"[A-Za-z0-9._~-]{{1,{TOKEN_LENGTH_MAX}}}", re.ASCII)
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class RegistrationTokens:
    """Makes, shows, changes and removes registration tokens; its caller has checked that an administrator asks."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def list_tokens(self, *, valid: bool | None = None) -> list[RegistrationTokenRow]:
        """All tokens, or only those that can (`valid`) or cannot be used."""
        now_ms = self._clock.now_ms()
        async with self._db.connection() as conn:
            rows = await registration_tokens.list_registration_tokens(conn, now_ms=now_ms)
        return [row for row in rows if valid is None or row.usable(now_ms) == valid]

    async def get(self, token: str) -> RegistrationTokenRow:
        """One token.

        Raises:
            NotFound: there is no such token.
        """
        async with self._db.connection() as conn:
            row = await registration_tokens.find_registration_token(conn, token, now_ms=self._clock.now_ms())
        if row is None:
            raise NotFound("There is no such registration token")
        return row

    async def create(
        self, token: str | None, *, length: int = TOKEN_LENGTH, uses_allowed: int | None, expires_ts: int | None
    ) -> RegistrationTokenRow:
        """Makes a token, of so many letters if none is given.

        Raises:
            InvalidParam: there is such a token, or something about it is wrong.
        """
        if not 1 <= length <= TOKEN_LENGTH_MAX:
            raise InvalidParam(f"A token has 1 to {TOKEN_LENGTH_MAX} characters")
        if token is None:
            token = "".join(secrets.choice(_LETTERS) for _ in range(length))
        if not _TOKEN.fullmatch(token):
            raise InvalidParam(f"A token has 1 to {TOKEN_LENGTH_MAX} of A-Z, a-z, 0-9 and . _ ~ -")
        self._check(uses_allowed, expires_ts)
        async with self._db.connection() as conn:
            made = await registration_tokens.insert_registration_token(
                conn, token, uses_allowed=uses_allowed, expires_ts=expires_ts
            )
        if not made:
            raise InvalidParam("There is such a registration token already")
        return await self.get(token)

    async def change(
        self, token: str, change: Callable[[RegistrationTokenRow], tuple[int | None, int | None]]
    ) -> RegistrationTokenRow:
        """Changes how often a token may be used and when it expires, which `change` makes of the token as it is.

        Raises:
            NotFound: there is no such token.
            InvalidParam: the new values are wrong.
        """
        uses_allowed, expires_ts = change(await self.get(token))
        self._check(uses_allowed, expires_ts)
        async with self._db.connection() as conn:
            await registration_tokens.update_registration_token(
                conn, token, uses_allowed=uses_allowed, expires_ts=expires_ts
            )
        return await self.get(token)

    async def delete(self, token: str) -> None:
        """Removes a token.

        Raises:
            NotFound: there is no such token.
        """
        async with self._db.connection() as conn:
            if not await registration_tokens.delete_registration_token(conn, token):
                raise NotFound("There is no such registration token")

    def _check(self, uses_allowed: int | None, expires_ts: int | None) -> None:
        if uses_allowed is not None and not 0 <= uses_allowed <= USES_MAX:
            raise InvalidParam("uses_allowed must not be negative, or huge")
        if expires_ts is not None and expires_ts < self._clock.now_ms():
            raise InvalidParam("expiry_time must not be in the past")
