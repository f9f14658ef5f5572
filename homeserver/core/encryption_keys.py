"""The keys that clients publish for end-to-end encryption: their shapes and sizes, and who has signed them.

Most of what stands in them is the business of clients. This server makes sure that a key says whose it is, that it is
of a size that can be handed on, and that signatures which link users and devices are right.

https://spec.matrix.org/v1.19/client-server-api/#key-distribution
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import BadJson, InvalidParam, InvalidSignature, TooLarge
from homeserver.core.ids import ID_BYTES_MAX, UserId
from homeserver.core.signing import ALGORITHM, VerifyKey, verify_json
from homeserver.core.text import is_storable

DEVICE_KEYS_BYTES_MAX: Final = 32_768
ONE_TIME_KEY_BYTES_MAX: Final = 4_096
CROSS_SIGNING_KEY_BYTES_MAX: Final = 32_768
SIGNATURE_CHARACTERS_MAX: Final = 1_024

MASTER: Final = "master"
SELF_SIGNING: Final = "self_signing"
USER_SIGNING: Final = "user_signing"
USAGES: Final = (MASTER, SELF_SIGNING, USER_SIGNING)

_DEVICE_KEYS_MEMBERS: Final = ("algorithms", "keys", "signatures", "user_id", "device_id")

Key = Mapping[str, Any]
"""A JSON object that is or holds a public key."""


def parse_device_keys(value: object, *, user_id: UserId, device_id: str) -> Key:
    """Reads the identity keys of a device.

    Its own signature is checked by those who use the keys, not here.

    Raises:
        BadJson: a member is missing or has a wrong type.
        InvalidParam: the keys say that they are another user's or device's.
        TooLarge: they are too large.
    """
    keys = _object(value, "device_keys", DEVICE_KEYS_BYTES_MAX)
    _check_device_keys({name: keys.get(name) for name in _DEVICE_KEYS_MEMBERS}, user_id=user_id, device_id=device_id)
    return keys


def check_told_device_keys(value: object, *, user_id: UserId, device_id: str) -> Key:
    """Reads the identity keys of a device that another server has told.

    As `parse_device_keys`, and raises the same; but members may be missing. Clients trust no device without them.
    """
    keys = _object(value, "device_keys", DEVICE_KEYS_BYTES_MAX)
    told = {name: keys[name] for name in _DEVICE_KEYS_MEMBERS if name in keys}
    lacking = {"algorithms": [], "keys": {}, "signatures": {}, "user_id": user_id, "device_id": device_id}
    _check_device_keys({**lacking, **told}, user_id=user_id, device_id=device_id)
    return keys


def _check_device_keys(members: Mapping[str, Any], *, user_id: UserId, device_id: str) -> None:
    algorithms, by_id = members["algorithms"], members["keys"]
    if not isinstance(algorithms, list) or not all(isinstance(algorithm, str) for algorithm in algorithms):
        raise BadJson("algorithms must be a list of strings")
    if not isinstance(by_id, dict) or not all(isinstance(key, str) for key in by_id.values()):
        raise BadJson("keys must be an object of strings")
    check_signatures(members)
    if members["user_id"] != user_id or members["device_id"] != device_id:
        raise InvalidParam("The keys name another user or device than the one that uploads them")


def device_verify_key(keys: Key, device_id: str) -> VerifyKey | None:
    """The key with which a device signs, from its identity keys; None if there is no proper one."""
    key_id = f"{ALGORITHM}:{device_id}"
    try:
        return VerifyKey.parse(key_id=key_id, key_base64=keys["keys"].get(key_id))
    except InvalidParam:
        return None


@dataclass(frozen=True, slots=True)
class OneTimeKey:
    """A one-time or fallback key; `key` is its JSON text: a string, or an object with `key` and `signatures`."""

    algorithm: str
    key_id: str
    key: str

    @property
    def name(self) -> str:
        """Algorithm and id, as the key is named where it is uploaded and claimed."""
        return f"{self.algorithm}:{self.key_id}"


def parse_one_time_keys(value: object, *, count_max: int) -> list[OneTimeKey]:
    """Reads one-time or fallback keys by their names.

    Raises:
        BadJson: it has another form.
        InvalidParam: there are too many, or a name is none.
        TooLarge: a key is too large.
    """
    if not isinstance(value, dict):
        raise BadJson("One-time keys must be an object")
    if len(value) > count_max:
        raise InvalidParam(f"At most {count_max} keys can be uploaded at once")
    return [_one_time_key(name, key) for name, key in value.items()]


def _one_time_key(name: str, value: object) -> OneTimeKey:
    algorithm, colon, key_id = name.partition(":")
    if not (algorithm and colon and key_id) or not is_storable(name) or len(name.encode()) > ID_BYTES_MAX:
        raise InvalidParam("A one-time key is named by its algorithm, a colon and its id")
    if isinstance(value, dict):
        if not isinstance(value.get("key"), str):
            raise BadJson("A signed one-time key has a member `key`")
        check_signatures(value)
    elif not isinstance(value, str):
        raise BadJson("A one-time key is a string or an object")
    encoded = encode_canonical(value)
    if len(encoded) > ONE_TIME_KEY_BYTES_MAX:
        raise TooLarge(f"A one-time key has at most {ONE_TIME_KEY_BYTES_MAX} bytes")
    return OneTimeKey(algorithm, key_id, encoded.decode())


@dataclass(frozen=True, slots=True)
class CrossSigningKey:
    """A cross-signing key.

    Attributes:
        usage: `master`, `self_signing` or `user_signing`.
        verify_key: the key itself; its id is `ed25519:` and the key in base64, as it was written.
        json: the whole object.
    """

    user_id: UserId
    usage: str
    verify_key: VerifyKey
    json: Key

    @property
    def public_key(self) -> str:
        """The public key in base64, as it was written."""
        return self.verify_key.key_id.partition(":")[2]

    def check_signed_by(self, master: "CrossSigningKey") -> None:
        """Checks that the user's master key has signed this one.

        Raises:
            InvalidSignature: it has not.
        """
        if not verify_json(self.json, self.user_id, master.verify_key):
            raise InvalidSignature(f"The {self.usage.replace('_', '-')} key is not signed by the master key")


def parse_cross_signing_key(value: object, *, user_id: UserId, usage: str) -> CrossSigningKey:
    """Reads a cross-signing key of a user for a usage.

    Raises:
        BadJson: a member is missing or has a wrong type.
        InvalidParam: it is another user's, for another usage, or not one key.
        TooLarge: it is too large.
    """
    json = _object(value, f"The {usage} key", CROSS_SIGNING_KEY_BYTES_MAX)
    usages, keys = json.get("usage"), json.get("keys")
    if not isinstance(usages, list) or not isinstance(keys, dict):
        raise BadJson("A cross-signing key has a list `usage` and an object `keys`")
    if "signatures" in json:
        check_signatures(json)
    if json.get("user_id") != user_id:
        raise InvalidParam("The cross-signing key names another user")
    if usage not in usages:
        raise InvalidParam(f"The key is not for the usage {usage}")
    if len(keys) != 1:
        raise InvalidParam("A cross-signing key holds exactly one key")
    key_id, key_base64 = next(iter(keys.items()))
    if key_id != f"{ALGORITHM}:{key_base64}":
        raise InvalidParam("The id of a cross-signing key is the key itself")
    return CrossSigningKey(user_id, usage, VerifyKey.parse(key_id=key_id, key_base64=key_base64), json)


def check_signatures(json: Key) -> None:
    """Checks the shape of `signatures`, which must be there.

    Raises:
        BadJson: it is no object of objects of strings.
        TooLarge: a signature is longer than any can be.
    """
    signatures = json.get("signatures")
    if not isinstance(signatures, dict):
        raise BadJson("signatures must be an object")
    for by_key in signatures.values():
        if not isinstance(by_key, dict) or not all(isinstance(signature, str) for signature in by_key.values()):
            raise BadJson("signatures must hold an object of strings for each user")
        if any(len(signature) > SIGNATURE_CHARACTERS_MAX for signature in by_key.values()):
            raise TooLarge("A signature is too long")


def same_but_signatures(one: Key, other: Key) -> bool:
    """Whether two keys are the same in all that signatures cover."""
    return _covered(one) == _covered(other)


def _covered(json: Key) -> bytes:
    return encode_canonical({name: value for name, value in json.items() if name not in ("signatures", "unsigned")})


def _object(value: object, name: str, bytes_max: int) -> Key:
    if not isinstance(value, dict):
        raise BadJson(f"{name} must be an object")
    if len(encode_canonical(value)) > bytes_max:
        raise TooLarge(f"{name} may have at most {bytes_max} bytes")
    return value
