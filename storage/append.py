"""Writing events: the one call of the stored function `append_events`, which does all of it or nothing.

Who calls it, and why a room may have changed meanwhile, is told in `homeserver/services/rooms/append.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter

from homeserver.core.ids import EventId, RoomId
from homeserver.core.room_versions import RoomVersion
from storage.database import Connection, Row


class RoomChanged(Exception):
    """The room is not as the events were made for: read it again and make them anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to be added.

    `prev_events` and `auth_events` refer to events by `event_nid`, or by -n to the n-th event of the same call.

    Attributes:
        client_json: the event as clients see it; its last member is `unsigned`.
        federation_json: what else other servers know of it (`federation_remainder`).
        rejected: why it failed authorization.
        outlier: the event is stored already outside the graph, in this row, of this revision; None for one that is new.
        redacted_by: it was redacted before it came, and the texts are what is left of it.
        is_hidden: it holds the graph together and is shown to nobody.
    """

    event_id: str
    type: str
    state_key: str | None
    sender: str
    depth: int
    origin_server_ts: int
    client_json: str
    federation_json: str
    prev_events: Sequence[int]
    auth_events: Sequence[int]
    rejected: str | None = None
    soft_failed: bool = False
    thread_root: str | None = None
    device_id: str | None = None
    transaction_id: str | None = None
    push_actions_id: int | None = None
    outlier: tuple[int, int] | None = None
    redacted_by: str | None = None
    is_hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """A change of the current state at one slot.

    Attributes:
        event: which event stands there now, as in `NewEvent`; 0 for none.
        membership: what an `m.room.member` event of a user says; None for everything else.
        sender: of the event.
        is_local: the member is a user of this server.
    """

    type: str
    state_key: str
    event: int
    membership: str | None
    sender: str
    is_local: bool


@dataclass(frozen=True, slots=True)
class NewRelation:
    """An event of this call (-n for the n-th) that relates to another."""

    event: int
    relates_to: str
    rel_type: str
    key: str | None


@dataclass(frozen=True, slots=True)
class ReplacedEvent:
    """A stored event that gets another text.

    Attributes:
        revision: the one that the new text was made from.
        redacted_by: the event that redacts it; None if only its `unsigned` changes.
    """

    event_nid: int
    revision: int
    redacted_by: str | None
    client_json: str
    federation_json: str


@dataclass(frozen=True, slots=True)
class PushException:
    """A member for whom an event of this call (-n for the n-th) does something else than for most."""

    event: int
    user_id: str
    actions: str
    notify: bool
    highlight: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one call adds to a room: events, each the successor of the one before, and what follows from them.

    Attributes:
        state_version: the room must still have this one.
        extremities: the room must have no forward extremities but these; None if it may have any.
        state_before_id: the state before the one event, which comes from elsewhere; None if the events follow the
            current state.
        state_before_changes: how the state before the event differs from the snapshot `state_before_id`: slot, event
            there, event here (0 for none), in the order of the slots.
        is_state_forked: raises `state_version` even if the current state stays as it is.
        state_changes: how the current state changes, one entry for each slot.
        summary_changes: columns of the room's summary, with their new values.
        missing_event_ids: previous events of the first event that are not in the graph.
        awaited_target: what the one event redacts, if that is not stored; when it comes, it is redacted.
        reviewed_redactions: the redactions waiting for these events that have been looked at; they wait no longer. None
            for events made here, for which none can have waited.
    """

    room_nid: int
    state_version: int
    events: Sequence[NewEvent]
    extremities: Sequence[int] | None = None
    state_before_id: int | None = None
    state_before_changes: Sequence[tuple[int, int, int]] = ()
    is_state_forked: bool = False
    state_changes: Sequence[StateChange] = ()
    summary_changes: Sequence[tuple[str, str | None]] = ()
    relations: Sequence[NewRelation] = ()
    replaced_events: Sequence[ReplacedEvent] = ()
    push_exceptions: Sequence[PushException] = ()
    missing_event_ids: Sequence[str] = ()
    awaited_target: str | None = None
    reviewed_redactions: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Extremity:
    """An event that nothing follows yet."""

    event_nid: int
    event_id: EventId
    depth: int


@dataclass(frozen=True, slots=True)
class Appended:
    """What a call has written, and how the room is now.

    Attributes:
        state_before_id: the state before the one event that comes from elsewhere.
    """

    position: int
    event_nids: Sequence[int]
    state_version: int
    state_id: int
    extremities: Sequence[Extremity]
    state_before_id: int | None = None


EVENTS_APPENDED: Final = Counter("heliograph_events_appended", "Events that were added to rooms.")

SELECT_APPEND_EVENTS: Final = """
    SELECT is_appended, position_written, state_version, state_id, event_nids,
        extremity_nids, extremity_ids, extremity_depths
    FROM append_events(
        $1, $2, $3, $4, $5, $6::new_event[], $7::state_change[], $8::summary_change[], $9::new_relation[],
        $10::replaced_event[], $11::new_push_exception[], $12, $13, $14
    )
"""

