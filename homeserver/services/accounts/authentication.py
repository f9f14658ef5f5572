"""From an access token to who asks.

https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
"""

import hmac

from homeserver.core.clock import Clock
from homeserver.core.errors import UnknownToken, UserLocked
from homeserver.core.requester import Requester
from homeserver.services.accounts.last_seen import LastSeen, seen_now
from homeserver.services.accounts.opaque_tokens import token_hash
from homeserver.services.accounts.session_lookup import SessionLookup
from homeserver.services.accounts.token_signer import TokenSigner
from storage import sessions
from storage.database import Database
from storage.sessions import SessionRow


class Authentication:
    """Authenticates clients."""

    def __init__(
        self, *, db: Database, clock: Clock, signer: TokenSigner, lookup: SessionLookup, last_seen: LastSeen
    ) -> None:
        self._db = db
        self._clock = clock
        self._signer = signer
        self._lookup = lookup
        self._last_seen = last_seen

    async def authenticate(
        self, access_token: str, *, ip: str, user_agent: str, locked_allowed: bool = False
    ) -> Requester:
        """Finds out who asks, and notes that their device was seen.

        Args:
            access_token: as the client sent it.
            ip: where the request comes from.
            user_agent: what the client says it is.
            locked_allowed: the endpoint serves locked accounts too.

        Raises:
            UnknownToken: the token is not known; with `soft_logout` if it is only the token that has had its time.
            UserLocked: the account is locked.
        """
        claims = await self._signer.verify(access_token)
        session = await self._lookup.find((claims.session_id, claims.pair_id))
        if session is None or session.deactivated:
            raise UnknownToken
        now_ms = self._clock.now_ms()
        _check_token(session, token_hash(claims.secret), now_ms)
        if session.locked and not locked_allowed:
            raise UserLocked
        if not session.used:
            await self._note_first_use(claims.pair_id, now_ms)
        if session.device_id is not None:
            self._last_seen.note(
                seen_now(user_id=session.user_id, device_id=session.device_id, ts=now_ms, ip=ip, user_agent=user_agent)
            )
        return Requester(
            user_id=session.user_id,
            device_id=session.device_id,
            session_id=session.session_id,
            is_guest=session.is_guest,
            is_admin=session.is_admin,
            is_suspended=session.suspended,
        )

    async def _note_first_use(self, pair_id: int, now_ms: int) -> None:
        """The client has its new tokens: the refresh token that they were exchanged for ends."""
        async with self._db.connection() as conn:
            await sessions.mark_used(conn, pair_id, now_ms=now_ms)
        self._lookup.forget()


def _check_token(session: SessionRow, secret_hash: bytes, now_ms: int) -> None:
    if session.access_hash is None:
        raise UnknownToken("The access token has been replaced", soft_logout=True)
    if not hmac.compare_digest(session.access_hash, secret_hash):
        raise UnknownToken
    if session.access_expires_ts is not None and session.access_expires_ts <= now_ms:
        raise UnknownToken("The access token has expired", soft_logout=True)
