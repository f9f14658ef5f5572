"""The authorization rules for `m.room.member` events.

They are rule 5 in versions 1 to 5 and 12, rule 4 in versions 6 to 11. The comments number them as version 12 does; what
an older version lacks simply does not count there (5.2 and 5.3.5 came with version 8, 5.7 with version 7).

https://spec.matrix.org/v1.19/rooms/v12/#authorization-rules
"""

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_state import AuthState
from homeserver.core.event_auth.power_levels import room_creator
from homeserver.core.event_auth.third_party_invite import check_third_party_invite
from homeserver.core.pdu import Pdu


def check_membership(pdu: Pdu, room: AuthState) -> None:
    """Checks an `m.room.member` event against the state before it.

    Rule 5.2, the signature for `join_authorised_via_users_server`, is checked with the event's other signatures.

    Raises:
        Forbidden: a rule rejects the event.
    """
    target = pdu.state_key
    # Rule 5.1.
    if target is None or "membership" not in pdu.content:
        raise Forbidden("A membership event needs a state key and a membership")
    # COMPAT(Synapse, 1.163): it can take no member event of what has no server, nor any event that follows on one.
    if ":" not in target:
        raise Forbidden("The state key of a membership event is a user id")
    match pdu.membership:
        case "join":
            _check_join(pdu, room, target=target)
        case "invite":
            _check_invite(pdu, room, target=target)
        case "leave":
            _check_leave(pdu, room, target=target)
        case "ban":
            _check_ban(pdu, room, target=target)
        case "knock" if pdu.room_version.knock_allowed:
            _check_knock(pdu, room, target=target)
        case _:
            # Rule 5.8.
            raise Forbidden("The membership is unknown")


def _check_join(pdu: Pdu, room: AuthState, *, target: str) -> None:
    """Rule 5.3."""
    # 5.3.1: the first event after the create event. No `additional_creators`, they join like anybody.
    if pdu.prev_events == (room.create.event_id,) and target == room_creator(room.create):
        return
    # 5.3.2
    if pdu.sender != target:
        raise Forbidden("Nobody can make somebody else join")
    membership = room.membership_of(pdu.sender)
    # 5.3.3
    if membership == "ban":
        raise Forbidden("The user is banned from the room")
    version = pdu.room_version
    match room.join_rule:
        case "public":
            # 5.3.6
            return
        case "invite":
            # 5.3.4
            allowed = membership in ("invite", "join")
        case "knock" if version.knock_allowed:
            # 5.3.4
            allowed = membership in ("invite", "join")
        case "restricted" if version.restricted_join_allowed:
            # 5.3.5
            allowed = membership in ("invite", "join") or _authorised_via_user(pdu, room)
        case "knock_restricted" if version.knock_restricted_allowed:
            # 5.3.5
            allowed = membership in ("invite", "join") or _authorised_via_user(pdu, room)
        case _:
            # 5.3.7
            allowed = False
    if not allowed:
        raise Forbidden("The user is not invited to the room")


def _authorised_via_user(pdu: Pdu, room: AuthState) -> bool:
    """Rule 5.3.5.2: whether the join names a member who may invite."""
    user_id = pdu.content.get("join_authorised_via_users_server")
    if not isinstance(user_id, str) or room.membership_of(user_id) != "join":
        return False
    return room.power_levels.user_level(user_id) >= room.power_levels.invite


def _check_invite(pdu: Pdu, room: AuthState, *, target: str) -> None:
    """Rule 5.4."""
    # 5.4.1
    if "third_party_invite" in pdu.content:
        check_third_party_invite(pdu, room, target=target)
        return
    # 5.4.2
    if room.membership_of(pdu.sender) != "join":
        raise Forbidden("The sender is not in the room")
    # 5.4.3
    if room.membership_of(target) in ("join", "ban"):
        raise Forbidden("The invited user is in the room already, or banned from it")
    # 5.4.4, 5.4.5
    if room.power_levels.user_level(pdu.sender) < room.power_levels.invite:
        raise Forbidden("The sender may not invite")


def _check_leave(pdu: Pdu, room: AuthState, *, target: str) -> None:
    """Rule 5.5."""
    sender_membership = room.membership_of(pdu.sender)
    # 5.5.1
    if pdu.sender == target:
        leavable = ("invite", "join", "knock") if pdu.room_version.knock_allowed else ("invite", "join")
        if sender_membership not in leavable:
            raise Forbidden("The user has no membership to give up")
        return
    # 5.5.2
    if sender_membership != "join":
        raise Forbidden("The sender is not in the room")
    levels = room.power_levels
    sender_level = levels.user_level(pdu.sender)
    # 5.5.3
    if room.membership_of(target) == "ban" and sender_level < levels.ban:
        raise Forbidden("The sender may not unban")
    # 5.5.4, 5.5.5
    if sender_level < levels.kick or levels.user_level(target) >= sender_level:
        raise Forbidden("The sender may not kick this user")


def _check_ban(pdu: Pdu, room: AuthState, *, target: str) -> None:
    """Rule 5.6."""
    # 5.6.1
    if room.membership_of(pdu.sender) != "join":
        raise Forbidden("The sender is not in the room")
    levels = room.power_levels
    sender_level = levels.user_level(pdu.sender)
    # 5.6.2, 5.6.3
    if sender_level < levels.ban or levels.user_level(target) >= sender_level:
        raise Forbidden("The sender may not ban this user")


def _check_knock(pdu: Pdu, room: AuthState, *, target: str) -> None:
    """Rule 5.7."""
    # 5.7.1
    join_rule = room.join_rule
    if join_rule != "knock" and not (join_rule == "knock_restricted" and pdu.room_version.knock_restricted_allowed):
        raise Forbidden("One cannot knock on this room")
    # 5.7.2
    if pdu.sender != target:
        raise Forbidden("Nobody can knock for somebody else")
    # 5.7.3, 5.7.4
    if room.membership_of(pdu.sender) in ("ban", "invite", "join"):
        raise Forbidden("The user is in the room, invited to it, or banned from it")
