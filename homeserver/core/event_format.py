"""The event format of each room version: which members an event has, of which types, and how large they may be.

https://spec.matrix.org/v1.19/rooms/ and https://spec.matrix.org/v1.19/client-server-api/#size-limits
"""

from collections.abc import Mapping
from typing import Any, Final

from homeserver.core.canonical_json import encode_canonical, encode_strict
from homeserver.core.errors import BadJson, InvalidParam, TooLarge
from homeserver.core.hashing import event_id_of
from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.pdu import Pdu, redacts_of
from homeserver.core.room_versions import EventIdFormat, RoomVersion
from homeserver.core.text import is_storable

EVENT_BYTES_MAX: Final = 65_536
TYPE_BYTES_MAX: Final = 255
STATE_KEY_BYTES_MAX: Final = 255
PREV_EVENTS_MAX: Final = 20
AUTH_EVENTS_MAX: Final = 10

_INT64_MAX: Final = 2**63 - 1


def parse_pdu(
    json: object,
    room_version: RoomVersion,
    *,
    room_id: RoomId | None = None,
    any_number_of_references: bool = False,
) -> Pdu:
    """Checks an event that comes from elsewhere and computes its id. Hashes and signatures are not checked here.

    Integers must fit into 64 bits; canonical JSON makes that 2^53 - 1 where the room version enforces it. The limits
    of a single key are in bytes in all room versions. `signatures` and `hashes` are checked for their shape only.

    Args:
        json: the event in its federation form. The `Pdu` keeps it as it is, so it must not be changed afterwards.
        room_version: the version of the event's room.
        room_id: the room in which the event is expected; None if it may be any.
        any_number_of_references: how many previous and auth events it has does not matter; only for the history of
            rooms, which may be older than these limits.

    Raises:
        BadJson: a member is missing or has a wrong type or value, or the event belongs to another room.
        TooLarge: the event, its type or its state key is larger than allowed.
    """
    if not isinstance(json, dict):
        raise BadJson("An event is an object")
    encoded = encode_strict(json) if room_version.strict_canonical_json else encode_canonical(json)
    if len(encoded) > EVENT_BYTES_MAX:
        raise TooLarge(f"An event is at most {EVENT_BYTES_MAX} bytes long")
    event_type, state_key, content = json.get("type"), json.get("state_key"), json.get("content")
    if not isinstance(event_type, str) or not isinstance(content, dict):
        raise BadJson("An event has a type and a content")
    check_event_keys(event_type, state_key)
    if state_key is None and "state_key" in json:
        raise BadJson("state_key must be a string")
    _check_objects(json)
    try:
        sender = UserId.parse(json.get("sender"))
        unlimited = any_number_of_references
        prev_events = _references(json, "prev_events", None if unlimited else PREV_EVENTS_MAX, room_version)
        auth_events = _references(json, "auth_events", None if unlimited else AUTH_EVENTS_MAX, room_version)
        event_id, own_room_id = _identify(json, event_type, room_version)
    except InvalidParam as error:
        raise BadJson(error.message) from None
    if room_id is not None and own_room_id != room_id:
        raise BadJson("The event belongs to another room")
    if event_type == "m.room.redaction" and not room_version.redacts_in_content:
        _check_redacts(json)
    return Pdu(
        event_id=event_id,
        room_version=room_version,
        room_id=own_room_id,
        type=event_type,
        sender=sender,
        state_key=state_key,
        origin_server_ts=_integer(json, "origin_server_ts", at_least=-_INT64_MAX, at_most=_INT64_MAX),
        depth=_integer(json, "depth", at_least=0, at_most=_INT64_MAX),
        content=content,
        prev_events=prev_events,
        auth_events=auth_events,
        redacts=redacts_of(json, room_version),
        json=json,
    )


def check_event_keys(event_type: str, state_key: object) -> None:
    """Checks the type and the state key of an event; None is the state key of an event that is no state.

    Raises:
        BadJson: the state key is no string, or one of them has a NUL or a lone surrogate.
        TooLarge: one of them is longer than 255 bytes.
    """
    if state_key is not None and not isinstance(state_key, str):
        raise BadJson("state_key must be a string")
    _check_text("type", event_type, TYPE_BYTES_MAX)
    if state_key:
        _check_text("state_key", state_key, STATE_KEY_BYTES_MAX)


