"""The forms of an event: as clients see it, as servers exchange it, and as stripped state.

The store keeps an event as its client form and the remainder; the two together are the federation form, and neither
repeats the other. As text they are written by `encode_canonical` and read by `parse_json`, for in room versions 1 to 5
an event may hold integers of any size.

https://spec.matrix.org/v1.19/client-server-api/#room-event-format
"""

from collections.abc import Mapping
from typing import Any, Final

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import BadJson, MatrixError
from homeserver.core.event_format import check_event_keys
from homeserver.core.ids import UserId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import EventIdFormat, RoomVersion

STRIPPED_STATE_BYTES_MAX: Final = 65_536
"""How much stripped state is taken from another server, all its events together."""

_STRIPPED: Final = ("content", "sender", "state_key", "type")

_SHARED: Final = ("content", "origin_server_ts", "sender", "state_key", "type")


def client_event(pdu: Pdu, *, unsigned: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The form in which clients get an event.

    A redaction has `redacts` both at the top level and in its content, whatever its room version.

    Args:
        pdu: the event. What its origin wrote into `unsigned` is bound by no signature and is not shown.
        unsigned: what this server itself says about the event, for everybody who may see it.
    """
    event: dict[str, Any] = {
        "content": pdu.content,
        "event_id": pdu.event_id,
        "origin_server_ts": pdu.origin_server_ts,
        "room_id": pdu.room_id,
        "sender": pdu.sender,
        "type": pdu.type,
    }
    if pdu.state_key is not None:
        event["state_key"] = pdu.state_key
    if pdu.redacts is not None:
        event["redacts"] = pdu.redacts
        if not pdu.room_version.redacts_in_content:
            event["content"] = {**pdu.content, "redacts": pdu.redacts}
    if unsigned:
        event["unsigned"] = unsigned
    return event


def federation_remainder(pdu: Pdu) -> dict[str, Any]:
    """All of the federation form that cannot be read from the client form.

    That is `auth_events`, `prev_events`, `hashes`, `signatures`, `depth`, the origin's `unsigned` and every member
    that the specification does not name.
    """
    shared = _shared_members(client_event(pdu), pdu.room_version)
    remainder = {name: value for name, value in pdu.json.items() if name not in shared}
    if shared["content"] is not pdu.content and "redacts" in pdu.content:
        remainder["content"] = pdu.content
    return remainder


def federation_event(
    client_form: Mapping[str, Any], remainder: Mapping[str, Any], room_version: RoomVersion
) -> dict[str, Any]:
    """Puts the federation form of an event together again, exactly as it was (in canonical JSON byte for byte).

    Args:
        client_form: what `client_event` gave; its `unsigned` is not looked at.
        remainder: what `federation_remainder` gave for the same event.
    """
    return {**_shared_members(client_form, room_version), **remainder}


def stripped_state_event(pdu: Pdu) -> dict[str, Any]:
    """A state event for those who are not in the room: only its type, state key, sender and content."""
    return {"content": pdu.content, "sender": pdu.sender, "state_key": pdu.state_key, "type": pdu.type}


def parse_stripped_state(events: object) -> list[dict[str, Any]]:
    """Reads the stripped state that another server sent with an invite, or in answer to a knock.

    It is signed by nobody, so it may say anything: each event is cut to its four members, and one that is malformed
    or does not fit into `STRIPPED_STATE_BYTES_MAX` any more is left out.
    """
    kept: list[dict[str, Any]] = []
    room_left_bytes = STRIPPED_STATE_BYTES_MAX
    for event in events if isinstance(events, list) else ():
        try:
            stripped = _strip(event)
            size_bytes = len(encode_canonical(stripped))
        except MatrixError:
            continue
        if size_bytes <= room_left_bytes:
            kept.append(stripped)
            room_left_bytes -= size_bytes
    return kept


def _strip(event: object) -> dict[str, Any]:
    if not isinstance(event, dict) or not all(name in event for name in _STRIPPED):
        raise BadJson("A stripped state event has content, sender, state_key and type")
    if not all(isinstance(event[name], str) for name in ("type", "state_key")) or not isinstance(
        event["content"], dict
    ):
        raise BadJson("A member of the stripped state event has a wrong type")
    UserId.parse(event["sender"])
    check_event_keys(event["type"], event["state_key"])
    return {name: event[name] for name in _STRIPPED}


def _shared_members(client_form: Mapping[str, Any], room_version: RoomVersion) -> dict[str, Any]:
    """The members of the federation form that the client form has too, as the former has them."""
    shared = {name: client_form[name] for name in _SHARED if name in client_form}
    if room_version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
        shared["event_id"] = client_form["event_id"]
    if not (room_version.room_id_is_create_hash and client_form["type"] == "m.room.create"):
        shared["room_id"] = client_form["room_id"]
    if "redacts" in client_form and not room_version.redacts_in_content:
        shared["redacts"] = client_form["redacts"]
        shared["content"] = {name: value for name, value in client_form["content"].items() if name != "redacts"}
    return shared
