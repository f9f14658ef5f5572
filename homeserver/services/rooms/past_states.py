"""The states along a part of a room's history that has been fetched, and what they allow.

The state before the earliest events is what another server says, where this one does not know what came before. From
there on each state follows from those before it, and each event is judged by it. Nothing is written here but the
snapshots of states that were asked for.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.errors import Forbidden, RemoteRefused, RemoteUnavailable, UnavailableForNow
from homeserver.core.event_auth.auth_events import CREATE, authorizing_slots, state_from_auth_events
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.services.rooms.append_line import believe_members
from homeserver.services.rooms.claimed_state import in_parts
from homeserver.services.rooms.inquiry import Inquiry
from homeserver.services.rooms.outliers import auth_event_ids
from homeserver.services.rooms.resolution import StateResolver, StateUnknown, difference
from homeserver.services.rooms.state_fetch import StateFetch
from storage.backfill import DerivedState
from storage.database import Database
from storage.events import StoredEvent, list_events, list_pdus
from storage.outliers import KnownEvent, OutlierRow, list_known_events
from storage.rooms import RoomRow
from storage.state import Snapshot, StateStore, derive_state, insert_slots

_FAILURES_MAX: Final = 5
"""A server that could not tell so many states is not asked for more of them."""
_SNAPSHOT_CHUNK: Final = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class PastState:
    """A state as a difference to a snapshot, or to the empty state.

    Attributes:
        base: the snapshot; None for the empty state.
        changes: events by slot; None where the base has an event and this state has none.
        parent: the state from which it was made by `step`; None for one that is its base.
    """

    base: Snapshot | None
    changes: Mapping[int, int | None] = field(default_factory=dict)
    parent: "PastState | None" = None
    step: Mapping[int, int | None] = field(default_factory=dict)

    def get(self, slot_id: int) -> int | None:
        """The event at a slot."""
        if slot_id in self.changes:
            return self.changes[slot_id]
        return None if self.base is None else self.base.get(slot_id)

    def entries(self) -> dict[int, int]:
        """All entries."""
        merged: dict[int, int | None] = {**(self.base.entries() if self.base is not None else {}), **self.changes}
        return {slot_id: event_nid for slot_id, event_nid in merged.items() if event_nid is not None}

    def then(self, step: Mapping[int, int | None]) -> "PastState":
        """The state that differs from this one in some slots."""
        changed = {slot_id: event_nid for slot_id, event_nid in step.items() if self.get(slot_id) != event_nid}
        return PastState(self.base, {**self.changes, **changed}, self, changed) if changed else self

    def is_same(self, other: "PastState") -> bool:
        """Whether another state is known to be the same; it may be without that."""
        one, two = (None if state.base is None else state.base.state_id for state in (self, other))
        return one == two and self.changes == other.changes


@dataclass(frozen=True, slots=True, kw_only=True)
class PastEvent:
    """An event of which it is known now where it stands.

    Attributes:
        pdu: as it came.
        row: as it is stored outside the graph.
        before: the state before it.
        rejected: why it is not allowed there; None if it is.
        replaces: for state, what stood in its place before.
        deciding: the entries of `before` by which it was judged.
    """

    pdu: Pdu
    row: OutlierRow
    before: PastState
    rejected: str | None
    replaces: Pdu | None
    deciding: Mapping[StateKey, Pdu]


class StatesToWrite:
    """Puts states in an order in which they can be written, each after what it follows from."""

    def __init__(self) -> None:
        """Starts with none."""
        self.states: list[DerivedState] = []
        self._references: dict[int, int] = {}

    def add(self, state: PastState) -> int:
        """How an event refers to a state: by its snapshot, or by -n as the n-th of `states`."""
        reference = self._references.get(id(state))
        if reference is None:
            reference = self._references[id(state)] = self._reference(state)
        return reference

    def _reference(self, state: PastState) -> int:
        if state.parent is not None:
            self.states.append(DerivedState(self.add(state.parent), state.step))
        elif state.base is not None:
            return state.base.state_id
        else:
            self.states.append(DerivedState(None, {}))
        return -len(self.states)


class PastStates:
    """Finds states out."""

    def __init__(self, *, db: Database, states: StateStore, resolver: StateResolver, state_fetch: StateFetch) -> None:
        self._db = db
        self._states = states
        self._resolver = resolver
        self._state_fetch = state_fetch

    async def judge(
        self,
        inquiry: Inquiry,
        events: Sequence[Pdu],
        rows: Mapping[EventId, OutlierRow],
        known: Mapping[EventId, KnownEvent],
        *,
        near_id: int | None,
        members_lacking: bool,
    ) -> list[PastEvent]:
        """Finds the states before events, and judges the events.

        Args:
            inquiry: whom to ask for states that do not follow from what is known; its room is one that this server is
                in.
            events: the events, in the order of the graph, oldest first.
            rows: how each is stored outside the graph.
            known: what is known of their previous events.
            near_id: the snapshot of a state that is probably much like those before the events; None for the current
                one.
            members_lacking: not all members are known in the states that are here, so those that events cite are
                believed.

        Returns:
            The events before which the state could be found out, in their order.
        """
        walk = _Walk(self._db, self._states, self._resolver, self._state_fetch, inquiry, events, rows, known)
        await walk.prepare(near_id=near_id, members_lacking=members_lacking)
        judged = []
        for pdu in events:
            event = await walk.visit(pdu)
            if event is not None:
                judged.append(event)
        return judged


class _Walk:
    """One walk along a part of a room's history."""

    def __init__(
        self,
        db: Database,
        states: StateStore,
        resolver: StateResolver,
        state_fetch: StateFetch,
        inquiry: Inquiry,
        events: Sequence[Pdu],
        rows: Mapping[EventId, OutlierRow],
        known: Mapping[EventId, KnownEvent],
    ) -> None:
        self._db = db
        self._states = states
        self._resolver = resolver
        self._state_fetch = state_fetch
        self._inquiry = inquiry
        self._events = events
        self._rows = rows
        self._known = known
        self._after: dict[EventId, PastState] = {}
        self._rejected: set[EventId] = set()
        self._failures = 0
        self._slot_ids: Mapping[StateKey, int] = {}
        self._before_walk: Mapping[int, StoredEvent] = {}
        # The events of all these states at the slots that are looked at, as they are stored.
        self._pdus: dict[int, Pdu] = {row.event_nid: row.pdu for row in rows.values()}
        # What the events cite, if that is to be believed.
        self._cited: Mapping[EventId, Pdu] = {}
        # What states that others tell are stored as differences to.
        self._near: Snapshot | None = None

    @property
    def _room(self) -> RoomRow:
        return self._inquiry.room

    async def prepare(self, *, near_id: int | None, members_lacking: bool) -> None:
        """Loads what will be needed of most events."""
        own_slots = {pdu.state_slot for pdu in self._events if pdu.state_slot is not None}
        slots = own_slots.union(*(authorizing_slots(pdu) for pdu in self._events), {CREATE})
        in_graph = [event.event_nid for event in self._known.values() if event.in_graph]
        async with self._db.connection() as conn:
            await insert_slots(conn, own_slots)
            self._slot_ids = await self._states.find_slots(conn, slots)
            self._before_walk = {event.event_nid: event for event in await list_events(conn, in_graph)}
            if near_id is not None:
                self._near = await self._states.load(conn, near_id)
            if members_lacking:
                cited = await list_known_events(conn, {each for pdu in self._events for each in auth_event_ids(pdu)})
                pdus = await list_pdus(conn, [event.event_nid for event in cited.values()])
                self._cited = {pdu.event_id: pdu for pdu in pdus.values()}

    async def visit(self, pdu: Pdu) -> PastEvent | None:
        """Finds out the state before the next event and judges it; None if the state cannot be had."""
        try:
            before = await self._state_before(pdu)
        except (RemoteRefused, RemoteUnavailable, UnavailableForNow):
            self._failures += 1
            return None
        except StateUnknown:
            return None
        row, own_slot = self._rows[pdu.event_id], pdu.state_slot
        deciding = self._at(before, authorizing_slots(pdu))
        rejected = row.rejected or await self._fault(pdu, deciding)
        after, replaces = before, None
        if rejected is not None:
            self._rejected.add(pdu.event_id)
        elif own_slot is not None:
            after = before.then({self._slot_ids[own_slot]: row.event_nid})
            replaces = self._at(before, [own_slot]).get(own_slot)
        self._after[pdu.event_id] = after
        return PastEvent(pdu=pdu, row=row, before=before, rejected=rejected, replaces=replaces, deciding=deciding)

    def _at(self, state: PastState, slots: Collection[StateKey]) -> dict[StateKey, Pdu]:
        """The entries of a state at slots."""
        found = {slot: state.get(self._slot_ids[slot]) for slot in slots if slot in self._slot_ids}
        return {slot: self._pdus[event_nid] for slot, event_nid in found.items() if event_nid is not None}

    async def _fault(self, pdu: Pdu, deciding: Mapping[StateKey, Pdu]) -> str | None:
        """Why the state before an event does not allow it, of which its own auth events do; None if it does."""
        cited = auth_event_ids(pdu)
        rejected = next((event_id for event_id in cited if event_id in self._rejected), None)
        if rejected is not None:
            return f"The auth event {rejected} was rejected"
        if {entry.event_id for entry in deciding.values()} == set(cited):
            return None
        if self._cited:
            deciding = believe_members(deciding, state_from_auth_events(pdu, self._cited), authorizing_slots(pdu))
        try:
            await asyncio.to_thread(check_auth, pdu, deciding)
        except Forbidden as error:
            return error.message
        return None

    async def _state_before(self, pdu: Pdu) -> PastState:
        """The state before an event.

        Raises:
            RemoteUnavailable, RemoteRefused, UnavailableForNow: it cannot be had.
            StateUnknown: an event that decides about conflicts is not here.
        """
        states: list[PastState] = []
        for prev_id in dict.fromkeys(pdu.prev_events):
            state = await self._state_after(prev_id)
            if not any(state.is_same(other) for other in states):
                states.append(state)
        if not states:
            return await self._state_before_first(pdu)
        if len(states) == 1:
            return states[0]
        entries = [state.entries() for state in states]
        async with self._db.connection() as conn:
            resolved = await self._resolver.resolve(conn, self._room.room_version, entries)
        return states[0].then(difference(entries[0], resolved))

    async def _state_before_first(self, pdu: Pdu) -> PastState:
        """The empty state, before the room's create event; no other event follows nothing."""
        current = await self._current()
        if self._rows[pdu.event_id].event_nid != current.get(self._slot_ids[CREATE]):
            raise StateUnknown("The event follows no other")
        return PastState(None)

    async def _current(self) -> Snapshot:
        """The current state of the room."""
        if self._room.state_id is None:
            raise StateUnknown("This server is not in the room")
        async with self._db.connection() as conn:
            return await self._states.load(conn, self._room.state_id)

    async def _state_after(self, event_id: EventId) -> PastState:
        """The state after a previous event of one of the events; raises as `_state_before`."""
        state = self._after.get(event_id)
        if state is None:
            known = self._known.get(event_id)
            state = await (self._known_after(known) if known is not None and known.in_graph else self._ask(event_id))
            self._after[event_id] = state
            await self._load_pdus(state)
        return state

    async def _known_after(self, known: KnownEvent) -> PastState:
        """The state after an event in the graph."""
        async with self._db.connection() as conn:
            state_id, changes = await self._resolver.state_after(conn, self._before_walk[known.event_nid])
            return PastState(await self._states.load(conn, state_id)).then(changes)

    async def _ask(self, event_id: EventId) -> PastState:
        """The state after an event outside the graph, as another server says."""
        if self._failures >= _FAILURES_MAX:
            raise UnavailableForNow("The server has not told other states")
        current = await self._current()
        entries = await self._state_fetch.state_after(self._inquiry, event_id)
        create_slot_id = self._slot_ids[CREATE]
        if entries.get(create_slot_id) != current.get(create_slot_id):
            raise UnavailableForNow("The state that the other server describes is that of another room")
        return PastState(await self._store(entries, self._near or current))

    async def _store(self, entries: Mapping[int, int], base: Snapshot) -> Snapshot:
        """Stores a state as a difference to another one, in parts that keep nobody waiting."""
        state_id = base.state_id
        for part in in_parts(list(difference(base.entries(), entries).items()), _SNAPSHOT_CHUNK):
            async with self._db.transaction() as conn:
                state_id = await derive_state(
                    conn, room_nid=self._room.room_nid, base_state_id=state_id, changes=dict(part)
                )
        async with self._db.connection() as conn:
            self._near = await self._states.load(conn, state_id)
        return self._near

    async def _load_pdus(self, state: PastState) -> None:
        """Loads what a state has at the slots that are looked at."""
        nids = {event_nid for slot_id in self._slot_ids.values() if (event_nid := state.get(slot_id)) is not None}
        async with self._db.connection() as conn:
            self._pdus |= await list_pdus(conn, nids - self._pdus.keys())
