"""Events of other servers on their way into a room: as they were judged, and with what they find there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.services.rooms.drafts import Rewrite, StateEntry
from homeserver.services.rooms.remote_redactions import WaitingRedactions
from homeserver.services.rooms.resolution import UNSAVED, ResolvedState, StateResolver
from storage.missing_events import Arrival
from storage.outliers import OutlierRow
from storage.rooms import RoomRow


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteEvent:
    """An event from another server, judged.

    Attributes:
        state_before: the state before it, from its previous events.
        rejected: why the authorization rules do not allow it there; None if they do.
        soft_failed: they do not allow it in the room as it is now, or it is a redaction that has no effect (yet).
        thread_root: the root of the thread that it belongs to.
        rewrites: the stored events that get another text by it.
        missing_event_ids: those of its previous events that are not in the graph.
        awaited_target: what it redacts when that comes; only for a redaction whose target is not stored.
        relayed: this server passes it on to the servers in the room.
    """

    pdu: Pdu
    state_before: ResolvedState
    rejected: str | None = None
    soft_failed: bool = False
    thread_root: EventId | None = None
    rewrites: Sequence[Rewrite] = ()
    missing_event_ids: Sequence[EventId] = ()
    awaited_target: EventId | None = None
    relayed: bool = False

    @property
    def is_accepted(self) -> bool:
        """Whether it becomes a part of the room."""
        return self.rejected is None and not self.soft_failed


@dataclass(frozen=True, slots=True)
class CurrentAfter:
    """What the current state becomes.

    Attributes:
        changes: its changes, events by slot, as numbers; None for an empty slot.
        entries: the same, as what they stand for.
        is_forked: the ends of the graph differ in their states.
    """

    changes: Mapping[int, int | None]
    entries: Mapping[StateKey, StateEntry | None]
    is_forked: bool


@dataclass(frozen=True, slots=True)
class ArrivingEvent:
    """An event with what is stored of it or waits for it.

    Attributes:
        found: what it finds in the room.
        pdu: as it is to be stored.
        outlier: the row in which it is stored outside the graph.
        resolver: how states are found out for it.
    """

    event: RemoteEvent
    found: Arrival
    pdu: Pdu
    outlier: OutlierRow | None
    waiting: WaitingRedactions
    redaction: Pdu | None
    resolver: StateResolver

    @property
    def room(self) -> RoomRow:
        """The room as it is now."""
        return self.found.room

    @property
    def event_nid(self) -> int:
        """Its number, or what stands for it in states."""
        return UNSAVED if self.outlier is None else self.outlier.event_nid
