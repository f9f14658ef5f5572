"""Adding events that other servers have made: they come signed, with a past of their own, and may fork the room.

Whoever calls this has checked the event and knows the state before it. Here it takes its place in the graph, and the
room's current state becomes what follows from all its ends.

https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from homeserver.core.clock import Clock
from homeserver.core.errors import UnavailableForNow
from homeserver.core.event_auth.auth_events import authorizing_slots
from homeserver.core.ids import EventId, ServerName
from homeserver.core.pdu import Pdu, StateKey
from homeserver.services.rooms.append import ROOM_CHANGED, wake_keys
from homeserver.services.rooms.batches import (
    push_exceptions,
    relations,
    replaced_event,
    state_change,
    summary_changes,
)
from homeserver.services.rooms.drafts import AddedEvents, PushedRoom, PushEvaluator, PushOutcome, StateEntry
from homeserver.services.rooms.event_chain import client_json, stored_form, unsigned_of_state
from homeserver.services.rooms.event_memory import EventMemory
from homeserver.services.rooms.gathered_wakes import GatheredWakes
from homeserver.services.rooms.heads import Heads
from homeserver.services.rooms.hidden_events import is_hidden
from homeserver.services.rooms.lanes import Lanes
from homeserver.services.rooms.remote_event import ArrivingEvent, CurrentAfter, RemoteEvent
from homeserver.services.rooms.remote_redactions import WaitingRedactions, find_waiting
from homeserver.services.rooms.resolution import UNSAVED, ResolvedState, StateResolver, difference
from storage.append import Appended, Batch, NewEvent, RoomChanged, StateChange, append_events
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.errors import UniqueViolation
from storage.events import GraphEvent
from storage.missing_events import Arrival, find_arrival, find_covered
from storage.outliers import find_outlier
from storage.relayed_events import insert_relayed_event
from storage.room_heads import lock_room
from storage.state import StateStore

_ATTEMPTS_UNLOCKED: Final = 3
_ATTEMPTS_MAX: Final = 8
_JITTER_MS_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is written for an event in the room as it was found, but for push rules."""

    arriving: ArrivingEvent
    after: CurrentAfter
    batch: Batch

    @property
    def is_streamed(self) -> bool:
        """Whether clients are told of the event as it comes."""
        event = self.arriving.event
        return event.is_accepted and self.arriving.outlier is None and not is_hidden(event.pdu)


