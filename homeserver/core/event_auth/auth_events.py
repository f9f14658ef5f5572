"""Which events of the state an event has to cite as its `auth_events`, and the rule about those it does cite.

https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection
"""

from collections.abc import Iterable, Mapping, Set
from typing import Any, Final

from homeserver.core.errors import Forbidden
from homeserver.core.ids import EventId, RoomId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.room_versions import RoomVersion

CREATE: Final[StateKey] = ("m.room.create", "")
POWER_LEVELS: Final[StateKey] = ("m.room.power_levels", "")
JOIN_RULES: Final[StateKey] = ("m.room.join_rules", "")


def member_slot(user_id: str) -> StateKey:
    """Where the membership of a user stands in the state."""
    return ("m.room.member", user_id)


def create_event_id(room_id: RoomId) -> EventId:
    """The id of the create event of a room of version 12 or later, which the room id spells out."""
    return EventId("$" + room_id[1:])


def auth_event_slots(
    *, event_type: str, sender: str, state_key: str | None, content: Mapping[str, Any], room_version: RoomVersion
) -> frozenset[StateKey]:
    """The auth events selection: which entries of the state an event cites as `auth_events`, where they exist.

    The entry for the create event is left out in version 12 and later; the rules need the create event all the same
    (`authorizing_slots`).
    """
    if event_type == CREATE[0]:
        return frozenset()
    slots = {POWER_LEVELS, member_slot(sender)}
    if not room_version.room_id_is_create_hash:
        slots.add(CREATE)
    if event_type == "m.room.member" and state_key is not None:
        slots.add(member_slot(state_key))
        slots.update(_membership_slots(content, room_version))
    return frozenset(slots)


def _membership_slots(content: Mapping[str, Any], room_version: RoomVersion) -> Iterable[StateKey]:
    """What a change of membership cites beyond the members themselves."""
    membership = content.get("membership")
    if membership in ("join", "invite", "knock"):
        yield JOIN_RULES
    if membership == "invite":
        token = third_party_invite_token(content)
        if token is not None:
            yield ("m.room.third_party_invite", token)
    if membership == "join" and room_version.restricted_join_allowed:
        authorizing_user = content.get("join_authorised_via_users_server")
        if isinstance(authorizing_user, str):
            yield member_slot(authorizing_user)


def third_party_invite_token(content: Mapping[str, Any]) -> str | None:
    """`third_party_invite.signed.token` of a member event's content, if it is there and a string."""
    invite = content.get("third_party_invite")
    signed = invite.get("signed") if isinstance(invite, Mapping) else None
    token = signed.get("token") if isinstance(signed, Mapping) else None
    return token if isinstance(token, str) else None


def pdu_auth_slots(pdu: Pdu) -> frozenset[StateKey]:
    """The auth events selection for an event that exists."""
    return auth_event_slots(
        event_type=pdu.type,
        sender=pdu.sender,
        state_key=pdu.state_key,
        content=pdu.content,
        room_version=pdu.room_version,
    )


def authorizing_slots(pdu: Pdu) -> frozenset[StateKey]:
    """The entries of the state that `check_auth` looks at: the selection and, in every version, the create event."""
    return frozenset() if pdu.type == CREATE[0] else pdu_auth_slots(pdu) | {CREATE}


def check_auth_events(pdu: Pdu, auth_events: Mapping[EventId, Pdu], *, rejected: Set[EventId]) -> None:
    """Checks the rule about the entries of an event's `auth_events` (rule 2; in version 12 and later rules 2 and 3).

    Args:
        pdu: the event.
        auth_events: at least the events that it cites, and from version 12 on the room's create event
            (`create_event_id`). Further ones do no harm.
        rejected: at least those of them that were rejected.

    Raises:
        Forbidden: an entry breaks the rule, or is not among `auth_events`.
    """
    if pdu.type == CREATE[0]:
        return
    if pdu.room_version.room_id_is_create_hash:
        # Rule 2 (12 and later).
        _check_room_has_create_event(pdu, auth_events, rejected)
    expected = pdu_auth_slots(pdu)
    seen: set[StateKey] = set()
    for event_id in pdu.auth_events:
        auth_event = auth_events.get(event_id)
        if auth_event is None:
            raise Forbidden(f"The auth event {event_id} is not known")
        slot = auth_event.state_slot
        # Rule 2.2 (12: 3.2). It comes first, for only state events have a slot.
        if slot is None or slot not in expected:
            raise Forbidden(f"The auth event {event_id} is not one that the event needs")
        # Rule 2.1 (12: 3.1).
        if slot in seen:
            raise Forbidden(f"There is more than one auth event of type {slot[0]} for the same state key")
        seen.add(slot)
        # Rule 2.3 (12: 3.3).
        if event_id in rejected:
            raise Forbidden(f"The auth event {event_id} was rejected")
        # Rule 2.5 (12: 3.5).
        if auth_event.room_id != pdu.room_id:
            raise Forbidden(f"The auth event {event_id} is from another room")
    # Rule 2.4 (not in 12 and later).
    if CREATE in expected and CREATE not in seen:
        raise Forbidden("There is no create event among the auth events")


def _check_room_has_create_event(pdu: Pdu, events: Mapping[EventId, Pdu], rejected: Set[EventId]) -> None:
    event_id = create_event_id(pdu.room_id)
    create = events.get(event_id)
    if create is None or create.state_slot != CREATE or event_id in rejected:
        raise Forbidden("The room id is not the id of an accepted create event")


def state_from_auth_events(pdu: Pdu, auth_events: Mapping[EventId, Pdu]) -> dict[StateKey, Pdu]:
    """The state that an event's own auth events make up, to check the event against (receipt check 4).

    Args:
        pdu: the event; it has passed `check_auth_events`.
        auth_events: as for `check_auth_events`.
    """
    event_ids = pdu.auth_events
    if pdu.room_version.room_id_is_create_hash and pdu.type != CREATE[0]:
        event_ids = (create_event_id(pdu.room_id), *event_ids)
    found = (auth_events[event_id] for event_id in event_ids)
    return {event.state_slot: event for event in found if event.state_slot is not None}
