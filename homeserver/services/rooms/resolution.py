"""Merging states of a room that has forked: the state before an event that follows several others.

https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu, StateKey, StateMap
from homeserver.core.room_versions import RoomVersion
from homeserver.core.state_resolution.need import Need
from homeserver.core.state_resolution.resolve import resolve
from homeserver.services.rooms.event_memory import EventMemory
from storage.database import Connection
from storage.state import StateStore

UNSAVED: Final = 2**62
"""Stands for the number of an event that is not stored yet; it is larger than all others."""

_ROUNDS_MAX: Final = 1000
_SMALL_EVENTS_MAX: Final = 200
_SMALL_ENTRIES_MAX: Final = 2000
"""What is resolved within a few milliseconds, so that a thread would cost more than it spares."""


class StateUnknown(Exception):
    """The state cannot be found out: an event that decides about it is not here."""


@dataclass(frozen=True, slots=True)
class ResolvedState:
    """A state as a difference to a snapshot; `storage.state.derive_state` makes a snapshot of it.

    Attributes:
        changes: events by slot, both as numbers; None where the base has an event and this state has none.
    """

    base_state_id: int
    changes: Mapping[int, int | None]

    def on(self, base: Mapping[int, int]) -> dict[int, int]:
        """All entries, given those of the base."""
        merged = {**base, **self.changes}
        return {slot_id: event_nid for slot_id, event_nid in merged.items() if event_nid is not None}


class PlacedEvent(Protocol):
    """What of a stored event tells the state after it (`StoredEvent`, `GraphEvent`)."""

    @property
    def event_nid(self) -> int: ...

    @property
    def state_id(self) -> int | None: ...

    @property
    def type(self) -> str: ...

    @property
    def state_key(self) -> str | None: ...

    @property
    def rejected(self) -> str | None: ...


class StateResolver:
    """Finds out states by what is stored. It reads on the caller's connection."""

    def __init__(self, *, states: StateStore, memory: EventMemory | None = None) -> None:
        """Takes the states, and the events that have been read already; None: each call reads its own."""
        self._states = states
        self._memory = memory

    def using(self, memory: EventMemory) -> "StateResolver":
        """One that reads each event once only, for a piece of work with one room."""
        return StateResolver(states=self._states, memory=memory)

    @property
    def events(self) -> EventMemory:
        """Where it reads events."""
        return EventMemory() if self._memory is None else self._memory

    async def state_before(
        self, conn: Connection, room_version: RoomVersion, prev_event_nids: Collection[int]
    ) -> ResolvedState:
        """The state before an event that follows some stored ones.

        Raises:
            StateUnknown: one of them is not stored or stands outside the graph, or an auth event is lacking.
        """
        prev_events = await self.events.events(conn, prev_event_nids)
        if not prev_events or len(prev_events) < len(set(prev_event_nids)):
            raise StateUnknown("A previous event is not known")
        after = [await self.state_after(conn, event) for event in prev_events]
        base_state_id, base = after[0][0], (await self._states.load(conn, after[0][0])).entries()
        if all(state == after[0] for state in after):
            return ResolvedState(base_state_id, after[0][1])
        resolved = await self.resolve(conn, room_version, await self.states_after(conn, prev_events))
        return ResolvedState(base_state_id, difference(base, resolved))

    async def entries(
        self, conn: Connection, state: ResolvedState, slots: Collection[StateKey]
    ) -> dict[StateKey, tuple[int, Pdu]]:
        """The events at some slots of a state, with their numbers; empty slots are absent."""
        slot_ids = await self._states.find_slots(conn, slots)
        base = await self._states.load(conn, state.base_state_id)
        changes = state.changes
        found = {
            slot: changes[slot_id] if slot_id in changes else base.get(slot_id) for slot, slot_id in slot_ids.items()
        }
        pdus = await self.events.pdus(conn, [event_nid for event_nid in found.values() if event_nid is not None])
        return {slot: (event_nid, pdus[event_nid]) for slot, event_nid in found.items() if event_nid is not None}

    async def states_after(self, conn: Connection, events: Sequence[PlacedEvent]) -> list[Mapping[int, int]]:
        """The whole states after some stored events; those that are stored as the same are there only once.

        Raises:
            StateUnknown: one of them stands outside the graph.
        """
        states: dict[tuple[int, frozenset[tuple[int, int]]], Mapping[int, int]] = {}
        for event in events:
            state_id, changes = await self.state_after(conn, event)
            key = (state_id, frozenset(changes.items()))
            if key not in states:
                entries = (await self._states.load(conn, state_id)).entries()
                states[key] = {**entries, **changes} if changes else entries
        return list(states.values())

    async def state_after(self, conn: Connection, event: PlacedEvent) -> tuple[int, dict[int, int]]:
        """The state after an event: the snapshot before it, and what it changes itself.

        Raises:
            StateUnknown: it stands outside the graph.
        """
        if event.state_id is None:
            raise StateUnknown("A previous event stands outside the graph")
        if event.state_key is None or event.rejected is not None:
            return event.state_id, {}
        slot: StateKey = (event.type, event.state_key)
        slot_ids = await self._states.find_slots(conn, [slot])
        if slot not in slot_ids:
            raise StateUnknown("The slot of a previous event has no number")
        return event.state_id, {slot_ids[slot]: event.event_nid}

    async def resolve(
        self,
        conn: Connection,
        room_version: RoomVersion,
        states: Sequence[Mapping[int, int]],
        *,
        unsaved: Pdu | None = None,
    ) -> dict[int, int]:
        """Resolves states, each given as events by slot, both as numbers.

        Args:
            conn: to read with.
            room_version: of the room.
            states: the states.
            unsaved: an event that is not stored yet; in the states it has the number `UNSAVED`.

        Raises:
            StateUnknown: an auth event is lacking.
        """
        slots = await self._states.slot_names(conn, {slot_id for state in states for slot_id in state})
        memory = self.events
        ids = await memory.ids(conn, {event_nid for state in states for event_nid in state.values()} - {UNSAVED})
        loaded = dict(memory.pdus_by_id)
        ordinals = dict(memory.nids_by_id)
        if unsaved is not None:
            ids[UNSAVED] = unsaved.event_id
            loaded[unsaved.event_id] = unsaved
        maps = [{slots[slot_id]: ids[event_nid] for slot_id, event_nid in state.items()} for state in states]
        ordinals.update((event_id, event_nid) for event_nid, event_id in ids.items())
        resolved = await self._resolve_maps(conn, room_version, maps, loaded, ordinals, memory)
        slot_ids = {slot: slot_id for slot_id, slot in slots.items()}
        return {slot_ids[slot]: ordinals[event_id] for slot, event_id in resolved.items()}

    async def _resolve_maps(
        self,
        conn: Connection,
        room_version: RoomVersion,
        maps: Sequence[StateMap],
        loaded: dict[EventId, Pdu],
        ordinals: dict[EventId, int],
        memory: EventMemory,
    ) -> StateMap:
        rejected = set(memory.rejected_ids)
        for _ in range(_ROUNDS_MAX):
            work = partial(resolve, room_version, maps, loaded, rejected=rejected, ordinals=ordinals)
            is_small = len(loaded) <= _SMALL_EVENTS_MAX and sum(map(len, maps)) <= _SMALL_ENTRIES_MAX
            outcome = work() if is_small else await asyncio.to_thread(work)
            if not isinstance(outcome, Need):
                return outcome
            found = await memory.events_by_id(conn, outcome.event_ids, with_ancestors=outcome.with_auth_chains)
            for event in found:
                loaded[event.pdu.event_id] = event.pdu
                ordinals[event.pdu.event_id] = event.event_nid
                if event.rejected is not None:
                    rejected.add(event.pdu.event_id)
            if not outcome.event_ids <= loaded.keys():
                raise StateUnknown("An auth event is not known")
        raise StateUnknown("State resolution does not come to an end")


def difference(old: Mapping[int, int], new: Mapping[int, int]) -> dict[int, int | None]:
    """How one state differs from another: what stands there now, by slot; None for what is gone."""
    changes: dict[int, int | None] = {
        slot_id: event_nid for slot_id, event_nid in new.items() if old.get(slot_id) != event_nid
    }
    changes.update(dict.fromkeys(old.keys() - new.keys()))
    return changes
