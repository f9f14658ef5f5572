"""Locking and suspending accounts, and looking at who uses one.

https://spec.matrix.org/v1.19/client-server-api/#account-moderation
"""

from homeserver.core.errors import Forbidden, InvalidParam, NotFound
from homeserver.core.ids import ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.services.accounts.session_lookup import SessionLookup
from storage import devices, users
from storage.database import Database
from storage.devices import DeviceRow
from storage.users import UserRow


class Moderation:
    """What administrators do about accounts; a locked account can do nothing, a suspended one only read."""

    def __init__(self, *, db: Database, server_name: ServerName, lookup: SessionLookup) -> None:
        self._db = db
        self._server_name = server_name
        self._lookup = lookup

    async def is_locked(self, requester: Requester, user_id: UserId) -> bool:
        """Whether an account is locked; raises as `lock`."""
        return (await self._get(requester, user_id)).locked

    async def is_suspended(self, requester: Requester, user_id: UserId) -> bool:
        """Whether an account is suspended; raises as `lock`."""
        return (await self._get(requester, user_id)).suspended

    async def lock(self, requester: Requester, user_id: UserId, *, locked: bool) -> None:
        """Locks an account, or unlocks it; its sessions stay.

        Raises:
            Forbidden: the requester is no administrator, or the account is its own or another administrator's.
            InvalidParam: the user is of another server.
            NotFound: there is no such account.
        """
        self._check_requester(requester, user_id)
        async with self._db.transaction() as conn:
            _target(await users.find_user_locked(conn, user_id))
            await users.update_locked(conn, user_id, locked=locked)
        self._lookup.forget()

    async def suspend(self, requester: Requester, user_id: UserId, *, suspended: bool) -> None:
        """Suspends an account, or ends that; raises as `lock`."""
        self._check_requester(requester, user_id)
        async with self._db.transaction() as conn:
            _target(await users.find_user_locked(conn, user_id))
            await users.update_suspended(conn, user_id, suspended=suspended)
        self._lookup.forget()

    async def whois(self, requester: Requester, user_id: UserId) -> list[DeviceRow]:
        """The devices of a user and where each was last seen, for the user itself and for administrators.

        Raises:
            Forbidden: the requester is neither.
            InvalidParam: the user is of another server.
            NotFound: there is no such account.
        """
        if not requester.is_admin and requester.user_id != user_id:
            raise Forbidden("Only administrators may ask about others")
        self._check_local(user_id)
        async with self._db.connection() as conn:
            if await users.find_user(conn, user_id) is None:
                raise NotFound("There is no such account")
            return await devices.list_devices(conn, [user_id])

    async def _get(self, requester: Requester, user_id: UserId) -> UserRow:
        self._check_requester(requester, user_id)
        async with self._db.connection() as conn:
            return _target(await users.find_user(conn, user_id))

    def _check_requester(self, requester: Requester, user_id: UserId) -> None:
        """Before anything is looked up, so that nobody learns which accounts there are."""
        if not requester.is_admin:
            raise Forbidden("Only administrators may do this")
        self._check_local(user_id)

    def _check_local(self, user_id: UserId) -> None:
        if user_id.server_name != self._server_name:
            raise InvalidParam("This user is not of this server")


def _target(user: UserRow | None) -> UserRow:
    if user is None or user.deactivated:
        raise NotFound("There is no such account")
    if user.is_admin:
        raise Forbidden("Administrators do not moderate themselves or each other")
    return user
