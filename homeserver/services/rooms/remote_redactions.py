"""What redactions of other servers do. They come before or after what they redact, and may not be allowed to.

From room version 3 on a redaction is shown to clients only once it has taken effect: until then, and if it never does,
it is kept like a soft-failed event. One whose target is not here yet waits for it, and then the target is stored
redacted from the start.

https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import CREATE, POWER_LEVELS
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.event_auth.redactions import redaction_applies
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.redaction import redact
from homeserver.services.rooms.drafts import Rewrite
from homeserver.services.rooms.redactions import find_redaction_target
from storage.database import Connection
from storage.events import find_event, list_events, list_pdus
from storage.pending_redactions import list_pending_redactions
from storage.room_heads import is_current
from storage.rooms import RoomRow
from storage.state import StateStore

_CANDIDATES_MAX: Final = 20

REDACTION: Final = "m.room.redaction"


@dataclass(frozen=True, slots=True)
class RedactionEffect:
    """What a redaction does when it comes.

    Attributes:
        takes_effect: it is allowed to redact its target, which is here.
        rewrites: the stored events that get another text.
        awaited_target: what it redacts when that comes.
    """

    takes_effect: bool
    rewrites: Sequence[Rewrite] = ()
    awaited_target: EventId | None = None


async def effect_of(
    conn: Connection, room: RoomRow, redaction: Pdu, state_before: Mapping[StateKey, Pdu]
) -> RedactionEffect:
    """Finds out what a redaction does that has come and is allowed by the authorization rules.

    Args:
        conn: to read with.
        room: the room.
        redaction: an `m.room.redaction`.
        state_before: at least create event and power levels of the state before it.
    """
    if redaction.redacts in (None, redaction.event_id):
        return RedactionEffect(takes_effect=False)
    found = await find_redaction_target(conn, room.room_id, redaction.redacts)
    if found is None:
        is_stored = await find_event(conn, redaction.redacts) is not None
        return RedactionEffect(takes_effect=False, awaited_target=None if is_stored else redaction.redacts)
    target = found.target.pdu
    if not applies(redaction, target, state_before):
        return RedactionEffect(takes_effect=False)
    stands = target.is_state and await is_current(conn, found.target.event.event_nid)
    return RedactionEffect(takes_effect=True, rewrites=found.rewrites(is_current=stands))


@dataclass(frozen=True, slots=True)
class WaitingRedactions:
    """The redactions that have waited for some events.

    Attributes:
        reviewed: the numbers of all that were found.
        taking_effect: those that redact their target, by its id.
    """

    reviewed: Sequence[int] = ()
    taking_effect: Mapping[EventId, Pdu] = field(default_factory=dict)

    def applied_to(self, pdu: Pdu) -> tuple[Pdu, Pdu | None]:
        """An event as it is to be stored, and what has redacted it."""
        redaction = self.taking_effect.get(pdu.event_id)
        return (pdu, None) if redaction is None else (redacted(pdu), redaction)


async def find_waiting(conn: Connection, states: StateStore, room: RoomRow, events: Sequence[Pdu]) -> WaitingRedactions:
    """Finds the redactions that have waited for events which come now."""
    pending = await list_pending_redactions(conn, room.room_nid, [pdu.event_id for pdu in events])
    if not pending:
        return WaitingRedactions()
    targets = {pdu.event_id: pdu for pdu in events}
    candidates: dict[EventId, list[int]] = {}
    for target_id, redaction_nid in pending:
        candidates.setdefault(target_id, []).append(redaction_nid)
    nids = [nid for of_target in candidates.values() for nid in of_target[:_CANDIDATES_MAX]]
    redactions = await list_pdus(conn, nids)
    state_ids = {event.event_nid: event.state_id for event in await list_events(conn, nids)}
    taking_effect: dict[EventId, Pdu] = {}
    for target_id, of_target in candidates.items():
        for nid in of_target[:_CANDIDATES_MAX]:
            state_id = state_ids.get(nid)
            if state_id is None:
                continue
            if applies(redactions[nid], targets[target_id], await _deciding(conn, states, state_id)):
                taking_effect[target_id] = redactions[nid]
                break
    return WaitingRedactions([nid for _, nid in pending], taking_effect)


async def _deciding(conn: Connection, states: StateStore, state_id: int) -> dict[StateKey, Pdu]:
    """Create event and power levels of a state."""
    slot_ids = await states.find_slots(conn, [CREATE, POWER_LEVELS])
    snapshot = await states.load(conn, state_id)
    nids = {slot: snapshot.get(slot_id) for slot, slot_id in slot_ids.items()}
    pdus = await list_pdus(conn, [nid for nid in nids.values() if nid is not None])
    return {slot: pdus[nid] for slot, nid in nids.items() if nid is not None}


def applies(redaction: Pdu, target: Pdu, state_before: Mapping[StateKey, Pdu]) -> bool:
    """Whether an accepted redaction takes effect, by create event and power levels of the state before it."""
    create = state_before.get(CREATE)
    if create is None:
        return False
    try:
        levels = PowerLevels.in_force(state_before.get(POWER_LEVELS), create)
    except Forbidden:
        return False
    return redaction_applies(redaction=redaction, target=target, power_levels=levels)


def redacted(pdu: Pdu) -> Pdu:
    """What a redaction leaves of an event."""
    return Pdu.trusted(redact(pdu.json, pdu.room_version), pdu.event_id, pdu.room_version, pdu.room_id)
