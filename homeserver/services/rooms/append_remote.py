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
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.pdu import Pdu, StateKey
from homeserver.services.rooms.append import wake_keys
from homeserver.services.rooms.batches import (
    push_exceptions,
    relations,
    replaced_event,
    state_change,
    summary_changes,
)
from homeserver.services.rooms.drafts import AddedEvents, PushedRoom, PushEvaluator, PushOutcome, Rewrite
from homeserver.services.rooms.event_chain import client_json, stored_form, unsigned_of_state
from homeserver.services.rooms.heads import Heads
from homeserver.services.rooms.hidden_events import is_hidden
from homeserver.services.rooms.lanes import Lanes
from homeserver.services.rooms.remote_redactions import WaitingRedactions, find_waiting
from homeserver.services.rooms.resolution import UNSAVED, ResolvedState, StateResolver, difference
from storage.append import Appended, Batch, NewEvent, RoomChanged, StateChange, append_events
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.errors import UniqueViolation
from storage.events import find_event_nids, list_events, list_pdus
from storage.missing_events import find_arrival
from storage.outliers import OutlierRow, find_outlier
from storage.relayed_events import insert_relayed_event
from storage.rooms import RoomRow, get_room
from storage.state import StateStore, derive_state, insert_slots

_ATTEMPTS_MAX: Final = 8
_JITTER_MS_MAX: Final = 20


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
class _After:
    """What the current state becomes: its changes by slot, and whether the ends of the graph differ in their states."""

    changes: Mapping[int, int | None]
    is_forked: bool


