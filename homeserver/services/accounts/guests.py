"""Guests: accounts without a password and with few rights, which can be made ordinary ones.

https://spec.matrix.org/v1.19/client-server-api/#guest-access
"""

from dataclasses import replace

from homeserver.config.schema import RegistrationConfig
from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, InvalidUsername
from homeserver.core.ids import ServerName, UserId
from homeserver.services.accounts.authentication import Authentication
from homeserver.services.accounts.devices import Devices
from homeserver.services.accounts.sessions import IssuedTokens, Sessions, SessionWish
from storage import users
from storage.database import Connection, Database


class Guests:
    """Makes guests, and makes them users."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        server_name: ServerName,
        config: RegistrationConfig,
        authentication: Authentication,
        sessions: Sessions,
        devices: Devices,
    ) -> None:
        self._db = db
        self._clock = clock
        self._server_name = server_name
        self._config = config
        self._authentication = authentication
        self._sessions = sessions
        self._devices = devices

    async def register(self, wish: SessionWish) -> IssuedTokens:
        """Makes a guest, whose device the server chooses.

        Raises:
            Forbidden: this server has no guests.
        """
        if not self._config.guest_access:
            raise Forbidden("This server does not take guests")
        now_ms = self._clock.now_ms()
        async with self._db.transaction() as conn:
            number = await users.next_guest_number(conn)
            user_id = UserId.make(str(number), self._server_name)
            if not await users.insert_user(conn, user_id, password_hash=None, created_ts=now_ms, is_guest=True):
                raise Forbidden("There is no free name for a guest")
        return await self._sessions.open(user_id, replace(wish, device_id=None, refreshable=False))

    async def check_upgrade(
        self, guest_access_token: str, user_id: UserId | None, *, ip: str, user_agent: str
    ) -> UserId:
        """The guest whose account somebody wants to keep under its name.

        Raises:
            UnknownToken: the token is not known.
            Forbidden: it is no guest's.
            InvalidUsername: the name is another one.
        """
        guest = await self._authentication.authenticate(guest_access_token, ip=ip, user_agent=user_agent)
        if not guest.is_guest:
            raise Forbidden("This is not the access token of a guest")
        if user_id != guest.user_id:
            raise InvalidUsername("A guest keeps its name when it registers")
        return guest.user_id

    async def upgrade(
        self, conn: Connection, user_id: UserId, *, password_hash: str, accepted_terms: str | None
    ) -> None:
        """Makes a guest an ordinary user.

        Raises:
            Forbidden: it is no guest any more.
        """
        if not await users.upgrade_guest(conn, user_id, password_hash=password_hash, accepted_terms=accepted_terms):
            raise Forbidden("This is not a guest's account any more")

    async def end_sessions(self, user_id: UserId) -> None:
        """Ends the sessions that somebody had as a guest."""
        await self._devices.delete_all(user_id)
