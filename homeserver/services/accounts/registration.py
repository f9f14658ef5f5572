"""Making one's own account, after passing the stages that the operator asks for.

What a client wants is remembered with the session of its user-interactive authentication, so that its last request
need only name that session; and so is the account that was made, so that a repeated last request answers the same.

https://spec.matrix.org/v1.19/client-server-api/#account-registration
"""

import secrets
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import orjson

from homeserver.config.schema import RegistrationConfig
from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, MissingParam, UserInUse
from homeserver.core.ids import DeviceId, ServerName, UserId
from homeserver.services.accounts.devices import check_display_name, new_device_id
from homeserver.services.accounts.guests import Guests
from homeserver.services.accounts.new_accounts import insert_account
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.sessions import IssuedTokens, Sessions, SessionWish
from homeserver.services.accounts.uia import AuthenticationNeeded, Flow, UiaOperation, UiaSession, UserInteractiveAuth
from homeserver.services.accounts.uia_stages import DUMMY, REGISTRATION_TOKEN, TERMS
from homeserver.services.accounts.usernames import check_open_to_all, new_user_id
from storage import registration_tokens, uia_sessions, users
from storage.bus.base import Bus
from storage.database import Database

OPERATION: Final = "register"
# How long the same account is answered to a client that repeats its last request.
REPEAT_MS: Final = 5 * 60_000
_GENERATED_LETTERS: Final = 12
_GENERATE_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """What a client sends; `given` says whether there is anything beside `auth`."""

    given: bool
    username: str | None
    password: str | None = field(repr=False)
    guest_access_token: str | None = field(repr=False)
    inhibit_login: bool
    wish: SessionWish


@dataclass(frozen=True, slots=True)
class Registered:
    """The account; without tokens if the client wanted none."""

    user_id: UserId
    tokens: IssuedTokens | None


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What is kept of a client's wishes: no password, but its hash, and a MAC by which it is recognised."""

    user_id: str | None = None
    password_hash: str | None = None
    password_mac: str | None = None
    guest_user_id: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    inhibit_login: bool = False
    refreshable: bool = False

    def wish(self, request: SessionWish) -> SessionWish:
        """The session that is wanted, by a client that asks from where it asks now."""
        return replace(
            request,
            device_id=DeviceId(self.device_id) if self.device_id is not None else None,
            initial_device_display_name=self.initial_device_display_name,
            refreshable=self.refreshable,
        )


