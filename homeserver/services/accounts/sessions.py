"""Sessions: opened by a login or registration, kept up by refreshing tokens, ended by a logout.

Of a pair of tokens that a refresh issues, the first use ends the refresh token that it was exchanged for; until then
that one may be exchanged again, for clients that never received the answer.

https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens
"""

from dataclasses import dataclass, field

from homeserver.config.schema import SessionsConfig
from homeserver.core.clock import Clock
from homeserver.core.errors import UnknownToken, UserDeactivated
from homeserver.core.ids import DeviceId, UserId
from homeserver.core.requester import Requester
from homeserver.services.accounts.devices import Devices, check_display_name, new_device_id
from homeserver.services.accounts.last_seen import seen_now
from homeserver.services.accounts.login_gate import may_login
from homeserver.services.accounts.opaque_tokens import REFRESH_TOKEN_PREFIX, new_token, token_hash
from homeserver.services.accounts.session_lookup import SessionLookup
from homeserver.services.accounts.token_signer import AccessClaims, TokenSigner
from storage import sessions, users
from storage.bus.base import Bus
from storage.database import Database
from storage.sessions import RefreshRow, TokenPair


@dataclass(frozen=True, slots=True)
class SessionWish:
    """What a client asks of the session that it wants opened, and where it asks from.

    Attributes:
        device_id: None lets the server choose.
        initial_device_display_name: for a device that does not exist yet.
        refreshable: the client knows how to use refresh tokens.
    """

    device_id: DeviceId | None = None
    initial_device_display_name: str | None = None
    refreshable: bool = False
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    """A session's new tokens; `device_id` is None only for what an administrator opened."""

    user_id: UserId
    device_id: DeviceId | None
    access_token: str = field(repr=False)
    expires_in_ms: int | None
    refresh_token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class _NewPair:
    """Tokens on their way: what is stored of them, and their secrets."""

    stored: TokenPair
    access_secret: str
    refresh_token: str | None
    lifetime_ms: int | None


