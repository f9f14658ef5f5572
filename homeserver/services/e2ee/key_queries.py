"""Asking for the keys of users: of their devices, and for cross-signing.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from homeserver.core.encryption_keys import MASTER, SELF_SIGNING, USER_SIGNING
from homeserver.core.ids import ServerName, UserId
from homeserver.core.key_wishes import WantedDevices
from homeserver.services.remote import RemoteKeys, UserKeys
from storage.cross_signing_keys import list_cross_signing_keys
from storage.database import Connection, Database
from storage.device_keys import KeySignature, list_device_keys, list_key_signatures


@dataclass(slots=True)
class FoundKeys:
    """Keys of users, ready to be sent.

    Attributes:
        device_keys: by user and device.
        master_keys, self_signing_keys, user_signing_keys: by user.
        failures: servers that could not be asked, each with an error object.
    """

    device_keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    master_keys: dict[str, Any] = field(default_factory=dict)
    self_signing_keys: dict[str, Any] = field(default_factory=dict)
    user_signing_keys: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """The answer to a client."""
        return {
            "device_keys": self.device_keys,
            "master_keys": self.master_keys,
            "self_signing_keys": self.self_signing_keys,
            "user_signing_keys": self.user_signing_keys,
            "failures": self.failures,
        }


class KeyQueries:
    """Finds keys of users of this server, and asks for those of others."""

    def __init__(self, *, db: Database, server_name: ServerName, remote: RemoteKeys) -> None:
        self._db = db
        self._server_name = server_name
        self._remote = remote

    async def query(self, requester_id: UserId, wanted: WantedDevices, *, timeout_ms: int) -> FoundKeys:
        """The keys of users of any server, as far as the requester may see them.

        Users and devices that do not exist are absent. The user-signing key is told to its own user only.

        Args:
            timeout_ms: how long to wait for other servers.
        """
        local = {user: devices for user, devices in wanted.items() if user.server_name == self._server_name}
        remote = {user: devices for user, devices in wanted.items() if user not in local}
        found = await self.local(local, seen_by=requester_id)
        if remote:
            answer = await self._remote.query(requester_id, remote, timeout_ms=timeout_ms)
            await self._add_remote(found, answer.users, requester_id)
            found.failures.update({server: error.body() for server, error in answer.failures.items()})
        return found

    async def local(self, wanted: WantedDevices, *, seen_by: UserId | None) -> FoundKeys:
        """The keys of users of this server, as somebody may see them; None for another server."""
        found = FoundKeys(device_keys={user_id: {} for user_id in wanted})
        if not wanted:
            return found
        pairs = [(user, device) for user, devices in wanted.items() for device in (devices or (None,))]
        async with self._db.connection() as conn:
            rows = await list_device_keys(conn, pairs)
            cross_signing = await list_cross_signing_keys(conn, wanted.keys())
            signatures = await _signatures(conn, wanted.keys(), seen_by)
        for row in rows:
            keys = _signed(orjson.loads(row.keys), signatures.get((row.user_id, row.device_id), ()))
            if row.display_name is not None:
                keys["unsigned"] = {"device_display_name": row.display_name}
            found.device_keys[row.user_id][row.device_id] = keys
        for key in cross_signing:
            json = orjson.loads(key.key)
            if key.usage == MASTER:
                found.master_keys[key.user_id] = _signed(json, signatures.get((key.user_id, key.public_key), ()))
            elif key.usage == SELF_SIGNING:
                found.self_signing_keys[key.user_id] = json
            elif key.usage == USER_SIGNING and key.user_id == seen_by:
                found.user_signing_keys[key.user_id] = json
        return found

    async def _add_remote(self, found: FoundKeys, users: Mapping[UserId, UserKeys], requester_id: UserId) -> None:
        """Adds what other servers have told, and the requester's own signatures on their master keys."""
        async with self._db.connection() as conn:
            signatures = await _signatures(conn, users.keys(), requester_id)
        for user_id, keys in users.items():
            found.device_keys[user_id] = dict(keys.devices)
            if keys.master_key is not None:
                named = keys.master_key.get("keys")
                held = named.values() if isinstance(named, dict) else ()
                fitting = [each for key_id in held for each in signatures.get((user_id, key_id), ())]
                found.master_keys[user_id] = _signed(dict(keys.master_key), fitting)
            if keys.self_signing_key is not None:
                found.self_signing_keys[user_id] = keys.self_signing_key


_ByKey = Mapping[tuple[str, str], Collection[KeySignature]]


async def _signatures(conn: Connection, user_ids: Collection[UserId], seen_by: UserId | None) -> _ByKey:
    """The signatures that somebody may see, by user and key."""
    found: dict[tuple[str, str], list[KeySignature]] = {}
    for signature in await list_key_signatures(conn, user_ids, seen_by=seen_by):
        found.setdefault((signature.user_id, signature.key_id), []).append(signature)
    return found


def _signed(json: dict[str, Any], signatures: Collection[KeySignature]) -> dict[str, Any]:
    """A key with further signatures beside its own."""
    if not signatures:
        return json
    merged = {signer: dict(by_key) for signer, by_key in json.get("signatures", {}).items()}
    for each in signatures:
        merged.setdefault(each.signer_id, {})[each.signer_key_id] = each.signature
    return {**json, "signatures": merged}
