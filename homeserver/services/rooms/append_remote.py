"""Adding events that other servers have made: they come signed, with a past of their own, and may fork the room.

Whoever calls this has checked the event and knows the state before it. Here it takes its place in the graph, and the
room's current state becomes what follows from all its ends.

https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

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
from homeserver.services.rooms.event_chain import stored_form
from homeserver.services.rooms.heads import Heads
from homeserver.services.rooms.lanes import Lanes
from homeserver.services.rooms.resolution import UNSAVED, ResolvedState, StateResolver, difference
from storage.append import Appended, Batch, RoomChanged, StateChange, append_events
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.events import find_event_nids, list_events, list_pdus
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
        soft_failed: they do not allow it in the room as it is now.
        thread_root: the root of the thread that it belongs to.
        rewrites: the stored events that get another text by it.
    """

    pdu: Pdu
    state_before: ResolvedState
    rejected: str | None = None
    soft_failed: bool = False
    thread_root: EventId | None = None
    rewrites: Sequence[Rewrite] = ()

    @property
    def is_accepted(self) -> bool:
        """Whether it becomes a part of the room."""
        return self.rejected is None and not self.soft_failed


@dataclass(frozen=True, slots=True)
class _After:
    """What the current state becomes: its changes by slot, and whether the ends of the graph differ in their states."""

    changes: Mapping[int, int | None]
    is_forked: bool


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
        """Adds an event whose previous events are stored.

        Raises:
            NotFound: this server does not know the room.
            UniqueViolation: by `events_event_id_key`, the event is stored already.
            StateUnknown: the states of the room's ends cannot be resolved.
            RoomChanged: an event that is to be rewritten has changed since it was read.
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
                batch = await self._batch(conn, room, event)
                pushed = await self._pushed_room(conn, room, event)
            outcomes = await self._push.evaluate(pushed, [event.pdu]) if event.is_accepted else [PushOutcome()]
            batch = replace(
                batch,
                events=[replace(batch.events[0], push_actions_id=outcomes[0].actions_id)],
                push_exceptions=push_exceptions(outcomes),
            )
            try:
                async with self._db.transaction() as conn:
                    state_before_id = await derive_state(
                        conn,
                        room_nid=room.room_nid,
                        base_state_id=event.state_before.base_state_id,
                        changes=event.state_before.changes,
                    )
                    return await append_events(conn, replace(batch, state_before_id=state_before_id))
            except RoomChanged:
                if event.rewrites:
                    raise
                await self._clock.sleep(secrets.randbelow(1 + _JITTER_MS_MAX * attempt) / 1000)
        raise UnavailableForNow("The room is too busy")

    async def _batch(self, conn: Connection, room: RoomRow, event: RemoteEvent) -> Batch:
        """What is written, but for the state before the event and for push rules."""
        pdu = event.pdu
        nids = await find_event_nids(conn, {*pdu.prev_events, *pdu.auth_events})
        prev_nids = [nids[event_id] for event_id in pdu.prev_events if event_id in nids]
        replaces = await self._replaced(conn, event)
        new_event = stored_form(
            pdu,
            prev_events=prev_nids,
            auth_events=[nids[event_id] for event_id in pdu.auth_events if event_id in nids],
            replaces=replaces,
            rejected=event.rejected,
            soft_failed=event.soft_failed,
            thread_root=event.thread_root,
        )
        if not event.is_accepted:
            return Batch(room_nid=room.room_nid, state_version=room.state_version, events=[new_event])
        after = await self._current_after(conn, room, event, prev_nids)
        changed, pdus = await self._state_changes(conn, after.changes, pdu)
        emptied = [(change.type, change.state_key) for change in changed if change.event == 0]
        rewritten = [rewrite.pdu for rewrite in event.rewrites if rewrite.is_current]
        return Batch(
            room_nid=room.room_nid,
            state_version=room.state_version,
            extremities=room.forward_extremities,
            is_state_forked=after.is_forked or bool(rewritten),
            events=[new_event],
            state_changes=changed,
            summary_changes=summary_changes([*rewritten, *pdus], emptied=emptied),
            relations=relations([pdu]),
            replaced_events=[replaced_event(rewrite, pdu) for rewrite in event.rewrites],
        )

    async def _replaced(self, conn: Connection, event: RemoteEvent) -> Pdu | None:
        """For state, what stands in the event's place before it."""
        slot = event.pdu.state_slot
        return None if slot is None else (await self._entries_before(conn, event, [slot])).get(slot)

    async def _pushed_room(self, conn: Connection, room: RoomRow, event: RemoteEvent) -> PushedRoom:
        state = await self._entries_before(conn, event, authorizing_slots(event.pdu))
        return PushedRoom(room.room_nid, room.room_id, room.room_version, room.state_version, state)

    async def _entries_before(
        self, conn: Connection, event: RemoteEvent, slots: Sequence[StateKey] | frozenset[StateKey]
    ) -> dict[StateKey, Pdu]:
        """Entries of the state before the event; empty slots are absent."""
        slot_ids = await self._states.find_slots(conn, slots)
        base = await self._states.load(conn, event.state_before.base_state_id)
        changes = event.state_before.changes
        found = {
            slot: changes[slot_id] if slot_id in changes else base.get(slot_id) for slot, slot_id in slot_ids.items()
        }
        pdus = await list_pdus(conn, [event_nid for event_nid in found.values() if event_nid is not None])
        return {slot: pdus[event_nid] for slot, event_nid in found.items() if event_nid is not None}

    async def _current_after(
        self, conn: Connection, room: RoomRow, event: RemoteEvent, prev_nids: Sequence[int]
    ) -> _After:
        """What the current state becomes when the event is one of the room's ends."""
        own: dict[int, int] = {}
        if event.pdu.state_slot is not None:
            slot_ids = await self._states.find_slots(conn, [event.pdu.state_slot])
            own = {slot_ids[event.pdu.state_slot]: UNSAVED}
        others = [event_nid for event_nid in room.forward_extremities if event_nid not in prev_nids]
        before = event.state_before
        if not others and before.base_state_id == room.state_id:
            return _After({**before.changes, **own}, is_forked=False)
        base = (await self._states.load(conn, before.base_state_id)).entries()
        after = {**before.on(base), **own}
        states = [after, *await self._resolver.states_after(conn, await list_events(conn, others))]
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
