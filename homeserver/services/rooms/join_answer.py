"""What the answer to send_join must be like, given its events as they have come through the gate.

Nobody can say whether the state in it is right. It can be said whether it is a state at all, of the room that was asked
for, and one in which our join is allowed.

https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from homeserver.core.errors import BadJson, Forbidden, InvalidParam, RemoteUnavailable, TooLarge
from homeserver.core.event_auth.auth_events import CREATE, authorizing_slots, check_auth_events
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.event_format import parse_pdu
from homeserver.core.hashing import reference_hash
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.services.remote import EventJson
from homeserver.services.rooms.member_template import AUTHORISED_VIA
from storage.rooms import RoomRow

_VERSION_UNNAMED: Final = "1"


def state_of(events: Sequence[Pdu]) -> dict[StateKey, Pdu]:
    """The state that the events of an answer make up.

    Raises:
        RemoteUnavailable: it is none: an event is no state, or there are two for one slot.
    """
    state: dict[StateKey, Pdu] = {}
    for pdu in events:
        slot = pdu.state_slot
        if slot is None or (slot in state and state[slot].event_id != pdu.event_id):
            raise RemoteUnavailable("The other server's answer holds no state of a room")
        state[slot] = pdu
    return state


def check_room(room: RoomRow, state: Mapping[StateKey, Pdu], events: Iterable[Pdu]) -> None:
    """Checks that a state has the one create event of a room, and that this is of the room's version.

    Args:
        room: the room that it is to be a state of.
        state: the state.
        events: all events of the answer.

    Raises:
        RemoteUnavailable: it is not so.
    """
    create = state.get(CREATE)
    if create is None:
        raise RemoteUnavailable("The other server's answer holds no create event")
    if any(pdu.state_slot == CREATE and pdu.event_id != create.event_id for pdu in events):
        raise RemoteUnavailable("The other server's answer holds several create events")
    named = create.content.get("room_version", _VERSION_UNNAMED)
    if create.room_id != room.room_id or named != room.room_version.identifier:
        raise RemoteUnavailable("The other server's answer is about another room, or one of another version")


def check_join_allowed(
    join: Pdu, state: Mapping[StateKey, Pdu], events: Mapping[EventId, Pdu], *, rejected: Collection[EventId]
) -> None:
    """Checks our join by its own auth events, and by the state before it.

    Args:
        join: our join.
        state: the state.
        events: at least its auth events and the create event, as far as they are known.
        rejected: those of them that were rejected.

    Raises:
        RemoteUnavailable: it is not allowed, so either of both is wrong.
    """
    try:
        check_auth_events(join, events, rejected=frozenset(rejected))
        check_auth(join, {slot: state[slot] for slot in authorizing_slots(join) if slot in state})
    except Forbidden as error:
        raise RemoteUnavailable(f"The other server's answer does not allow our join: {error.message}") from error


def with_their_signatures(join: Pdu, event: EventJson | None) -> EventJson:
    """Our join with the signatures that the other server has added to it.

    Args:
        join: our join.
        event: the join as the other server has returned it; None if it did not.

    Raises:
        RemoteUnavailable: it is another event, or was not returned although others need its signature.
    """
    if event is None:
        if AUTHORISED_VIA in join.content:
            raise RemoteUnavailable("The other server has not signed our join")
        return join.json
    try:
        returned = parse_pdu(event, join.room_version, room_id=join.room_id)
    except (BadJson, InvalidParam, TooLarge) as error:
        raise RemoteUnavailable("The other server returned something that is no event") from error
    if reference_hash(returned.json, join.room_version) != reference_hash(join.json, join.room_version):
        raise RemoteUnavailable("The other server returned another event than our join")
    return {**join.json, "signatures": {**returned.json["signatures"], **join.json["signatures"]}}