# The room is locked first, so that nobody else derives the same state at the same time.
SELECT_APPEND_AFTER: Final = """
    SELECT added.is_appended, added.position_written, added.state_version, added.state_id, added.event_nids,
        added.extremity_nids, added.extremity_ids, added.extremity_depths, before.state_id AS state_before_id
    FROM (
        SELECT room_nid FROM rooms WHERE room_nid = $1 AND state_version = $2 FOR NO KEY UPDATE
    ) AS room
    CROSS JOIN LATERAL (
        SELECT derive_state(room.room_nid, $4, $15::integer[], $16::bigint[], $17::bigint[]) AS state_id OFFSET 0
    ) AS before
    CROSS JOIN LATERAL append_events(
        $1, $2, $3, before.state_id, $5, $6::new_event[], $7::state_change[], $8::summary_change[], $9::new_relation[],
        $10::replaced_event[], $11::new_push_exception[], $12, $13, $14
    ) AS added
"""


async def append_events(conn: Connection, batch: Batch) -> Appended:
    """Adds events to a room. As one statement it may also stand alone, without a transaction around it.

    Raises:
        RoomChanged: the room is not as the batch has it; nothing was written.
        UniqueViolation: by `events_transaction` there is an event of that transaction id already, by
            `events_event_id_key` one with that id; it may stand outside the graph, unless it was named as an outlier.
    """
    arguments = (
        batch.room_nid,
        batch.state_version,
        batch.extremities,
        batch.state_before_id,
        batch.is_state_forked,
        [event_tuple(event) for event in batch.events],
        _state_changes(batch),
        batch.summary_changes,
        _relations(batch),
        [(r.event_nid, r.revision, r.redacted_by, r.client_json, r.federation_json) for r in batch.replaced_events],
        _push_exceptions(batch),
        batch.missing_event_ids,
        batch.awaited_target,
        batch.reviewed_redactions,
    )
    changes = batch.state_before_changes
    state_before_id = batch.state_before_id
    if changes:
        row = await conn.fetchrow(
            SELECT_APPEND_AFTER, *arguments, *(list(column) for column in zip(*changes, strict=True))
        )
        state_before_id = None if row is None else row["state_before_id"]
    else:
        row = await conn.fetchrow(SELECT_APPEND_EVENTS, *arguments)
    if row is None or not row["is_appended"]:
        raise RoomChanged
    return _appended(row, state_before_id=state_before_id)


SELECT_CREATE_ROOM: Final = """
    SELECT room_nid, position_written, state_version, state_id, event_nids,
        extremity_nids, extremity_ids, extremity_depths
    FROM create_room($1, $2, $3::new_event[], $4::state_change[], $5::summary_change[], $6::new_relation[],
        $7::new_push_exception[])
"""


async def create_room(
    conn: Connection, room_id: RoomId, room_version: RoomVersion, batch: Batch
) -> tuple[int, Appended] | None:
    """Makes a room of its first events; the `room_nid` of the batch is not looked at.

    Returns:
        The room's `room_nid`, and what was written; None if there is such a room already.
    """
    row = await conn.fetchrow(
        SELECT_CREATE_ROOM,
        room_id,
        room_version.identifier,
        [event_tuple(event) for event in batch.events],
        _state_changes(batch),
        batch.summary_changes,
        _relations(batch),
        _push_exceptions(batch),
    )
    return None if row is None or row["room_nid"] is None else (row["room_nid"], _appended(row))


def _state_changes(batch: Batch) -> list[tuple[object, ...]]:
    return [(c.type, c.state_key, c.event, c.membership, c.sender, c.is_local) for c in batch.state_changes]


def _relations(batch: Batch) -> list[tuple[object, ...]]:
    return [(r.event, r.relates_to, r.rel_type, r.key) for r in batch.relations]


def _push_exceptions(batch: Batch) -> list[tuple[object, ...]]:
    return [(p.event, p.user_id, p.actions, p.notify, p.highlight) for p in batch.push_exceptions]


def _appended(row: Row, *, state_before_id: int | None = None) -> Appended:
    EVENTS_APPENDED.inc(len(row["event_nids"]))
    return Appended(
        position=row["position_written"],
        event_nids=row["event_nids"],
        state_version=row["state_version"],
        state_id=row["state_id"],
        extremities=tuple(
            Extremity(event_nid, EventId(event_id), depth)
            for event_nid, event_id, depth in zip(
                row["extremity_nids"], row["extremity_ids"], row["extremity_depths"], strict=True
            )
        ),
        state_before_id=state_before_id,
    )


def event_tuple(event: NewEvent) -> tuple[object, ...]:
    """An event as a value of the database's type `new_event`."""
    outlier_nid, outlier_revision = event.outlier or (None, None)
    return (
        event.event_id,
        event.type,
        event.state_key,
        event.sender,
        event.depth,
        event.origin_server_ts,
        event.client_json,
        event.federation_json,
        event.prev_events,
        event.auth_events,
        event.rejected,
        event.soft_failed,
        event.thread_root,
        event.device_id,
        event.transaction_id,
        event.push_actions_id,
        outlier_nid,
        outlier_revision,
        event.redacted_by,
        event.is_hidden,
    )
