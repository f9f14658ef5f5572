"""Claiming one-time keys, each of which is given out once.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim
"""

from dataclasses import dataclass, field
from typing import Any

import orjson

from homeserver.core.ids import ServerName
from homeserver.core.key_wishes import WantedKeys
from homeserver.services.remote import RemoteKeys
from storage.bus.base import Bus
from storage.database import Database
from storage.one_time_keys import Wish, claim_keys, upsert_key_count_changes


@dataclass(slots=True)
class ClaimedKeys:
    """Keys by user, device and name, ready to be sent, and servers that could not be asked, each with an error."""

    one_time_keys: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    failures: dict[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """The answer to a client."""
        return {"one_time_keys": self.one_time_keys, "failures": self.failures}


class KeyClaims:
    """Gives out one-time keys of this server's devices, and claims those of others."""

    def __init__(self, *, db: Database, bus: Bus, server_name: ServerName, remote: RemoteKeys) -> None:
        self._db = db
        self._bus = bus
        self._server_name = server_name
        self._remote = remote

    async def claim(self, wanted: WantedKeys, *, timeout_ms: int) -> ClaimedKeys:
        """One key for each device that has any, of whatever server; other servers are waited for so long at most."""
        local = {user: devices for user, devices in wanted.items() if user.server_name == self._server_name}
        remote = {user: devices for user, devices in wanted.items() if user not in local}
        claimed = ClaimedKeys(await self.claim_local(local))
        if remote:
            answer = await self._remote.claim(remote, timeout_ms=timeout_ms)
            for user_id, devices in answer.keys.items():
                claimed.one_time_keys[user_id] = {device_id: dict(keys) for device_id, keys in devices.items()}
            claimed.failures.update({server: error.body() for server, error in answer.failures.items()})
        return claimed

    async def claim_local(self, wanted: WantedKeys) -> dict[str, dict[str, dict[str, Any]]]:
        """One key for each device of this server's users that has any, by user, device and name."""
        wishes: set[Wish] = {
            (user_id, device_id, algorithm)
            for user_id, devices in wanted.items()
            for device_id, algorithm in devices.items()
        }
        if not wishes:
            return {}
        position = None
        async with self._db.transaction() as conn:
            claimed = await claim_keys(conn, wishes)
            spent = {(each.user_id, each.device_id) for each in claimed if each.spends}
            if spent:
                position = await upsert_key_count_changes(conn, spent)
        if position is not None:
            await self._bus.wake({f"user:{user_id}" for user_id, _ in spent}, position)
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for each in claimed:
            devices = found.setdefault(each.user_id, {})
            devices[each.device_id] = {each.key.name: orjson.Fragment(each.key.key)}
        return found
