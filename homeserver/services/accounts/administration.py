"""What administrators do with accounts, by the Admin API and on the command line.

https://element-hq.github.io/synapse/latest/admin_api/user_admin_api.html
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from homeserver.core.clock import Clock
from homeserver.core.errors import InvalidParam, NotFound
from homeserver.core.ids import ServerName, UserId
from homeserver.core.text import is_storable
from homeserver.services.accounts.deactivation import Deactivation
from homeserver.services.accounts.new_accounts import insert_account
from homeserver.services.accounts.password_change import PasswordChange
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.profiles import AVATAR_URL, DISPLAYNAME, Profiles
from homeserver.services.accounts.session_lookup import SessionLookup
from homeserver.services.accounts.sessions import IssuedTokens, Sessions
from homeserver.services.accounts.usernames import new_user_id
from storage import devices, users
from storage import profiles as profile_rows
from storage.bus.base import Bus
from storage.database import Database
from storage.users import UserRow

USER_TYPES: Final = frozenset({"bot", "support"})


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to be made; without a password nobody can log in with one."""

    username: str
    password: str | None = field(repr=False)
    displayname: str | None = None
    is_admin: bool = False
    user_type: str | None = None


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What to change of an account; None leaves a thing as it is."""

    password: str | None = field(default=None, repr=False)
    logout_devices: bool = True
    profile: Mapping[str, str | None] = field(default_factory=dict)
    is_admin: bool | None = None
    locked: bool | None = None
    deactivated: bool | None = None
    user_type: str | None = None
    clear_user_type: bool = False


@dataclass(frozen=True, slots=True)
class AccountDetails:
    """An account with what administrators want to see of it."""

    user: UserRow
    displayname: str | None
    avatar_url: str | None
    last_seen_ts: int | None


class Administration:
    """The use cases of administrators; whoever calls them has checked that it is one, unless said otherwise."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        server_name: ServerName,
        passwords: Passwords,
        sessions: Sessions,
        password_change: PasswordChange,
        profiles: Profiles,
        deactivation: Deactivation,
        lookup: SessionLookup,
    ) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._server_name = server_name
        self._passwords = passwords
        self._sessions = sessions
        self._password_change = password_change
        self._profiles = profiles
        self._deactivation = deactivation
        self._lookup = lookup

    def user_id_named(self, name: str) -> UserId:
        """The local user that a user id or a local part names.

        Raises:
            InvalidParam: it is of another server, or no user id at all.
        """
        user_id = UserId.parse(name if name.startswith("@") else f"@{name}:{self._server_name}")
        if user_id.server_name != self._server_name:
            raise InvalidParam("This user is not of this server")
        return user_id

    async def create_user(self, account: NewAccount) -> UserId:
        """Makes an account. The password policy does not bind administrators.

        Raises:
            InvalidUsername, UserInUse: the name cannot be had.
            InvalidParam: something else about the account is wrong.
        """
        user_id = new_user_id(account.username, self._server_name)
        _check_user_type(account.user_type)
        if account.displayname is not None and not is_storable(account.displayname):
            raise InvalidParam("A display name holds no NUL character")
        password_hash = await self._passwords.hash(account.password) if account.password is not None else None
        async with self._db.transaction() as conn:
            position = await insert_account(
                conn,
                user_id,
                password_hash=password_hash,
                created_ts=self._clock.now_ms(),
                displayname=account.displayname,
                is_admin=account.is_admin,
                user_type=account.user_type,
            )
        if position is not None:
            await self._bus.wake({f"user:{user_id}"}, position)
        return user_id

    async def get_user(self, user_id: UserId) -> AccountDetails:
        """An account.

        Raises:
            NotFound: there is none.
        """
        async with self._db.connection() as conn:
            user = await users.find_user(conn, user_id)
            if user is None:
                raise NotFound("There is no such account")
            fields = (await profile_rows.list_profiles(conn, [user_id])).get(user_id, {})
            seen = [device.last_seen_ts for device in await devices.list_devices(conn, [user_id])]
        return AccountDetails(
            user=user,
            displayname=_text(fields.get(DISPLAYNAME)),
            avatar_url=_text(fields.get(AVATAR_URL)),
            last_seen_ts=max((ts for ts in seen if ts is not None), default=None),
        )

    async def list_users(self, *, after: str = "", limit: int = 100, with_deactivated: bool = False) -> list[UserRow]:
        """Accounts in the order of their ids, from the one behind `after` on; no guests."""
        async with self._db.connection() as conn:
            return await users.list_users(
                conn, after=after, limit=limit, with_deactivated=with_deactivated, with_guests=False
            )

    async def reset_password(self, user_id: UserId, new_password: str, *, logout_devices: bool = True) -> None:
        """Gives an account another password; with `logout_devices` all its sessions end.

        Raises:
            NotFound: there is no such account, or it is deactivated.
            InvalidParam: the password is too long.
        """
        await self._password_change.change(user_id, new_password, logout_devices=logout_devices, requester=None)

    async def change_user(self, user_id: UserId, change: AccountChange) -> None:
        """Changes an account.

        Raises:
            NotFound: there is no such account.
            InvalidParam: something about the change is wrong.
        """
        _check_user_type(change.user_type)
        user = (await self.get_user(user_id)).user
        if change.deactivated is False and user.deactivated:
            await self._reactivate(user_id, change.password)
        elif change.password is not None:
            await self.reset_password(user_id, change.password, logout_devices=change.logout_devices)
        if change.profile:
            await self._profiles.write(user_id, change.profile)
        async with self._db.transaction() as conn:
            if change.is_admin is not None:
                await users.update_admin(conn, user_id, is_admin=change.is_admin)
            if change.locked is not None:
                await users.update_locked(conn, user_id, locked=change.locked)
            if change.user_type is not None or change.clear_user_type:
                await users.update_user_type(conn, user_id, change.user_type)
        self._lookup.forget()
        if change.deactivated and not user.deactivated:
            await self._deactivation.deactivate(user_id, erase=False)

    async def deactivate(self, user_id: UserId, *, erase: bool = False) -> None:
        """Ends an account for good.

        Raises:
            NotFound: there is no such account.
        """
        await self._deactivation.deactivate(user_id, erase=erase)

    async def login_as(self, user_id: UserId, *, valid_until_ms: int | None) -> IssuedTokens:
        """Opens a session in which an administrator acts for a user, without a device; times are since the epoch.

        Raises:
            Forbidden, UserDeactivated, UserLocked: the account may not have sessions.
            InvalidParam: the time is over already.
        """
        lifetime_ms = None
        if valid_until_ms is not None:
            lifetime_ms = valid_until_ms - self._clock.now_ms()
            if lifetime_ms <= 0:
                raise InvalidParam("valid_until_ms is in the past")
        return await self._sessions.open_without_device(user_id, lifetime_ms=lifetime_ms)

    async def _reactivate(self, user_id: UserId, password: str | None) -> None:
        if password is None:
            raise InvalidParam("An account is reactivated with a new password")
        password_hash = await self._passwords.hash(password)
        async with self._db.transaction() as conn:
            await users.find_user_locked(conn, user_id)
            await users.reactivate_user(conn, user_id, password_hash=password_hash)
            await users.delete_pending_departure(conn, user_id)


def _check_user_type(user_type: str | None) -> None:
    if user_type is not None and user_type not in USER_TYPES:
        raise InvalidParam(f"The type of a user is one of {', '.join(sorted(USER_TYPES))}")


def _text(field_json: str | None) -> str | None:
    value = orjson.loads(field_json) if field_json is not None else None
    return value if isinstance(value, str) else None
