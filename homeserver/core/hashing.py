"""The hashes of events, and the identifiers that are made of them.

https://spec.matrix.org/v1.19/server-server-api/#signing-events
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import BadJson, InvalidParam
from homeserver.core.ids import EventId, RoomId
from homeserver.core.redaction import redact
from homeserver.core.room_versions import EventIdFormat, RoomVersion
from homeserver.core.unpadded_base64 import decode_base64, encode_base64, encode_base64_url_safe

_NOT_HASHED = frozenset(("hashes", "signatures", "unsigned"))


def essential_json(event_json: Mapping[str, Any], room_version: RoomVersion) -> bytes:
    """The essential part of an event: redacted, without signatures, in canonical JSON.

    These bytes are both what servers sign and what the reference hash covers.

    Raises:
        BadJson: it cannot be encoded.
    """
    essential = redact(event_json, room_version)
    essential.pop("signatures", None)
    return encode_canonical(essential)


def content_hash(event_json: Mapping[str, Any]) -> bytes:
    """The SHA-256 of the complete event but for `hashes`, `signatures` and `unsigned`; the same in all room versions.

    Raises:
        BadJson: the event cannot be encoded.
    """
    hashed = {name: value for name, value in event_json.items() if name not in _NOT_HASHED}
    return hashlib.sha256(encode_canonical(hashed)).digest()


def content_hash_matches(event_json: Mapping[str, Any]) -> bool:
    """Whether the event is as its origin hashed it. If not, it is to be redacted before it is used.

    Raises:
        BadJson: the event cannot be encoded.
    """
    hashes = event_json.get("hashes")
    try:
        claimed = decode_base64(hashes.get("sha256") if isinstance(hashes, dict) else None)
    except InvalidParam:
        return False
    return claimed == content_hash(event_json)


def reference_hash(event_json: Mapping[str, Any], room_version: RoomVersion) -> bytes:
    """The SHA-256 of the event's essential part.

    Raises:
        BadJson: the event cannot be encoded.
    """
    return hashlib.sha256(essential_json(event_json, room_version)).digest()


def event_id_of(event_json: Mapping[str, Any], room_version: RoomVersion) -> EventId:
    """The id of an event: what it says itself in room versions 1 and 2, else made of its reference hash.

    Raises:
        BadJson: the event cannot be encoded, or must have an `event_id` and has none that is right.
    """
    if room_version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
        return _assigned_event_id(event_json.get("event_id"))
    return hashed_event_id(reference_hash(event_json, room_version), room_version)


def hashed_event_id(digest: bytes, room_version: RoomVersion) -> EventId:
    """Writes a reference hash as the id of an event, for room version 3 and later."""
    if room_version.event_id_format is EventIdFormat.HASH_BASE64:
        return EventId(f"${encode_base64(digest)}")
    return EventId(f"${encode_base64_url_safe(digest)}")


def room_id_of_create(event_json: Mapping[str, Any], room_version: RoomVersion) -> RoomId:
    """The id of the room that an `m.room.create` event makes, for room version 12 and later.

    Raises:
        BadJson: the event cannot be encoded.
    """
    return RoomId(f"!{event_id_of(event_json, room_version)[1:]}")


def _assigned_event_id(value: object) -> EventId:
    try:
        event_id = EventId.parse(value)
    except InvalidParam as error:
        raise BadJson(error.message) from None
    if event_id.server_name is None:
        raise BadJson("In this room version an event id names a server")
    return event_id