class Registration:
    """Registers users."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        server_name: ServerName,
        config: RegistrationConfig,
        passwords: Passwords,
        sessions: Sessions,
        guests: Guests,
        uia: UserInteractiveAuth,
    ) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._server_name = server_name
        self._config = config
        self._passwords = passwords
        self._sessions = sessions
        self._guests = guests
        self._uia = uia

    async def check_available(self, username: str) -> None:
        """Checks that a name could be registered now.

        Raises:
            InvalidUsername, UserInUse: it could not.
            Forbidden: nobody can register.
        """
        self._check_enabled()
        user_id = new_user_id(username, self._server_name)
        check_open_to_all(user_id, reserved=self._config.reserved_usernames)
        await self._check_free(user_id)

    async def token_valid(self, token: str) -> bool:
        """Whether a registration token could be used now.

        Raises:
            Forbidden: nobody can register.
        """
        self._check_enabled()
        now_ms = self._clock.now_ms()
        async with self._db.connection() as conn:
            row = await registration_tokens.find_registration_token(conn, token, now_ms=now_ms)
        return row is not None and row.usable(now_ms)

    async def register(self, request: RegistrationRequest, auth: Mapping[str, Any] | None) -> Registered:
        """Makes the account that a client wants, or the one that it was given when it asked the same before.

        Raises:
            AuthenticationNeeded: there are stages to pass.
            Forbidden: nobody can register, or the session does not allow it.
            InvalidUsername, UserInUse: the name cannot be had.
            WeakPassword, InvalidParam, MissingParam: the account cannot be made like this.
        """
        self._check_enabled()
        user_id = self._check(request)
        operation = self._operation(request.wish.ip)
        session = await self._uia.open(operation, auth)
        if session.row.registered_user_id is not None:
            return await self._repeat(session, request, user_id)
        remembered = await self._remember(session, request, user_id)
        if remembered.user_id is not None and remembered.guest_user_id is None:
            await self._check_free(UserId(remembered.user_id))
        session = await self._uia.proceed(operation, session, auth)
        registered_user_id = await self._make(session, remembered)
        return await self._answer(registered_user_id, remembered, request.wish)

    async def pass_in_browser(self, session_id: str, auth: Mapping[str, Any], *, ip: str) -> None:
        """Judges a stage that a user passes on a page of this server instead of in the client.

        Raises:
            Forbidden: there is no such session, or the stage was not passed.
        """
        self._check_enabled()
        operation = self._operation(ip)
        session = await self._uia.find(operation, session_id)
        if session is None:
            raise Forbidden("There is no such session, or it has expired")
        try:
            await self._uia.attempt(operation, session, auth)
        except AuthenticationNeeded as needed:
            raise Forbidden(needed.reason.message if needed.reason is not None else needed.message) from None

    def flows(self) -> tuple[Flow, ...]:
        """The stages of a registration; none if the operator asks for verification without saying by what."""
        stages = (TERMS,) if self._config.terms else ()
        if self._config.requires_token:
            return ((*stages, REGISTRATION_TOKEN),)
        if self._config.require_verification:
            return ()
        return (stages or (DUMMY,),)

    def _check_enabled(self) -> None:
        if not self._config.enabled or not self.flows():
            raise Forbidden("Registration is disabled on this server")

    def _operation(self, ip: str) -> UiaOperation:
        return UiaOperation(
            name=OPERATION, flows=self.flows(), user_id=None, parameters=b"", ip=ip, parameters_may_change=True
        )

    def _check(self, request: RegistrationRequest) -> UserId | None:
        """Checks what can be checked before anything is done; the user id that the name leads to."""
        if request.password is not None:
            self._passwords.check_policy(request.password)
        if request.wish.initial_device_display_name is not None:
            check_display_name(request.wish.initial_device_display_name)
        if request.username is None:
            return None
        user_id = new_user_id(request.username, self._server_name)
        if request.guest_access_token is None:
            check_open_to_all(user_id, reserved=self._config.reserved_usernames)
        return user_id

    async def _check_free(self, user_id: UserId) -> None:
        async with self._db.connection() as conn:
            if await users.list_existing(conn, [user_id]):
                raise UserInUse("This user name is taken")

    async def _remember(self, session: UiaSession, request: RegistrationRequest, user_id: UserId | None) -> _Remembered:
        """Notes what the client wants; one that says nothing wants what it said before."""
        stored = session.row.registration
        before = _Remembered(**orjson.loads(stored)) if stored is not None else _Remembered()
        if not request.given:
            return before
        guest_user_id = None
        if request.guest_access_token is not None:
            guest_user_id = await self._guests.check_upgrade(
                request.guest_access_token, user_id, ip=request.wish.ip, user_agent=request.wish.user_agent
            )
        password_hash, password_mac = before.password_hash, _password_mac(session, request.password)
        if request.password is None:
            password_hash = None
        elif password_hash is None or password_mac != before.password_mac:
            password_hash = await self._passwords.hash(request.password)
        remembered = _Remembered(
            user_id=user_id,
            password_hash=password_hash,
            password_mac=password_mac,
            guest_user_id=guest_user_id,
            # Chosen now, so that a repeated request gets the same device.
            device_id=request.wish.device_id or before.device_id or new_device_id(),
            initial_device_display_name=request.wish.initial_device_display_name,
            inhibit_login=request.inhibit_login,
            refreshable=request.wish.refreshable,
        )
        async with self._db.connection() as conn:
            await uia_sessions.update_registration(conn, session.row.session_hash, _encode(remembered))
        return remembered

    async def _make(self, session: UiaSession, remembered: _Remembered) -> UserId:
        """Makes the account, unless a request at the same time has done so."""
        password_hash = remembered.password_hash
        if password_hash is None:
            raise MissingParam("Missing password")
        if remembered.guest_user_id is not None:
            return await self._make_named(session, UserId(remembered.guest_user_id), password_hash, from_guest=True)
        if remembered.user_id is not None:
            return await self._make_named(session, UserId(remembered.user_id), password_hash)
        for _ in range(_GENERATE_ATTEMPTS):
            try:
                return await self._make_named(session, self._generated_user_id(), password_hash)
            except UserInUse:
                continue
        raise UserInUse("No free user name was found")

    async def _make_named(
        self, session: UiaSession, user_id: UserId, password_hash: str, *, from_guest: bool = False
    ) -> UserId:
        now_ms = self._clock.now_ms()
        session_hash, position = session.row.session_hash, None
        async with self._db.transaction() as conn:
            row = await uia_sessions.find_uia_session_locked(conn, session_hash, now_ms=now_ms)
            if row is None:
                raise Forbidden("The session has expired")
            if row.registered_user_id is not None:
                return row.registered_user_id
            token = row.registration_token
            if token is not None and not await registration_tokens.use_registration_token(conn, token):
                raise Forbidden("The registration token has been used up")
            terms = self._accepted_terms() if TERMS in row.completed else None
            if from_guest:
                await self._guests.upgrade(conn, user_id, password_hash=password_hash, accepted_terms=terms)
            else:
                position = await insert_account(
                    conn, user_id, password_hash=password_hash, created_ts=now_ms, accepted_terms=terms
                )
            await uia_sessions.update_registered(conn, session_hash, user_id=user_id, expires_ts=now_ms + REPEAT_MS)
        if from_guest:
            await self._guests.end_sessions(user_id)
        if position is not None:
            await self._bus.wake({f"user:{user_id}"}, position)
        return user_id

    async def _repeat(self, session: UiaSession, request: RegistrationRequest, user_id: UserId | None) -> Registered:
        """Answers a repeated last request, which must not want another account."""
        registered_user_id = session.row.registered_user_id
        assert registered_user_id is not None, "only called for a session that has registered"
        remembered = _Remembered(**orjson.loads(session.row.registration or "{}"))
        other_user = user_id is not None and user_id != registered_user_id
        other_password = request.password is not None and (
            _password_mac(session, request.password) != remembered.password_mac
        )
        if other_user or other_password:
            raise Forbidden("This session has registered another account")
        return await self._answer(registered_user_id, remembered, request.wish)

    async def _answer(self, user_id: UserId, remembered: _Remembered, wish: SessionWish) -> Registered:
        if remembered.inhibit_login:
            return Registered(user_id=user_id, tokens=None)
        return Registered(user_id=user_id, tokens=await self._sessions.open(user_id, remembered.wish(wish)))

    def _generated_user_id(self) -> UserId:
        letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(_GENERATED_LETTERS))
        return UserId.make(letters, self._server_name)

    def _accepted_terms(self) -> str:
        return orjson.dumps({document.id: document.version for document in self._config.terms}).decode()


def _password_mac(session: UiaSession, password: str | None) -> str | None:
    return session.mac(password.encode(errors="surrogatepass")).hex() if password is not None else None


def _encode(remembered: _Remembered) -> str:
    return orjson.dumps(asdict(remembered)).decode()
