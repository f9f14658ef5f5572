"""Registration by those who know the server's shared secret, as Synapse's Admin API has it.

https://element-hq.github.io/synapse/latest/admin_api/register_api.html
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from homeserver.config.values import Secret
from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, Unknown
from homeserver.services.accounts.administration import Administration, NewAccount
from homeserver.services.accounts.opaque_tokens import new_token, token_hash
from homeserver.services.accounts.sessions import IssuedTokens, Sessions, SessionWish
from storage import login_tokens
from storage.database import Database

NONCE_LIFETIME_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class SharedSecretRequest:
    """An account that somebody wants made, and the proof of knowing the secret."""

    nonce: str
    mac: str
    username: str
    password: str = field(repr=False)
    displayname: str | None
    is_admin: bool
    user_type: str | None
    wish: SessionWish


class SharedSecretRegistration:
    """Makes accounts for those who know the secret."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        shared_secret: Secret | None,
        administration: Administration,
        sessions: Sessions,
    ) -> None:
        self._db = db
        self._clock = clock
        self._shared_secret = shared_secret
        self._administration = administration
        self._sessions = sessions

    async def new_nonce(self) -> str:
        """A number for one attempt within a minute.

        Raises:
            Unknown: this server has no shared secret.
        """
        self._secret()
        nonce, now_ms = new_token(), self._clock.now_ms()
        async with self._db.connection() as conn:
            await login_tokens.insert_nonce(
                conn, token_hash(nonce), expires_ts=now_ms + NONCE_LIFETIME_MS, now_ms=now_ms
            )
        return nonce

    async def register(self, request: SharedSecretRequest) -> IssuedTokens:
        """Makes an account and logs it in. An attempt uses its nonce up, whether it succeeds or not.

        Raises:
            Unknown: the nonce is not known, or this server has no shared secret.
            Forbidden: the proof is wrong.
            InvalidUsername, UserInUse, InvalidParam: the account cannot be made like this.
        """
        secret = self._secret()
        async with self._db.connection() as conn:
            known = await login_tokens.take_nonce(conn, token_hash(request.nonce), now_ms=self._clock.now_ms())
        if not known:
            raise Unknown("The nonce is not known, or has expired")
        if not hmac.compare_digest(_mac(secret, request), request.mac.lower().encode(errors="replace")):
            raise Forbidden("The HMAC is wrong")
        user_id = await self._administration.create_user(
            NewAccount(
                username=request.username,
                password=request.password,
                displayname=request.displayname,
                is_admin=request.is_admin,
                user_type=request.user_type,
            )
        )
        return await self._sessions.open(user_id, request.wish)

    def _secret(self) -> Secret:
        if self._shared_secret is None:
            raise Unknown("Registration by shared secret is not enabled")
        return self._shared_secret


def _mac(secret: Secret, request: SharedSecretRequest) -> bytes:
    """The proof that is right for a request, in hexadecimal."""
    parts = [request.nonce, request.username, request.password, "admin" if request.is_admin else "notadmin"]
    if request.user_type is not None:
        parts.append(request.user_type)
    text = "\0".join(parts).encode(errors="surrogatepass")
    return hmac.digest(secret.encode(), text, hashlib.sha1).hex().encode()
