"""Tokens by which a third party may learn from this server who somebody is, and nothing else.

https://spec.matrix.org/v1.19/client-server-api/#openid
"""

from dataclasses import dataclass, field
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, UnknownToken
from homeserver.core.ids import ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.services.accounts.opaque_tokens import OPENID_TOKEN_PREFIX, new_token, token_hash
from storage import openid_tokens
from storage.database import Database

LIFETIME_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class OpenIdToken:
    """A token, who verifies it, and for how long."""

    access_token: str = field(repr=False)
    server_name: ServerName
    expires_in_seconds: int


class OpenId:
    """Makes and verifies OpenID tokens."""

    def __init__(self, *, db: Database, clock: Clock, server_name: ServerName) -> None:
        self._db = db
        self._clock = clock
        self._server_name = server_name

    async def request_token(self, requester: Requester, user_id: UserId) -> OpenIdToken:
        """Makes a token for the asking user.

        Raises:
            Forbidden: it would name another user.
        """
        if requester.user_id != user_id:
            raise Forbidden("Users ask only for tokens of their own")
        token, now_ms = new_token(OPENID_TOKEN_PREFIX), self._clock.now_ms()
        async with self._db.connection() as conn:
            await openid_tokens.insert_openid_token(
                conn,
                token_hash(token),
                user_id=user_id,
                expires_ts=now_ms + LIFETIME_SECONDS * 1000,
                now_ms=now_ms,
            )
        return OpenIdToken(access_token=token, server_name=self._server_name, expires_in_seconds=LIFETIME_SECONDS)

    async def user_of(self, access_token: str) -> UserId:
        """Whom a token names, for the server-server API.

        Raises:
            UnknownToken: it is not known, or has expired.
        """
        async with self._db.connection() as conn:
            user_id = await openid_tokens.find_openid_user(conn, token_hash(access_token), now_ms=self._clock.now_ms())
        if user_id is None:
            raise UnknownToken("The OpenID token is unknown or has expired")
        return user_id