def check_client_event(
    *, event_type: str, state_key: str | None, content: object, room_version: RoomVersion
) -> Mapping[str, Any]:
    """Checks what a client wants to send, before the rest of the event is known.

    Returns:
        The content, of which is known now that it is an object.

    Raises:
        BadJson: the content is no object or cannot stand in an event of the room version, or the type or the state
            key have characters that cannot be stored.
        TooLarge: one of the three alone is too large.
    """
    check_event_keys(event_type, state_key)
    if not isinstance(content, dict):
        raise BadJson("The content of an event is an object")
    encoded = encode_strict(content) if room_version.strict_canonical_json else encode_canonical(content)
    if len(encoded) > EVENT_BYTES_MAX:
        raise TooLarge(f"An event is at most {EVENT_BYTES_MAX} bytes long")
    return content


def _check_text(name: str, text: str, bytes_max: int) -> None:
    if not is_storable(text):
        raise BadJson(f"{name} holds a character that is not allowed")
    if len(text) > bytes_max or len(text.encode()) > bytes_max:
        raise TooLarge(f"{name} is longer than {bytes_max} bytes")


def _check_objects(json: Mapping[str, Any]) -> None:
    """Checks the shape of `hashes`, `signatures` and `unsigned`."""
    hashes, signatures = json.get("hashes"), json.get("signatures")
    if not isinstance(hashes, dict) or not isinstance(hashes.get("sha256"), str):
        raise BadJson("hashes must hold a sha256")
    if not isinstance(signatures, dict):
        raise BadJson("signatures must be an object")
    for by_server in signatures.values():
        if not isinstance(by_server, dict) or not all(isinstance(signature, str) for signature in by_server.values()):
            raise BadJson("signatures must hold an object of strings for each server")
    if not isinstance(json.get("unsigned", {}), dict):
        raise BadJson("unsigned must be an object")


def _check_redacts(json: Mapping[str, Any]) -> None:
    if not isinstance(json.get("redacts", ""), str):
        raise BadJson("redacts must be a string")


def _integer(json: Mapping[str, Any], name: str, *, at_least: int, at_most: int) -> int:
    value = json.get(name)
    if type(value) is not int:
        raise BadJson(f"{name} must be an integer")
    if not at_least <= value <= at_most:
        raise BadJson(f"{name} is out of range")
    return value


def _identify(json: Mapping[str, Any], event_type: str, room_version: RoomVersion) -> tuple[EventId, RoomId]:
    """The event's id and its room's, which the create event of room version 12 has only by its hash."""
    event_id = event_id_of(json, room_version)
    if room_version.room_id_is_create_hash and event_type == "m.room.create":
        if "room_id" in json:
            raise BadJson("In this room version the create event has no room_id")
        return event_id, RoomId(f"!{event_id[1:]}")
    room_id = RoomId.parse(json.get("room_id"))
    if (room_id.server_name is None) is not room_version.room_id_is_create_hash:
        raise BadJson("The room id does not have the form of this room version")
    return event_id, room_id


def _references(
    json: Mapping[str, Any], name: str, count_max: int | None, room_version: RoomVersion
) -> tuple[EventId, ...]:
    """Reads `prev_events` or `auth_events`: ids, or in versions 1 and 2 pairs of an id and its hashes.

    Of the hashes in the pairs only the shape is checked: no rule uses them.
    """
    references = json.get(name)
    if not isinstance(references, list):
        raise BadJson(f"{name} must be a list")
    if count_max is not None and len(references) > count_max:
        raise BadJson(f"{name} holds more than {count_max} events")
    if room_version.event_id_format is not EventIdFormat.SERVER_ASSIGNED:
        return tuple(EventId.parse(reference) for reference in references)
    for pair in references:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], dict):
            raise BadJson(f"{name} must hold pairs of an event id and its hashes")
    return tuple(EventId.parse(pair[0]) for pair in references)
