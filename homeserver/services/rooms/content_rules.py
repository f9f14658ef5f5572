"""What this server asks of the content of events that its own users send, beyond what the rooms' rules ask.

Everything here depends on the content alone.

https://spec.matrix.org/v1.19/client-server-api/#room-events
"""

from collections.abc import Mapping
from typing import Any

from homeserver.core.canonical_json import INTEGER_MAX
from homeserver.core.errors import BadJson, Forbidden, InvalidParam, InvalidRoomState
from homeserver.core.event_auth.power_levels import LEVEL_DEFAULTS
from homeserver.core.ids import RoomAlias, RoomId, ServerName
from homeserver.core.server_acl import ServerAcl

# No set: what is looked for may be an object, which no set can hold.
_MEMBERSHIPS = ("join", "invite", "knock", "leave", "ban")


def check_message(event_type: str, content: Mapping[str, Any], *, room_id: RoomId) -> None:
    """Checks an event that is no state.

    Raises:
        Forbidden: it is another create event.
        BadJson: an `m.room.redaction` says wrongly what it redacts.
        InvalidParam: a room would replace itself.
    """
    if event_type == "m.room.create":
        raise Forbidden("A room is created only once")
    if event_type == "m.room.redaction" and not isinstance(content.get("redacts"), str):
        raise BadJson("A redaction says in `redacts` what it redacts")
    if event_type == "m.room.tombstone" and content.get("replacement_room") == room_id:
        raise InvalidParam("A room cannot replace itself")


def check_state(
    event_type: str, state_key: str, content: Mapping[str, Any], *, room_id: RoomId | None, server_name: ServerName
) -> None:
    """Checks a state event.

    Args:
        event_type: of the event.
        state_key: of the event.
        content: of the event.
        room_id: its room; None if that is being created.
        server_name: this server's.

    Raises:
        Forbidden: it is another create event (InvalidRoomState if the room is being created).
        BadJson: the content has a wrong form.
        InvalidParam: it names something that is no alias, or this server would shut itself out.
    """
    match event_type:
        case "m.room.create" if room_id is not None:
            raise Forbidden("A room is created only once")
        case "m.room.create":
            raise InvalidRoomState("A room is created only once")
        case "m.room.redaction":
            raise BadJson("A redaction is no state event")
        case "m.room.member" if content.get("membership") not in _MEMBERSHIPS:
            raise BadJson("The membership is unknown")
        case "m.room.power_levels" if state_key == "":
            _check_power_levels(content)
        case "m.room.canonical_alias" if state_key == "":
            named_aliases(content)
        case "m.room.server_acl" if state_key == "" and _shuts_out(content, server_name):
            raise InvalidParam("This access control list would shut out this server")
        case "m.room.tombstone" if room_id is not None and content.get("replacement_room") == room_id:
            raise InvalidParam("A room cannot replace itself")


def _shuts_out(content: Mapping[str, Any], server_name: ServerName) -> bool:
    """Whether an access control list keeps this server out, which nobody can want.

    A server whose name has a port may share its host with others. Lists do not tell them apart, so it may be wanted.
    """
    return server_name.port is None and not ServerAcl.parse(content).allows(server_name)


def named_aliases(content: Mapping[str, Any]) -> list[RoomAlias]:
    """The aliases in the content of an `m.room.canonical_alias` event.

    Raises:
        InvalidParam: one has a wrong form.
    """
    alias, alternatives = content.get("alias"), content.get("alt_aliases", [])
    if not isinstance(alternatives, list):
        raise InvalidParam("alt_aliases must be an array")
    named = alternatives if alias is None or alias == "" else [alias, *alternatives]
    return [RoomAlias.parse(name) for name in named]


def _check_power_levels(content: Mapping[str, Any]) -> None:
    """All levels are integers, also in the room versions whose rules let others pass."""
    for name in LEVEL_DEFAULTS:
        _check_level(name, content.get(name, 0))
    for name in ("users", "events", "notifications"):
        levels = content.get(name, {})
        if not isinstance(levels, dict):
            raise BadJson(f"'{name}' in the power levels must be an object")
        for level in levels.values():
            _check_level(name, level)


def _check_level(name: str, level: object) -> None:
    if type(level) is not int or abs(level) > INTEGER_MAX:
        raise BadJson(f"'{name}' in the power levels must be an integer")
