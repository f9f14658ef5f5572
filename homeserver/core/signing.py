"""Signing of JSON and of events with ed25519, and the checking of signatures.

https://spec.matrix.org/v1.19/appendices/#signing-json
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import nacl.exceptions
import nacl.signing

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import BadJson, InvalidParam
from homeserver.core.hashing import essential_json
from homeserver.core.room_versions import RoomVersion
from homeserver.core.unpadded_base64 import decode_base64, encode_base64

ALGORITHM: Final = "ed25519"
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_VERSION = re.compile(r"[A-Za-z0-9_]+", re.ASCII)
_NOT_SIGNED = frozenset(("signatures", "unsigned"))


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """The public half of a signing key.

    Attributes:
        key_id: `ed25519:` and the key's version, which for the key of a device is the device id.
    """

    key_id: str
    _key: nacl.signing.VerifyKey

    @classmethod
    def parse(cls, *, key_id: object, key_base64: object) -> Self:
        """Reads a key as servers and devices publish it.

        Raises:
            InvalidParam: the algorithm is not ed25519, the base64 is wrong, or the key does not have 32 bytes.
        """
        if not isinstance(key_id, str) or not key_id.startswith(f"{ALGORITHM}:") or len(key_id) == len(ALGORITHM) + 1:
            raise InvalidParam("Not the id of an ed25519 key")
        key = decode_base64(key_base64)
        if len(key) != KEY_BYTES:
            raise InvalidParam(f"An ed25519 key has {KEY_BYTES} bytes")
        return cls(key_id, nacl.signing.VerifyKey(key))

    def encode(self) -> str:
        """The key in unpadded base64, as it is published."""
        return encode_base64(self._key.encode())

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether a signature of 64 bytes is right; one of another length is not."""
        if len(signature) != SIGNATURE_BYTES:
            return False
        try:
            self._key.verify(message, signature)
        except nacl.exceptions.BadSignatureError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A secret key with the version that names it among its owner's keys."""

    version: str
    _key: nacl.signing.SigningKey = field(repr=False)

    @classmethod
    def from_seed(cls, version: str, seed: bytes) -> Self:
        """Makes a key of its 32 secret bytes, which for a new key are drawn at random.

        Raises:
            InvalidParam: the version is not of `a-z A-Z 0-9 _`, or the seed does not have 32 bytes.
        """
        if not _VERSION.fullmatch(version):
            raise InvalidParam("The version of a signing key holds only letters, digits and _")
        if len(seed) != KEY_BYTES:
            raise InvalidParam(f"The seed of a signing key has {KEY_BYTES} bytes")
        return cls(version, nacl.signing.SigningKey(seed))

    @classmethod
    def parse(cls, line: str) -> Self:
        """Reads a line of a key file: algorithm, version and seed in base64, as in `ed25519 a_id YJDB…`.

        Raises:
            InvalidParam: it is not of this form.
        """
        fields = line.split()
        if len(fields) != 3 or fields[0] != ALGORITHM:
            raise InvalidParam("A signing key is written as: ed25519 <version> <base64>")
        return cls.from_seed(fields[1], decode_base64(fields[2]))

    def format(self) -> str:
        """The line for a key file, without a line break. It is secret."""
        return f"{ALGORITHM} {self.version} {encode_base64(self._key.encode())}"

    @property
    def key_id(self) -> str:
        """`ed25519:` and the version."""
        return f"{ALGORITHM}:{self.version}"

    @property
    def verify_key(self) -> VerifyKey:
        """The public half."""
        return VerifyKey(self.key_id, self._key.verify_key)

    def sign(self, message: bytes) -> str:
        """The signature of some bytes, in unpadded base64."""
        return encode_base64(self._key.sign(message).signature)


def sign_json(json_object: Mapping[str, Any], entity: str, key: SigningKey) -> dict[str, Any]:
    """Signs an object.

    Args:
        json_object: any object; its `signatures` and `unsigned` are not covered.
        entity: who signs: a server name, or a user id.

    Returns:
        A copy with the signature added to those that were there.

    Raises:
        BadJson: the object cannot be encoded, or has `signatures` of a wrong form.
    """
    return _with_signature(json_object, entity, key, key.sign(_signed_bytes(json_object)))


def sign_event(
    event_json: Mapping[str, Any], server_name: str, key: SigningKey, room_version: RoomVersion
) -> dict[str, Any]:
    """Signs an event that has its `hashes`: what the signature covers is the redacted event.

    Returns:
        A copy with the signature added to those that were there.

    Raises:
        BadJson: the event cannot be encoded, or has `signatures` of a wrong form.
    """
    return _with_signature(event_json, server_name, key, key.sign(essential_json(event_json, room_version)))


def verify_json(json_object: Mapping[str, Any], entity: str, key: VerifyKey) -> bool:
    """Whether an object bears the entity's signature by this key and it is right; False too for any wrong form."""
    signature = _signature_of(json_object, entity, key.key_id)
    if signature is None:
        return False
    try:
        message = _signed_bytes(json_object)
    except BadJson:
        return False
    return verify_signature(message, signature, key)


def verify_event(event_json: Mapping[str, Any], server_name: str, key: VerifyKey, room_version: RoomVersion) -> bool:
    """Whether an event bears the server's signature by this key and it is right; False too for any wrong form."""
    signature = _signature_of(event_json, server_name, key.key_id)
    if signature is None:
        return False
    try:
        message = essential_json(event_json, room_version)
    except BadJson:
        return False
    return verify_signature(message, signature, key)


def verify_signature(message: bytes, signature: object, key: VerifyKey) -> bool:
    """Whether `signature` is the unpadded base64 of the key's signature of a message; False for anything else."""
    try:
        return key.verify(message, decode_base64(signature))
    except InvalidParam:
        return False


def signature_key_ids(json_object: Mapping[str, Any], entity: str) -> tuple[str, ...]:
    """The ids of the ed25519 keys with which an entity claims to have signed; none for any wrong form."""
    signatures = json_object.get("signatures")
    by_entity = signatures.get(entity) if isinstance(signatures, dict) else None
    if not isinstance(by_entity, dict):
        return ()
    return tuple(key_id for key_id in by_entity if key_id.startswith(f"{ALGORITHM}:"))


def _signed_bytes(json_object: Mapping[str, Any]) -> bytes:
    return encode_canonical({name: value for name, value in json_object.items() if name not in _NOT_SIGNED})


def _signature_of(json_object: Mapping[str, Any], entity: str, key_id: str) -> object | None:
    signatures = json_object.get("signatures")
    by_entity = signatures.get(entity) if isinstance(signatures, dict) else None
    return by_entity.get(key_id) if isinstance(by_entity, dict) else None


def _with_signature(json_object: Mapping[str, Any], entity: str, key: SigningKey, signature: str) -> dict[str, Any]:
    signatures = json_object.get("signatures", {})
    by_entity = signatures.get(entity, {}) if isinstance(signatures, dict) else None
    if not isinstance(by_entity, dict):
        raise BadJson("The signatures of an object are objects in an object")
    return {**json_object, "signatures": {**signatures, entity: {**by_entity, key.key_id: signature}}}
