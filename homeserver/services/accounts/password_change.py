"""Giving an account another password.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword
"""

from homeserver.core.errors import NotFound
from homeserver.core.ids import UserId
from homeserver.core.requester import Requester
from homeserver.services.accounts.devices import Devices
from homeserver.services.accounts.passwords import Passwords
from storage import users
from storage.database import Database


class PasswordChange:
    """Changes passwords; whoever calls it has checked who asks."""

    def __init__(self, *, db: Database, passwords: Passwords, devices: Devices) -> None:
        self._db = db
        self._passwords = passwords
        self._devices = devices

    def check(self, new_password: str) -> None:
        """Checks a new password before anybody is asked for the old one.

        Raises:
            WeakPassword, InvalidParam: it will not be accepted.
        """
        self._passwords.check_policy(new_password)

    async def change(
        self, user_id: UserId, new_password: str, *, logout_devices: bool, requester: Requester | None
    ) -> None:
        """Changes the password; with `logout_devices` all sessions but the asking one end.

        Raises:
            NotFound: there is no such account.
        """
        password_hash = await self._passwords.hash(new_password)
        async with self._db.transaction() as conn:
            user = await users.find_user_locked(conn, user_id)
            if user is None or user.deactivated:
                raise NotFound("There is no such account")
            await users.update_password_hash(conn, user_id, password_hash)
        if logout_devices:
            await self._devices.delete_all(
                user_id,
                keep_device=requester.device_id if requester is not None else None,
                keep_session=requester.session_id if requester is not None else None,
            )