@dataclass(frozen=True, slots=True)
class _Arriving:
    """An event with what is stored of it or waits for it.

    Attributes:
        pdu: as it is to be stored.
        outlier: the row in which it is stored outside the graph.
    """

    event: RemoteEvent
    pdu: Pdu
    outlier: OutlierRow | None
    waiting: WaitingRedactions
    redaction: Pdu | None

    @property
    def event_nid(self) -> int:
        """Its number, or what stands for it in states."""
        return UNSAVED if self.outlier is None else self.outlier.event_nid


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

    async def append(self, event: RemoteEvent) -> AddedEvents:
        """Adds an event. Its previous events are in the graph, or named as missing.

        If it is stored outside the graph, it keeps its number, and is told to clients as history and by its effects.

        Raises:
            NotFound: this server does not know the room.
            UniqueViolation: by `events_event_id_key`, the event is in the graph already.
            StateUnknown: the states of the room's ends cannot be resolved.
            RoomChanged: an event that is to be rewritten has changed since it was read, or the awaited target has come.
            UnavailableForNow: the room is too busy.
        """
        room_id = event.pdu.room_id
        async with self._lanes.enter(room_id):
            appended = await self._append_in_lane(room_id, event)
            self._heads.discard(room_id)
        if event.is_accepted:
            await self._bus.wake(wake_keys(room_id, [event.pdu], self._server_name), appended.position)
        return AddedEvents(appended.position, [event.pdu], appended.event_nids)

    async def _append_in_lane(self, room_id: RoomId, event: RemoteEvent) -> Appended:
        if event.pdu.state_slot is not None:
            async with self._db.connection() as conn:
                await insert_slots(conn, [event.pdu.state_slot])
        for attempt in range(_ATTEMPTS_MAX):
            async with self._db.connection() as conn:
                room = await get_room(conn, room_id)
                arriving = await self._arriving(conn, room, event)
                batch = await self._batch(conn, room, arriving)
                pushed = await self._pushed_room(conn, room, event)
            is_streamed = event.is_accepted and arriving.outlier is None and not is_hidden(event.pdu)
            outcomes = await self._push.evaluate(pushed, [arriving.pdu]) if is_streamed else [PushOutcome()]
            batch = replace(
                batch,
                events=[replace(batch.events[0], push_actions_id=outcomes[0].actions_id)],
                push_exceptions=push_exceptions(outcomes),
            )
            try:
                return await self._write(room, event, batch)
            except RoomChanged:
                if event.rewrites or event.awaited_target is not None:
                    raise
            except UniqueViolation:
                async with self._db.connection() as conn:
                    if arriving.outlier is not None or await find_outlier(conn, event.pdu.event_id) is None:
                        raise
            await self._clock.sleep(secrets.randbelow(1 + _JITTER_MS_MAX * attempt) / 1000)
        raise UnavailableForNow("The room is too busy")

    async def _write(self, room: RoomRow, event: RemoteEvent, batch: Batch) -> Appended:
        async with self._db.transaction() as conn:
            state_before_id = await derive_state(
                conn,
                room_nid=room.room_nid,
                base_state_id=event.state_before.base_state_id,
                changes=event.state_before.changes,
            )
            appended = await append_events(conn, replace(batch, state_before_id=state_before_id))
            if event.relayed:
                await insert_relayed_event(conn, appended.event_nids[0])
            return appended

    async def _arriving(self, conn: Connection, room: RoomRow, event: RemoteEvent) -> _Arriving:
        outlier = await find_outlier(conn, event.pdu.event_id)
        if outlier is not None:
            return _Arriving(event, outlier.pdu, outlier, WaitingRedactions(), None)
        waiting = await find_waiting(conn, self._states, room, [event.pdu])
        pdu, redaction = waiting.applied_to(event.pdu)
        return _Arriving(event, pdu, None, waiting, redaction)

    async def _batch(self, conn: Connection, room: RoomRow, arriving: _Arriving) -> Batch:
        """What is written, but for the state before the event and for push rules."""
        event, pdu = arriving.event, arriving.pdu
        nids = await find_event_nids(conn, {*pdu.prev_events, *pdu.auth_events})
        # Those that are missing too, if they are stored outside the graph: they will come into it.
        prev_nids = [nids[event_id] for event_id in pdu.prev_events if event_id in nids]
        new_event = await self._new_event(conn, arriving, prev_nids, nids)
        batch = Batch(
            room_nid=room.room_nid,
            state_version=room.state_version,
            events=[new_event],
            missing_event_ids=event.missing_event_ids,
            awaited_target=event.awaited_target,
            reviewed_redactions=arriving.waiting.reviewed,
        )
        if not event.is_accepted:
            return batch
        after = await self._current_after(conn, room, arriving, prev_nids)
        changed, pdus = await self._state_changes(conn, after.changes, pdu)
        emptied = [(change.type, change.state_key) for change in changed if change.event == 0]
        rewritten = [rewrite.pdu for rewrite in event.rewrites if rewrite.is_current]
        return replace(
            batch,
            extremities=room.forward_extremities,
            is_state_forked=after.is_forked or bool(rewritten),
            state_changes=changed,
            summary_changes=summary_changes([*rewritten, *pdus], emptied=emptied),
            relations=relations([pdu]),
            replaced_events=[replaced_event(rewrite, pdu) for rewrite in event.rewrites],
        )

    async def _new_event(
        self, conn: Connection, arriving: _Arriving, prev_nids: Sequence[int], nids: Mapping[EventId, int]
    ) -> NewEvent:
        event, pdu, outlier = arriving.event, arriving.pdu, arriving.outlier
        replaces = await self._replaced(conn, event)
        form = stored_form(
            pdu,
            prev_events=prev_nids,
            auth_events=[nids[event_id] for event_id in pdu.auth_events if event_id in nids],
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

    async def _replaced(self, conn: Connection, event: RemoteEvent) -> Pdu | None:
        """For state, what stands in the event's place before it."""
        slot = event.pdu.state_slot
        if slot is None:
            return None
        entries = await self._resolver.entries(conn, event.state_before, [slot])
        return entries[slot][1] if slot in entries else None

    async def _pushed_room(self, conn: Connection, room: RoomRow, event: RemoteEvent) -> PushedRoom:
        entries = await self._resolver.entries(conn, event.state_before, authorizing_slots(event.pdu))
        state = {slot: pdu for slot, (_, pdu) in entries.items()}
        return PushedRoom(room.room_nid, room.room_id, room.room_version, room.state_version, state)

    async def _current_after(
        self, conn: Connection, room: RoomRow, arriving: _Arriving, prev_nids: Sequence[int]
    ) -> _After:
        """What the current state becomes when the event is one of the room's ends."""
        event = arriving.event
        arrival = await find_arrival(conn, room.room_nid, event.pdu.event_id, prev_nids)
        others = [event_nid for event_nid in room.forward_extremities if event_nid not in arrival.covered]
        is_end = not (arrival.is_followed and others)
        own: dict[int, int] = {}
        if event.pdu.state_slot is not None:
            slot_ids = await self._states.find_slots(conn, [event.pdu.state_slot])
            own = {slot_ids[event.pdu.state_slot]: arriving.event_nid}
        before = event.state_before
        if not others and before.base_state_id == room.state_id:
            return _After({**before.changes, **own}, is_forked=False)
        states = await self._resolver.states_after(conn, await list_events(conn, others))
        if is_end:
            base = (await self._states.load(conn, before.base_state_id)).entries()
            states = [{**before.on(base), **own}, *states]
        after = dict(states[0])
        is_forked = any(state != after for state in states)
        if is_forked:
            after = await self._resolver.resolve(conn, room.room_version, states, unsaved=event.pdu)
        current: Mapping[int, int] = {}
        if room.state_id is not None:
            current = (await self._states.load(conn, room.state_id)).entries()
        return _After(difference(current, after), is_forked=is_forked)

    async def _state_changes(
        self, conn: Connection, changes: Mapping[int, int | None], pdu: Pdu
    ) -> tuple[list[StateChange], list[Pdu]]:
        """Changes of the current state as they are written, and the events that stand there now."""
        stored = [event_nid for event_nid in changes.values() if event_nid is not None and event_nid != UNSAVED]
        pdus = await list_pdus(conn, stored)
        names = await self._states.slot_names(conn, [slot for slot, event_nid in changes.items() if event_nid is None])
        written = []
        for slot_id, event_nid in changes.items():
            if event_nid is None:
                written.append(self._emptied(names[slot_id]))
            elif event_nid == UNSAVED:
                written.append(state_change(pdu, event=-1, server_name=self._server_name))
            else:
                written.append(state_change(pdus[event_nid], event=event_nid, server_name=self._server_name))
        return written, [*pdus.values(), *([pdu] if UNSAVED in changes.values() else [])]

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
