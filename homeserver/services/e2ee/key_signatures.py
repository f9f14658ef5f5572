"""Signatures that users add to keys: to their own devices and master key, and to the master keys of others.

Each one is verified before it is stored, and stored beside the key; who may see it is decided when it is asked for.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from homeserver.core.encryption_keys import (
    MASTER,
    SELF_SIGNING,
    USER_SIGNING,
    CrossSigningKey,
    Key,
    check_signatures,
    device_verify_key,
    parse_cross_signing_key,
    same_but_signatures,
)
from homeserver.core.errors import BadJson, InvalidParam, InvalidSignature, MatrixError, NotFound
from homeserver.core.ids import UserId
from homeserver.core.signing import VerifyKey, signature_key_ids, verify_json
from homeserver.services.e2ee.device_lists import note_own_changes
from homeserver.services.e2ee.key_queries import KeyQueries
from storage.bus.base import Bus
from storage.cross_signing_keys import list_cross_signing_keys
from storage.database import Connection, Database
from storage.device_keys import KeySignature, list_device_keys, upsert_key_signatures
from storage.device_lists import upsert_signed_users

SIGNED_KEYS_MAX: Final = 1_000
REMOTE_TIMEOUT_MS: Final = 10_000

GivenSignatures = Mapping[UserId, Mapping[str, Any]]
"""Signed keys by user and key id, which is a device id or a master key in base64."""


@dataclass(frozen=True, slots=True)
class _Signer:
    """The keys with which a user can sign, as far as they are known here.

    Attributes:
        devices: the identity keys of its devices.
        cross_signing: by usage.
    """

    user_id: UserId
    devices: Mapping[str, Key]
    cross_signing: Mapping[str, CrossSigningKey]

    def key(self, usage: str) -> VerifyKey:
        """The cross-signing key for a usage.

        Raises:
            InvalidSignature: there is none, so nothing can be signed with it.
        """
        if usage not in self.cross_signing:
            raise InvalidSignature(f"You have no {usage.replace('_', '-')} key")
        return self.cross_signing[usage].verify_key


class KeySignatures:
    """Takes signatures from users."""

    def __init__(self, *, db: Database, bus: Bus, queries: KeyQueries) -> None:
        """Takes its means; `queries` knows the master keys of others, also of other servers."""
        self._db = db
        self._bus = bus
        self._queries = queries

    async def upload(self, user_id: UserId, given: GivenSignatures) -> Mapping[str, Mapping[str, Any]]:
        """Stores the signatures that are right.

        Returns:
            The error for each of the others, by user and key id.

        Raises:
            InvalidParam: there are too many at once.
        """
        if sum(len(keys) for keys in given.values()) > SIGNED_KEYS_MAX:
            raise InvalidParam(f"At most {SIGNED_KEYS_MAX} keys can be signed at once")
        async with self._db.connection() as conn:
            signer = await _read_signer(conn, user_id)
        masters = await self._masters_of_others(user_id, given)
        failures: dict[str, dict[str, Any]] = {}
        accepted: list[KeySignature] = []
        for signed_id, keys in given.items():
            for key_id, key in keys.items():
                try:
                    if signed_id == user_id:
                        accepted += _on_own_key(signer, key_id, key)
                    else:
                        accepted.append(_on_master_of(signed_id, masters.get(signed_id), signer, key_id, key))
                except MatrixError as error:
                    failures.setdefault(signed_id, {})[key_id] = error.body()
        if accepted:
            await self._store(signer, accepted)
        return failures

    async def _masters_of_others(self, user_id: UserId, given: GivenSignatures) -> Mapping[UserId, Key]:
        others = [signed_id for signed_id in given if signed_id != user_id]
        if not others:
            return {}
        found = await self._queries.query(user_id, dict.fromkeys(others, ()), timeout_ms=REMOTE_TIMEOUT_MS)
        return {other: found.master_keys[other] for other in others if other in found.master_keys}

    async def _store(self, signer: _Signer, accepted: Sequence[KeySignature]) -> None:
        user_id = signer.user_id
        others = {each.user_id for each in accepted} - {user_id}
        signed = {each.key_id for each in accepted if each.user_id == user_id}
        devices = signed & signer.devices.keys()
        keys = {f"user:{user_id}"}
        position = 0
        async with self._db.transaction() as conn:
            await upsert_key_signatures(conn, accepted)
            if signed:
                position, keys = await note_own_changes(conn, user_id, devices=devices, cross_signing=devices != signed)
            if others:
                position = await upsert_signed_users(conn, user_id, others)
        await self._bus.wake(keys, position)


async def _read_signer(conn: Connection, user_id: UserId) -> _Signer:
    devices = await list_device_keys(conn, [(user_id, None)])
    cross_signing = await list_cross_signing_keys(conn, [user_id])
    return _Signer(
        user_id,
        {row.device_id: orjson.loads(row.keys) for row in devices},
        {
            row.usage: parse_cross_signing_key(orjson.loads(row.key), user_id=user_id, usage=row.usage)
            for row in cross_signing
        },
    )


def _on_own_key(signer: _Signer, key_id: str, key: object) -> list[KeySignature]:
    """The new signatures on a device or the master key of the signer itself.

    Raises:
        NotFound: the signer has no such key.
        InvalidSignature: the key is not the stored one, or a signature is wrong.
    """
    master = signer.cross_signing.get(MASTER)
    if key_id in signer.devices:
        stored, by = signer.devices[key_id], {signer.key(SELF_SIGNING).key_id: signer.key(SELF_SIGNING)}
    elif master is not None and key_id == master.public_key:
        signing = {device_id: device_verify_key(keys, device_id) for device_id, keys in signer.devices.items()}
        stored, by = master.json, {each.key_id: each for each in signing.values() if each is not None}
    else:
        raise NotFound("You have no such key")
    given = _matching(stored, key)
    known = stored.get("signatures", {}).get(signer.user_id, {})
    made_with = [each for each in signature_key_ids(given, signer.user_id) if each not in known]
    if not made_with:
        raise InvalidSignature("There is no new signature on the key")
    return [_verified(signer, signer.user_id, key_id, given, by.get(each)) for each in made_with]


def _on_master_of(user_id: UserId, master: Key | None, signer: _Signer, key_id: str, key: object) -> KeySignature:
    """The signature on another user's master key, by the signer's user-signing key; raises as `_on_own_key`."""
    named = master.get("keys") if master is not None else None
    if master is None or not isinstance(named, dict) or named.get(f"ed25519:{key_id}") != key_id:
        raise NotFound("The user has no such master key")
    return _verified(signer, user_id, key_id, _matching(master, key), signer.key(USER_SIGNING))


def _matching(stored: Key, key: object) -> Key:
    """A signed key that must be the stored one in all but signatures."""
    if not isinstance(key, dict):
        raise BadJson("A signed key is an object")
    check_signatures(key)
    if not same_but_signatures(stored, key):
        raise InvalidSignature("The signed key is not the one that was uploaded")
    return key


def _verified(signer: _Signer, user_id: UserId, key_id: str, key: Key, by: VerifyKey | None) -> KeySignature:
    if by is None or not verify_json(key, signer.user_id, by):
        raise InvalidSignature("The signature is wrong")
    signature: str = key["signatures"][signer.user_id][by.key_id]
    return KeySignature(user_id, key_id, signer.user_id, by.key_id, signature)
