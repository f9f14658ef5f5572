"""Checks who somebody is by name and password, for logins and for user-interactive authentication.

Whether an account exists must not be seen from the outside, neither by the answer nor by the time it takes.

https://spec.matrix.org/v1.19/client-server-api/#password-based
"""

from homeserver.config.schema import PasswordsConfig
from homeserver.core.errors import Forbidden, InvalidParam, UserDeactivated
from homeserver.core.ids import ServerName, UserId
from homeserver.services.accounts.attempts import AttemptLimits
from homeserver.services.accounts.login_gate import may_login
from homeserver.services.accounts.passwords import Passwords
from homeserver.services.accounts.usernames import folded
from storage import users
from storage.database import Database
from storage.users import UserRow


class Credentials:
    """Verifies passwords of accounts."""

    def __init__(
        self,
        *,
        db: Database,
        server_name: ServerName,
        config: PasswordsConfig,
        passwords: Passwords,
        limits: AttemptLimits,
    ) -> None:
        self._db = db
        self._server_name = server_name
        self._enabled = config.enabled
        self._passwords = passwords
        self._limits = limits

    @property
    def enabled(self) -> bool:
        """Whether passwords are accepted at all."""
        return self._enabled

    def user_id_named(self, user: str) -> UserId | None:
        """The local user that a login names, by user id or local part; None if it cannot be one of ours.

        Names are folded to lower case, as they are when accounts are made.
        """
        localpart, colon, domain = user.removeprefix("@").partition(":")
        if user.startswith("@") != bool(colon) or (colon and domain != self._server_name):
            return None
        try:
            return UserId.parse(f"@{folded(localpart)}:{self._server_name}")
        except InvalidParam:
            return None

    async def check(self, user: str, password: str, *, ip: str) -> UserRow:
        """The account that name and password open.

        Raises:
            Forbidden: they open none; nothing says which of them is wrong.
            UserDeactivated, UserLocked: the account has ended, or is locked.
            LimitExceeded: there were too many wrong passwords.
        """
        user_id = self.user_id_named(user)
        account = user_id or user
        await self._limits.take(account=account, ip=ip)
        row = None
        if user_id is not None:
            async with self._db.connection() as conn:
                row = await users.find_user(conn, user_id)
        password_hash = row.password_hash if row is not None and self._enabled else None
        if not await self._passwords.verify(password, password_hash):
            if row is not None and row.deactivated:
                raise UserDeactivated("This account has been deactivated")
            raise Forbidden("Wrong user name or password")
        await self._limits.give_back(account=account, ip=ip)
        row = may_login(row)
        if password_hash is not None and self._passwords.needs_rehash(password_hash):
            await self._rehash(row.user_id, password, password_hash)
        return row

    async def _rehash(self, user_id: UserId, password: str, old_hash: str) -> None:
        """Stores the password's hash as it would be made today."""
        new_hash = await self._passwords.hash(password)
        async with self._db.connection() as conn:
            await users.replace_password_hash(conn, user_id, old_hash=old_hash, new_hash=new_hash)
