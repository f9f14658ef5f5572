"""Ending an account for good: all that belongs to the account itself.

Leaving its rooms is a longer work, which `services/admin/departures.py` does afterwards, however often it must begin
again.

https://spec.matrix.org/v1.19/client-server-api/#account-deactivation
"""

from collections.abc import Callable

from homeserver.core.clock import Clock
from homeserver.core.errors import NotFound
from homeserver.core.ids import UserId
from homeserver.services.accounts.devices import Devices
from homeserver.services.accounts.session_lookup import SessionLookup
from storage import (
    account_data,
    devices,
    login_tokens,
    openid_tokens,
    profiles,
    push_exceptions,
    push_rules,
    sessions,
    uia_sessions,
    users,
)
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.positions import stream_position


class Deactivation:
    """Deactivates accounts; whoever calls it has checked who asks."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        lookup: SessionLookup,
        devices: Devices,
        on_departure: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes its means; `on_departure` is called when a user must leave its rooms."""
        self._db = db
        self._bus = bus
        self._clock = clock
        self._lookup = lookup
        self._devices = devices
        self._on_departure = on_departure

    async def deactivate(self, user_id: UserId, *, erase: bool) -> None:
        """Ends an account: nobody can log in any more, all sessions are over, the name stays taken.

        With `erase` its profile, account data and keys go too, and those who join its rooms later do not see its
        messages.

        Raises:
            NotFound: there is no such account.
        """
        now_ms = self._clock.now_ms()
        async with self._db.transaction() as conn:
            if await users.find_user_locked(conn, user_id) is None:
                raise NotFound("There is no such account")
            await users.deactivate_user(conn, user_id, deactivated_ts=now_ms, erase=erase)
            deleted = await devices.delete_all_devices(conn, user_id=user_id, keep=None)
            keys = {f"user:{user_id}"} | await self._devices.tell_deleted(conn, user_id, deleted)
            await sessions.delete_all_sessions(conn, user_id=user_id, keep=None)
            await login_tokens.delete_login_tokens(conn, user_id)
            await openid_tokens.delete_openid_tokens(conn, user_id)
            await uia_sessions.delete_uia_sessions(conn, user_id)
            if erase:
                await _erase(conn, user_id)
                keys |= await self._devices.tell_erased(conn, user_id)
            await users.insert_pending_departure(conn, user_id, requested_ts=now_ms)
            position = await stream_position(conn)
        self._lookup.forget()
        await self._bus.wake(keys, position)
        self._on_departure()


async def _erase(conn: Connection, user_id: UserId) -> None:
    """Removes what the server keeps for the user beside events."""
    await profiles.remove_fields(conn, user_id=user_id, name=None)
    await account_data.delete_account_data(conn, user_id)
    await push_rules.delete_push_rules(conn, user_id)
    await push_exceptions.delete_exceptions_of_user(conn, user_id)