class Sessions:
    """Opens, refreshes and ends sessions."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        config: SessionsConfig,
        signer: TokenSigner,
        lookup: SessionLookup,
        devices: Devices,
    ) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._config = config
        self._signer = signer
        self._lookup = lookup
        self._devices = devices

    async def open(self, user_id: UserId, wish: SessionWish) -> IssuedTokens:
        """Opens a session on a device, where it takes the place of any earlier one. The caller has checked who asks.

        Raises:
            UserDeactivated, UserLocked, Forbidden: the account may not have sessions.
            Forbidden: the device id may not be used.
            InvalidParam: the device's name cannot be stored.
        """
        if wish.initial_device_display_name is not None:
            check_display_name(wish.initial_device_display_name)
        now_ms = self._clock.now_ms()
        device_id = wish.device_id or new_device_id()
        seen = seen_now(user_id=user_id, device_id=device_id, ts=now_ms, ip=wish.ip, user_agent=wish.user_agent)
        async with self._db.transaction() as conn:
            may_login(await users.find_user_locked(conn, user_id))
            position, keys = await self._devices.add(conn, seen, display_name=wish.initial_device_display_name)
            await sessions.delete_sessions_of_device(conn, user_id=user_id, device_id=device_id)
            session_id = await sessions.insert_session(conn, user_id=user_id, device_id=device_id, created_ts=now_ms)
            pair = self._new_pair(session_id, refreshable=wish.refreshable)
            pair_id = await sessions.insert_pair(conn, pair.stored)
        self._lookup.forget()
        if keys:
            await self._bus.wake(keys, position)
        return await self._issued(pair, pair_id, user_id, device_id)

    async def open_without_device(self, user_id: UserId, *, lifetime_ms: int | None) -> IssuedTokens:
        """Opens a session in which an administrator acts for a user; the caller has checked that.

        Raises:
            UserDeactivated, UserLocked, Forbidden: the account may not have sessions.
        """
        now_ms = self._clock.now_ms()
        async with self._db.transaction() as conn:
            may_login(await users.find_user_locked(conn, user_id))
            session_id = await sessions.insert_session(conn, user_id=user_id, device_id=None, created_ts=now_ms)
            pair = _pair(session_id, now_ms=now_ms, access_lifetime_ms=lifetime_ms)
            pair_id = await sessions.insert_pair(conn, pair.stored)
        return await self._issued(pair, pair_id, user_id, None)

    async def refresh(self, refresh_token: str) -> IssuedTokens:
        """Exchanges a refresh token for new tokens.

        Raises:
            UnknownToken: it is not known (the session has ended), or has had its time (`soft_logout`: it lives on).
            UserLocked: the account is locked.
        """
        now_ms = self._clock.now_ms()
        async with self._db.transaction() as conn:
            row = await sessions.find_refresh_locked(conn, token_hash(refresh_token))
            if row is None:
                raise UnknownToken("Unknown refresh token")
            self._check_refreshable(row, now_ms)
            try:
                may_login(await users.find_user(conn, row.user_id))
            except UserDeactivated:
                raise UnknownToken("Unknown refresh token") from None
            await sessions.mark_used(conn, row.pair_id, now_ms=now_ms)
            await sessions.delete_spent_pairs(
                conn, row, superseded_before_ts=now_ms - self._config.refresh_token_reuse_ms, now_ms=now_ms
            )
            pair = self._new_pair(row.session_id, refreshable=True, parent_id=row.pair_id)
            pair_id = await sessions.insert_pair(conn, pair.stored)
        self._lookup.forget()
        return await self._issued(pair, pair_id, row.user_id, row.device_id)

    async def end(self, requester: Requester) -> None:
        """Ends the session that asks, and removes its device."""
        if requester.device_id is not None:
            await self._devices.delete(requester.user_id, [requester.device_id])
        elif requester.session_id is not None:
            async with self._db.connection() as conn:
                await sessions.delete_session(conn, requester.session_id)
            self._lookup.forget()

    async def end_all(self, user_id: UserId) -> None:
        """Ends all sessions of a user, and removes all devices."""
        await self._devices.delete_all(user_id)

    def _check_refreshable(self, row: RefreshRow, now_ms: int) -> None:
        if row.refresh_expires_ts is not None and row.refresh_expires_ts <= now_ms:
            raise UnknownToken("The refresh token has expired", soft_logout=True)
        if row.superseded_ts is not None and now_ms >= row.superseded_ts + self._config.refresh_token_reuse_ms:
            raise UnknownToken("The refresh token has been used already", soft_logout=True)

    def _new_pair(self, session_id: int, *, refreshable: bool, parent_id: int | None = None) -> _NewPair:
        config = self._config
        if not refreshable:
            return _pair(session_id, now_ms=self._clock.now_ms(), access_lifetime_ms=config.access_token_lifetime_ms)
        return _pair(
            session_id,
            now_ms=self._clock.now_ms(),
            access_lifetime_ms=config.refreshable_access_token_lifetime_ms,
            refresh_token=new_token(REFRESH_TOKEN_PREFIX),
            refresh_lifetime_ms=config.refresh_token_lifetime_ms,
            parent_id=parent_id,
        )

    async def _issued(self, pair: _NewPair, pair_id: int, user_id: UserId, device_id: DeviceId | None) -> IssuedTokens:
        access_token = await self._signer.sign(
            AccessClaims(session_id=pair.stored.session_id, pair_id=pair_id, secret=pair.access_secret),
            user_id=user_id,
            device_id=device_id,
            issued_ts=pair.stored.created_ts,
            expires_ts=pair.stored.access_expires_ts,
        )
        return IssuedTokens(
            user_id=user_id,
            device_id=device_id,
            access_token=access_token,
            expires_in_ms=pair.lifetime_ms,
            refresh_token=pair.refresh_token,
        )


def _pair(
    session_id: int,
    *,
    now_ms: int,
    access_lifetime_ms: int | None,
    refresh_token: str | None = None,
    refresh_lifetime_ms: int | None = None,
    parent_id: int | None = None,
) -> _NewPair:
    secret = new_token()
    stored = TokenPair(
        session_id=session_id,
        access_hash=token_hash(secret),
        access_expires_ts=None if access_lifetime_ms is None else now_ms + access_lifetime_ms,
        refresh_hash=None if refresh_token is None else token_hash(refresh_token),
        refresh_expires_ts=None if refresh_lifetime_ms is None else now_ms + refresh_lifetime_ms,
        created_ts=now_ms,
        parent_id=parent_id,
    )
    return _NewPair(stored=stored, access_secret=secret, refresh_token=refresh_token, lifetime_ms=access_lifetime_ms)
