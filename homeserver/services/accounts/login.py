"""Logging in, by password or by a token that an existing session has made.

https://spec.matrix.org/v1.19/client-server-api/#legacy-login
"""

from dataclasses import dataclass, field
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden
from homeserver.core.ids import UserId
from homeserver.services.accounts.credentials import Credentials
from homeserver.services.accounts.opaque_tokens import LOGIN_TOKEN_PREFIX, new_token, token_hash
from homeserver.services.accounts.sessions import IssuedTokens, Sessions, SessionWish
from storage import login_tokens
from storage.database import Database

LOGIN_TOKEN_LIFETIME_MS: Final = 120_000


@dataclass(frozen=True, slots=True)
class LoginToken:
    """A token for one login."""

    token: str = field(repr=False)
    expires_in_ms: int


class Login:
    """The ways to log in."""

    def __init__(self, *, db: Database, clock: Clock, credentials: Credentials, sessions: Sessions) -> None:
        self._db = db
        self._clock = clock
        self._credentials = credentials
        self._sessions = sessions

    @property
    def passwords_enabled(self) -> bool:
        """Whether users can log in with a password."""
        return self._credentials.enabled

    async def with_password(self, user: str, password: str, wish: SessionWish) -> IssuedTokens:
        """Logs in with a user id or local part and its password.

        Raises:
            Forbidden: they open no account.
            UserDeactivated, UserLocked: the account may not have sessions.
            LimitExceeded: there were too many wrong passwords.
        """
        row = await self._credentials.check(user, password, ip=wish.ip)
        return await self._sessions.open(row.user_id, wish)

    async def with_token(self, token: str, wish: SessionWish) -> IssuedTokens:
        """Logs in with a login token, which is thereby used up.

        Raises:
            Forbidden: the token is not known, used up, or has expired.
            UserDeactivated, UserLocked: the account may not have sessions.
        """
        async with self._db.connection() as conn:
            user_id = await login_tokens.take_login_token(conn, token_hash(token), now_ms=self._clock.now_ms())
        if user_id is None:
            raise Forbidden("The login token is not valid")
        return await self._sessions.open(user_id, wish)

    async def make_token(self, user_id: UserId) -> LoginToken:
        """Makes a token with which another device can log in as this user; the caller has asked for consent."""
        token = new_token(LOGIN_TOKEN_PREFIX)
        now_ms = self._clock.now_ms()
        async with self._db.connection() as conn:
            await login_tokens.insert_login_token(
                conn, token_hash(token), user_id=user_id, expires_ts=now_ms + LOGIN_TOKEN_LIFETIME_MS, now_ms=now_ms
            )
        return LoginToken(token=token, expires_in_ms=LOGIN_TOKEN_LIFETIME_MS)
