"""What redactions do that are fetched with a part of a room's history, many at once.

The rules are those of `remote_redactions.py`. A redaction whose target is still to be fetched keeps its place in the
history, and is shown there once the target has come.

https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from homeserver.core.ids import EventId, RoomId
from homeserver.core.pdu import Pdu
from homeserver.services.rooms.drafts import Rewrite
from homeserver.services.rooms.past_states import PastEvent
from homeserver.services.rooms.redactions import RedactionTarget, find_redaction_targets
from homeserver.services.rooms.remote_redactions import REDACTION, applies
from storage.database import Connection
from storage.outliers import list_known_events
from storage.timelines import list_current


@dataclass(slots=True)
class PastRedactions:
    """What the redactions among some events do.

    Attributes:
        redacted: what redacts events that are among them too, by these.
        awaiting: the redactions whose target is not here, with that.
        idle: those that have no effect and never will, so that nobody is shown them.
        rewrites: other events that get another text, each with the redaction.
    """

    redacted: dict[EventId, Pdu] = field(default_factory=dict)
    awaiting: dict[EventId, EventId] = field(default_factory=dict)
    idle: set[EventId] = field(default_factory=set)
    rewrites: dict[int, tuple[Rewrite, Pdu]] = field(default_factory=dict)


async def find_redactions(conn: Connection, room_id: RoomId, events: Sequence[PastEvent]) -> PastRedactions:
    """Finds out what redactions do.

    Args:
        conn: to read with.
        room_id: the room.
        events: the events, stored outside the graph, in its order.
    """
    outcome = PastRedactions()
    redactions = [event for event in events if event.pdu.type == REDACTION and event.rejected is None]
    if not redactions:
        return outcome
    target_ids = {event.pdu.redacts for event in redactions if event.pdu.redacts is not None}
    targets = await find_redaction_targets(conn, room_id, target_ids)
    stored = await list_known_events(conn, target_ids - targets.keys())
    current = await list_current(conn, [target.target.event.event_nid for target in targets.values()])
    own = {event.pdu.event_id: event for event in events}
    for redaction in redactions:
        pdu, target_id = redaction.pdu, redaction.pdu.redacts
        target = None if target_id is None else targets.get(target_id)
        if target_id is None or target_id in stored or (target_id in own and own[target_id].rejected is not None):
            outcome.idle.add(pdu.event_id)
        elif target is None:
            outcome.awaiting[pdu.event_id] = target_id
        elif not applies(pdu, target.target.pdu, redaction.deciding):
            outcome.idle.add(pdu.event_id)
        elif target_id not in outcome.redacted:
            _redact(outcome, target, pdu, own, is_current=target.target.event.event_nid in current)
    if not all(event.pdu.room_version.redaction_checked_on_arrival for event in redactions):
        outcome.idle.clear()  # they are events like any other
    return outcome


def _redact(
    outcome: PastRedactions, target: RedactionTarget, cause: Pdu, own: Mapping[EventId, PastEvent], *, is_current: bool
) -> None:
    """Notes what an effective redaction changes, unless its target is redacted already."""
    rewrites = target.rewrites(is_current=is_current)
    if rewrites and target.target.pdu.event_id in own:
        outcome.redacted[target.target.pdu.event_id] = cause
    for rewrite in rewrites:
        # The events that come now are written anew anyway.
        if rewrite.pdu.event_id not in own:
            outcome.rewrites.setdefault(rewrite.event_nid, (rewrite, cause))
