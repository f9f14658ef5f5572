"""The authorization rules of all room versions, given the state before an event.

The comments give the numbers of the rules:

    versions           1-5   6-11   12
    create             1     1      1
    room id            -     -      2
    auth_events        2     2      3       (`auth_events.check_auth_events`)
    m.federate         3     3      4
    aliases            4     -      -
    member             5     4      5       (`membership.check_membership`)
    sender joined      6     5      6
    third-party invite 7     6      7
    required level     8     7      8
    state key          9     8      9
    power levels       10    9      10      (`power_level_changes.check_power_levels`)
    redaction          11    -      -       (versions 1 and 2 only, `redactions.check_redaction`)

https://spec.matrix.org/v1.19/rooms/
"""

from collections.abc import Mapping

from homeserver.core.errors import Forbidden, InvalidParam, UnsupportedRoomVersion
from homeserver.core.event_auth.auth_events import create_event_id
from homeserver.core.event_auth.auth_state import AuthState
from homeserver.core.event_auth.membership import check_membership
from homeserver.core.event_auth.power_level_changes import check_power_levels
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.event_auth.redactions import check_redaction
from homeserver.core.ids import UserId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.room_versions import room_version_named


def check_auth(pdu: Pdu, state: Mapping[StateKey, Pdu], *, power_levels: PowerLevels | None = None) -> None:
    """Checks an event against the authorization rules of its room version.

    The rule about the entries of `auth_events` is a separate one (`check_auth_events`), and so are signatures.

    Args:
        pdu: the event.
        state: the state before it, of which only the entries in `authorizing_slots(pdu)` are looked at.
        power_levels: those of this state, if the caller has read them already.

    Raises:
        Forbidden: a rule rejects the event.
    """
    if pdu.type == "m.room.create":
        _check_create(pdu)
        return
    room = AuthState(state, power_levels=power_levels)
    _check_room(pdu, room)
    # Rule 4 (1-5).
    if pdu.type == "m.room.aliases" and pdu.room_version.aliases_events_special:
        if pdu.state_key != pdu.sender.server_name:
            raise Forbidden("The state key of room aliases must be the sender's server")
        return
    # Rule 5 (6-11: 4).
    if pdu.type == "m.room.member":
        check_membership(pdu, room)
        return
    # Rule 6 (6-11: 5).
    if room.membership_of(pdu.sender) != "join":
        raise Forbidden("The sender is not in the room")
    levels = room.power_levels
    sender_level = levels.user_level(pdu.sender)
    # Rule 7 (6-11: 6).
    if pdu.type == "m.room.third_party_invite":
        if sender_level < levels.invite:
            raise Forbidden("The sender may not invite")
        return
    # Rule 8 (6-11: 7).
    if sender_level < levels.event_level(pdu.type, is_state=pdu.is_state):
        raise Forbidden(f"The sender may not send events of type {pdu.type}")
    # Rule 9 (6-11: 8).
    if pdu.state_key is not None and pdu.state_key.startswith("@") and pdu.state_key != pdu.sender:
        raise Forbidden("The state key is another user's id")
    # Rule 10 (6-11: 9).
    if pdu.type == "m.room.power_levels":
        check_power_levels(pdu, room)
    # Rule 11 (1 and 2).
    if pdu.type == "m.room.redaction" and not pdu.room_version.redaction_checked_on_arrival:
        check_redaction(pdu, levels)


def _check_create(pdu: Pdu) -> None:
    """Rule 1: the create event."""
    version = pdu.room_version
    # 1.1
    if pdu.prev_events:
        raise Forbidden("A create event comes first in its room")
    # 1.2
    if version.room_id_is_create_hash:
        if "room_id" in pdu.json:
            raise Forbidden("A create event names no room id in this room version")
    elif pdu.room_id.server_name != pdu.sender.server_name:
        raise Forbidden("The room id is not of the creator's server")
    # 1.3
    if "room_version" in pdu.content:
        try:
            room_version_named(pdu.content["room_version"])
        except UnsupportedRoomVersion as error:
            raise Forbidden("The create event names an unknown room version") from error
    # 1.4 (1-10)
    if not version.implicit_room_creator and "creator" not in pdu.content:
        raise Forbidden("The create event names no creator")
    # 1.4 (12)
    if version.creators_in_control and "additional_creators" in pdu.content:
        _check_additional_creators(pdu.content["additional_creators"])


def _check_additional_creators(value: object) -> None:
    if not isinstance(value, list):
        raise Forbidden("'additional_creators' must be an array")
    for user_id in value:
        try:
            UserId.parse(user_id)
        except InvalidParam as error:
            raise Forbidden("'additional_creators' holds something that is no user id") from error


def _check_room(pdu: Pdu, room: AuthState) -> None:
    """The rules that tie an event to its room: rule 2 (12) and rule 3 (12: 4)."""
    create = room.create
    if pdu.room_version.room_id_is_create_hash and create.event_id != create_event_id(pdu.room_id):
        raise Forbidden("The room id is not the id of the create event")
    if create.room_id != pdu.room_id:
        raise Forbidden("The create event is from another room")
    if create.content.get("m.federate") is False and pdu.sender.server_name != create.sender.server_name:
        raise Forbidden("The room is closed to other servers")
