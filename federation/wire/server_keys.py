"""What a server says of its signing keys, checked: only what it has signed itself is believed.

https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from homeserver.core.canonical_json import INTEGER_MAX, encode_canonical
from homeserver.core.errors import BadJson, InvalidParam
from homeserver.core.ids import ServerName
from homeserver.core.signing import VerifyKey, verify_json
from homeserver.core.unpadded_base64 import decode_base64
from homeserver.services.remote import ServerKey

TRUSTED_MS_MAX: Final = 7 * 86_400_000
"""However long a server promises to use its keys, it is asked again after seven days."""
KEYS_MAX: Final = 50
"""How many keys in use, and how many old ones, are read of one answer."""
KEY_ID_CHARACTERS_MAX: Final = 255
ANSWER_BYTES_MAX: Final = 65_536


class DeniedKeys:
    """Keys that have become known (S17): whatever they have signed, nobody knows who did."""

    def __init__(self, keys: Collection[str]) -> None:
        """Takes each key as it is published, or as the SHA-256 of its bytes in hexadecimal digits."""
        self._fingerprints = frozenset(_fingerprint_of(key) for key in keys)

    def has(self, key: VerifyKey) -> bool:
        """Whether a key is one of them, whoever publishes it."""
        return bool(self._fingerprints) and _fingerprint_of(key.encode()) in self._fingerprints


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """A good answer.

    Attributes:
        keys: by key id, those in use and the old ones.
        valid_until_ts: until when it is good, in milliseconds, no longer than seven days from now.
        json: all of it, as the server has signed it.
    """

    server_name: ServerName
    keys: Mapping[str, ServerKey]
    valid_until_ts: int
    json: Mapping[str, Any] = field(repr=False)


def parse_key_answer(json: object, *, server_name: ServerName, denied: DeniedKeys, now_ms: int) -> KeyAnswer:
    """Reads and checks what a server says of its keys.

    Each key in use must have signed the answer, or else it is left out; old keys count if at least one of those has.

    Raises:
        InvalidParam: it is of a wrong form, of another server, or not signed by the server itself.
    """
    if not isinstance(json, dict) or json.get("server_name") != server_name:
        raise InvalidParam("Not the keys of this server")
    promised_ts = _time(json.get("valid_until_ts"))
    if promised_ts is None:
        raise InvalidParam("The keys of a server have a valid_until_ts")
    try:
        if len(encode_canonical(json)) > ANSWER_BYTES_MAX:
            raise InvalidParam("The keys of a server take too much room")
    except BadJson as error:
        raise InvalidParam(error.message) from error
    valid_until_ts = min(promised_ts, now_ms + TRUSTED_MS_MAX)
    keys = {
        key_id: ServerKey(key, valid_until_ts)
        for key_id, (key, _) in _keys(json.get("verify_keys")).items()
        if not denied.has(key) and verify_json(json, server_name, key)
    }
    if not keys:
        raise InvalidParam("The keys are not signed by the server itself")
    for key_id, (key, members) in _keys(json.get("old_verify_keys")).items():
        expired_ts = _time(members.get("expired_ts"))
        if key_id not in keys and not denied.has(key) and expired_ts is not None:
            keys[key_id] = ServerKey(key, expired_ts, is_retired=True)
    return KeyAnswer(server_name, keys, valid_until_ts, json)


def _keys(value: object) -> dict[str, tuple[VerifyKey, Mapping[str, Any]]]:
    """The well-formed keys of an object by key id, each with its members."""
    found: dict[str, tuple[VerifyKey, Mapping[str, Any]]] = {}
    for key_id, members in value.items() if isinstance(value, dict) else ():
        if len(found) >= KEYS_MAX:
            break
        if not isinstance(members, dict) or not _is_key_id(key_id):
            continue
        try:
            found[key_id] = VerifyKey.parse(key_id=key_id, key_base64=members.get("key")), members
        except InvalidParam:
            continue
    return found


def _is_key_id(text: str) -> bool:
    return len(text) <= KEY_ID_CHARACTERS_MAX and text.isascii() and text.isprintable()


def _time(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= INTEGER_MAX else None


def _fingerprint_of(key: str) -> str:
    if len(key) == 64:
        return key.lower()
    return hashlib.sha256(decode_base64(key)).hexdigest()