class RemoteAppender:
    """Adds events of other servers to rooms that this one is in."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        server_name: ServerName,
        heads: Heads,
        lanes: Lanes,
        states: StateStore,
        resolver: StateResolver,
        push: PushEvaluator,
    ) -> None:
        """Takes its means; heads and lanes are those of the `Appender`."""
        self._db = db
        self._bus = bus
        self._clock = clock
        self._server_name = server_name
        self._heads = heads
        self._lanes = lanes
        self._states = states
        self._resolver = resolver
        self._push = push

    async def append(
        self,
        event: RemoteEvent,
        *,
        found: Arrival | None = None,
        resolver: StateResolver | None = None,
        wakes: GatheredWakes | None = None,
    ) -> AddedEvents:
        """Adds an event. Its previous events are in the graph, or named as missing.

        If it is stored outside the graph, it keeps its number, and is told to clients as history and by its effects.

        Args:
            event: the event.
            found: what it finds, if the caller has just looked.
            resolver: how states are found out, if some events have been read already.
            wakes: takes the wake that is due; None: it is given out at once.

        Raises:
            NotFound: this server does not know the room.
            UniqueViolation: by `events_event_id_key`, the event is in the graph already.
            StateUnknown: the states of the room's ends cannot be resolved.
            RoomChanged: an event that is to be rewritten has changed since it was read, or the awaited target has come,
                or the event is stored outside the graph as rejected.
            UnavailableForNow: the room is too busy.
        """
        room_id = event.pdu.room_id
        async with self._lanes.enter(room_id):
            resolver = resolver or self._resolver.using(EventMemory())
            appended = await self._append_in_lane(event, found, resolver)
        if event.is_accepted:
            await (wakes or self._bus).wake(wake_keys(room_id, [event.pdu], self._server_name), appended.position)
        ends = frozenset(end.event_id for end in appended.extremities)
        return AddedEvents(appended.position, [event.pdu], appended.event_nids, ends)

    async def _append_in_lane(self, event: RemoteEvent, found: Arrival | None, resolver: StateResolver) -> Appended:
        for attempt in range(_ATTEMPTS_MAX):
            async with self._db.connection() as conn:
                plan = await self._plan(conn, event, None if attempt else found, resolver)
                pushed = await self._pushed_room(conn, plan.arriving) if plan.is_streamed else None
            outcome = PushOutcome()
            if pushed is not None:
                (outcome,) = await self._push.evaluate(pushed, [plan.arriving.pdu])
            try:
                if attempt < _ATTEMPTS_UNLOCKED:
                    appended = await self._write(event, _with_push(plan.batch, outcome))
                else:
                    plan, appended = await self._write_locked(event, resolver, plan, outcome)
            except RoomChanged:
                if event.rewrites or event.awaited_target is not None:
                    raise
            except UniqueViolation:
                async with self._db.connection() as conn:
                    if plan.arriving.outlier is not None or await find_outlier(conn, event.pdu.event_id) is None:
                        raise
            else:
                self._remember(plan, appended)
                return appended
            ROOM_CHANGED.inc()
            await self._clock.sleep(secrets.randbelow(1 + _JITTER_MS_MAX * attempt) / 1000)
        raise UnavailableForNow("The room is too busy")

    async def _plan(
        self, conn: Connection, event: RemoteEvent, found: Arrival | None, resolver: StateResolver
    ) -> _Plan:
        if event.pdu.state_slot is not None:
            await self._states.number_slots(conn, [event.pdu.state_slot])
        arriving = await self._arriving(conn, event, found, resolver)
        after = await self._after(conn, arriving)
        return _Plan(arriving, after, await self._batch(conn, arriving, after))

    async def _write(self, event: RemoteEvent, batch: Batch) -> Appended:
        if not event.relayed:
            async with self._db.connection() as conn:
                return await append_events(conn, batch)
        async with self._db.transaction() as conn:
            return await self._write_within(conn, event, batch)

    async def _write_locked(
        self, event: RemoteEvent, resolver: StateResolver, tried: _Plan, outcome: PushOutcome
    ) -> tuple[_Plan, Appended]:
        """Adds an event while nobody else can add to the room: others have been faster several times.

        What had to be read and asked for was, when it was tried without a lock.
        """
        async with self._db.transaction() as conn:
            await lock_room(conn, event.pdu.room_id)
            plan = await self._plan(conn, event, None, resolver)
            if plan.is_streamed != tried.is_streamed:
                raise RoomChanged
            return plan, await self._write_within(conn, event, _with_push(plan.batch, outcome))

    @staticmethod
    async def _write_within(conn: Connection, event: RemoteEvent, batch: Batch) -> Appended:
        appended = await append_events(conn, batch)
        if event.relayed:
            await insert_relayed_event(conn, appended.event_nids[0])
        return appended

    async def _arriving(
        self, conn: Connection, event: RemoteEvent, found: Arrival | None, resolver: StateResolver
    ) -> ArrivingEvent:
        """Finds what is stored of an event or waits for it.

        Raises:
            RoomChanged: it has been stored as rejected meanwhile.
        """
        if found is None:
            found = await find_arrival(conn, event.pdu.room_id, event.pdu.event_id)
        outlier = await find_outlier(conn, event.pdu.event_id) if found.is_stored else None
        if outlier is not None:
            if outlier.rejected is not None and event.rejected is None:
                raise RoomChanged
            return ArrivingEvent(event, found, outlier.pdu, outlier, WaitingRedactions(), None, resolver)
        waiting = WaitingRedactions()
        if found.is_awaited:
            waiting = await find_waiting(conn, self._states, found.room, [event.pdu])
        pdu, redaction = waiting.applied_to(event.pdu)
        return ArrivingEvent(event, found, pdu, None, waiting, redaction, resolver)

    async def _batch(self, conn: Connection, arriving: ArrivingEvent, after: CurrentAfter) -> Batch:
        """What is written, but for push rules."""
        event, pdu, room = arriving.event, arriving.pdu, arriving.room
        batch = Batch(
            room_nid=room.room_nid,
            state_version=room.state_version,
            events=[await self._new_event(conn, arriving)],
            state_before_id=event.state_before.base_state_id,
            state_before_changes=await self._changes_before(conn, event.state_before),
            missing_event_ids=event.missing_event_ids,
            awaited_target=event.awaited_target,
            reviewed_redactions=arriving.waiting.reviewed,
        )
        if not event.is_accepted:
            return batch
        changed = [
            self._emptied(slot) if entry is None else self._taken(entry) for slot, entry in after.entries.items()
        ]
        emptied = [slot for slot, entry in after.entries.items() if entry is None]
        rewritten = [rewrite.pdu for rewrite in event.rewrites if rewrite.is_current]
        standing = [entry.pdu for entry in after.entries.values() if entry is not None]
        return replace(
            batch,
            extremities=room.forward_extremities,
            is_state_forked=after.is_forked or bool(rewritten),
            state_changes=changed,
            summary_changes=summary_changes([*rewritten, *standing], emptied=emptied),
            relations=relations([pdu]),
            replaced_events=[replaced_event(rewrite, pdu) for rewrite in event.rewrites],
        )

    async def _changes_before(self, conn: Connection, before: ResolvedState) -> list[tuple[int, int, int]]:
        """How the state before an event differs from its base, as `Batch` takes it."""
        if not before.changes:
            return []
        base = await self._states.load(conn, before.base_state_id)
        changes = ((slot_id, base.get(slot_id, 0), before.changes[slot_id] or 0) for slot_id in sorted(before.changes))
        return [(slot_id, old_nid, new_nid) for slot_id, old_nid, new_nid in changes if old_nid != new_nid]

    async def _new_event(self, conn: Connection, arriving: ArrivingEvent) -> NewEvent:
        event, pdu, outlier = arriving.event, arriving.pdu, arriving.outlier
        nids = await arriving.resolver.events.nids(conn, {*pdu.prev_events, *pdu.auth_events})
        replaces = await self._replaced(conn, arriving)
        form = stored_form(
            pdu,
            prev_events=_known(pdu.prev_events, nids),
            auth_events=_known(pdu.auth_events, nids),
            replaces=replaces,
            rejected=event.rejected,
            soft_failed=event.soft_failed,
            thread_root=event.thread_root,
            redaction=arriving.redaction,
            is_hidden=is_hidden(pdu),
        )
        if outlier is None:
            return form
        said: Mapping[str, Any] = orjson.loads(outlier.client_json)["unsigned"]
        unsigned = said if outlier.redacted_by is not None else {**said, **unsigned_of_state(replaces)}
        return replace(form, outlier=(outlier.event_nid, outlier.revision), client_json=client_json(pdu, unsigned))

    async def _replaced(self, conn: Connection, arriving: ArrivingEvent) -> Pdu | None:
        """For state, what stands in the event's place before it."""
        slot = arriving.event.pdu.state_slot
        if slot is None:
            return None
        entries = await arriving.resolver.entries(conn, arriving.event.state_before, [slot])
        return entries[slot][1] if slot in entries else None

    async def _pushed_room(self, conn: Connection, arriving: ArrivingEvent) -> PushedRoom:
        event, room = arriving.event, arriving.room
        entries = await arriving.resolver.entries(conn, event.state_before, authorizing_slots(event.pdu))
        state = {slot: pdu for slot, (_, pdu) in entries.items()}
        return PushedRoom(room.room_nid, room.room_id, room.room_version, room.state_version, state)

    async def _after(self, conn: Connection, arriving: ArrivingEvent) -> CurrentAfter:
        """What the current state becomes when the event is one of the room's ends."""
        if not arriving.event.is_accepted:
            return CurrentAfter({}, {}, is_forked=False)
        changes, is_forked = await self._current_after(conn, arriving)
        stored = [event_nid for event_nid in changes.values() if event_nid is not None and event_nid != UNSAVED]
        pdus = {UNSAVED: arriving.pdu, **await arriving.resolver.events.pdus(conn, stored)}
        names = await self._states.slot_names(conn, changes)
        entries = {
            names[slot_id]: None if event_nid is None else StateEntry(event_nid, pdus[event_nid])
            for slot_id, event_nid in changes.items()
        }
        return CurrentAfter(changes, entries, is_forked=is_forked)

    async def _current_after(self, conn: Connection, arriving: ArrivingEvent) -> tuple[Mapping[int, int | None], bool]:
        """The changes of the current state, and whether the ends of the graph differ in their states."""
        event, room, resolver = arriving.event, arriving.room, arriving.resolver
        covered = await self._covered(conn, arriving)
        others = [event_nid for event_nid in room.forward_extremities if event_nid not in covered]
        is_end = not (arriving.found.is_followed and others)
        own: dict[int, int] = {}
        if event.pdu.state_slot is not None:
            slot_ids = await self._states.find_slots(conn, [event.pdu.state_slot])
            own = {slot_ids[event.pdu.state_slot]: arriving.event_nid}
        before = event.state_before
        if not others and before.base_state_id == room.state_id:
            return {**before.changes, **own}, False
        states = await resolver.states_after(conn, await resolver.events.events(conn, others))
        if is_end:
            base = (await self._states.load(conn, before.base_state_id)).entries()
            states = [{**before.on(base), **own}, *states]
        after = dict(states[0])
        is_forked = any(state != after for state in states)
        if is_forked:
            after = await resolver.resolve(conn, room.room_version, states, unsaved=event.pdu)
        current: Mapping[int, int] = {}
        if room.state_id is not None:
            current = (await self._states.load(conn, room.state_id)).entries()
        return difference(current, after), is_forked

    async def _covered(self, conn: Connection, arriving: ArrivingEvent) -> frozenset[int]:
        """The events that nothing new need refer to any more once an event is there."""
        memory = arriving.resolver.events
        prev_nids = (await memory.nids(conn, arriving.pdu.prev_events)).values()
        prev_events = await memory.events(conn, prev_nids)
        if any(prev.rejected is not None or prev.soft_failed for prev in prev_events):
            return await find_covered(conn, prev_nids)
        return frozenset(prev_nids)

    def _remember(self, plan: _Plan, appended: Appended) -> None:
        """Keeps in memory what has been written."""
        arriving, after, written = plan.arriving, plan.after, plan.batch.events[0]
        event, room, event_nid = arriving.event, arriving.room, appended.event_nids[0]
        if appended.state_before_id is not None:
            before = event.state_before
            self._states.remember(appended.state_before_id, base_state_id=before.base_state_id, changes=before.changes)
        changes = {slot_id: event_nid if nid == UNSAVED else nid for slot_id, nid in after.changes.items()}
        self._states.remember(appended.state_id, base_state_id=room.state_id, changes=changes)
        memory = arriving.resolver.events
        memory.keep(
            GraphEvent(
                event_nid=event_nid,
                pdu=arriving.pdu,
                state_id=appended.state_before_id,
                rejected=event.rejected,
                soft_failed=event.soft_failed,
                size_bytes=len(written.client_json) + len(written.federation_json),
            )
        )
        for rewrite in event.rewrites:
            memory.forget(rewrite.event_nid)
        head = self._heads.find_cached(room.room_id, ())
        if head is None or head.state_version != room.state_version or event.rewrites or arriving.outlier is not None:
            self._heads.discard(room.room_id)
            return
        entries = {
            slot: StateEntry(event_nid, entry.pdu) if entry is not None and entry.event_nid == UNSAVED else entry
            for slot, entry in after.entries.items()
        }
        self._heads.advance(head, appended, entries)

    def _taken(self, entry: StateEntry) -> StateChange:
        """A slot that an event takes."""
        event = -1 if entry.event_nid == UNSAVED else entry.event_nid
        return state_change(entry.pdu, event=event, server_name=self._server_name)

    def _emptied(self, slot: StateKey) -> StateChange:
        """A slot that resolution has emptied; a user who stood there has left."""
        event_type, state_key = slot
        is_member = event_type == "m.room.member" and state_key.startswith("@")
        return StateChange(
            type=event_type,
            state_key=state_key,
            event=0,
            membership="leave" if is_member else None,
            sender=state_key,
            is_local=is_member and state_key.partition(":")[2] == self._server_name,
        )


def _with_push(batch: Batch, outcome: PushOutcome) -> Batch:
    """What is written, with what the event does to the members of the room."""
    return replace(
        batch,
        events=[replace(batch.events[0], push_actions_id=outcome.actions_id)],
        push_exceptions=push_exceptions([outcome]),
    )


def _known(event_ids: Sequence[EventId], nids: Mapping[EventId, int]) -> list[int]:
    """The numbers of those events that have one. What is missing may, too, if it is stored outside the graph."""
    return [nids[event_id] for event_id in event_ids if event_id in nids]
