"""The states of the events since a join, found out anew once the state at the join is whole.

Each state follows from those of the previous events, and each event is judged once more: what was accepted while
members were missing may turn out to be against the rules, and then it is no part of the room for other servers either.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import authorizing_slots
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.pdu import Pdu
from homeserver.services.rooms.claimed_state import in_parts
from homeserver.services.rooms.resolution import ResolvedState, StateResolver, difference
from storage.database import Connection, Database
from storage.events import StoredEvent, list_events, list_pdus
from storage.room_completion import LaterEvent, list_later_events
from storage.rooms import RoomRow
from storage.state import StateStore, derive_state

_PART: Final = 200


@dataclass(slots=True)
class FoundStates:
    """What was found out.

    Attributes:
        states: the snapshot before each event, by event_nid.
        rejected: why events are not allowed there, by event_nid.
    """

    states: dict[int, int] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)

    def applied_to(self, event: StoredEvent) -> StoredEvent:
        """A stored event, with what is known of it now."""
        return event._replace(
            state_id=self.states.get(event.event_nid, event.state_id),
            rejected=self.rejected.get(event.event_nid, event.rejected),
        )


class LaterStates:
    """Finds out the states of events since a join."""

    def __init__(self, *, db: Database, states: StateStore, resolver: StateResolver) -> None:
        self._db = db
        self._states = states
        self._resolver = resolver

    async def find(self, room: RoomRow, join_nid: int, whole_id: int) -> FoundStates:
        """The states before all events since a join.

        Args:
            room: the room.
            join_nid: the join.
            whole_id: the snapshot of the state before it, with all members.
        """
        found = FoundStates({join_nid: whole_id})
        async with self._db.connection() as conn:
            later = await list_later_events(conn, room_nid=room.room_nid, join_nid=join_nid)
        for part in in_parts(list(_in_graph_order(later)), _PART):
            async with self._db.connection() as conn:
                nids = {nid for each in part for nid in (each.event_nid, *each.prev_event_nids)}
                events = {event.event_nid: event for event in await list_events(conn, nids)}
                pdus = await list_pdus(conn, [each.event_nid for each in part])
            for each in part:
                prev_events = [events[nid] for nid in each.prev_event_nids if nid in events]
                await self._find_one(room, events[each.event_nid], pdus[each.event_nid], prev_events, found)
        return found

    async def current(self, room: RoomRow, found: FoundStates) -> ResolvedState:
        """The state at the room's ends.

        Raises:
            StateUnknown: an event that decides about conflicts is not here.
        """
        async with self._db.connection() as conn:
            ends = [found.applied_to(event) for event in await list_events(conn, room.forward_extremities)]
            return await self._after(conn, room, ends)

    async def _find_one(
        self, room: RoomRow, event: StoredEvent, pdu: Pdu, prev_events: Sequence[StoredEvent], found: FoundStates
    ) -> None:
        known = [found.applied_to(prev) for prev in prev_events if prev.state_id is not None]
        async with self._db.connection() as conn:
            if len(known) == len(set(pdu.prev_events)):
                state = await self._after(conn, room, known)
            else:
                # Its state was had from another server, and is whole but for what it shares with those before it.
                state = await self._filled(conn, event, found)
        state_id = state.base_state_id
        if state.changes:
            async with self._db.transaction() as conn:
                state_id = await derive_state(
                    conn, room_nid=room.room_nid, base_state_id=state.base_state_id, changes=state.changes
                )
        found.states[event.event_nid] = state_id
        if event.is_accepted:
            reason = await self._judge(pdu, state_id)
            if reason is not None:
                found.rejected[event.event_nid] = reason

    async def _after(self, conn: Connection, room: RoomRow, events: Sequence[StoredEvent]) -> ResolvedState:
        """The state after some events."""
        after = [await self._after_one(conn, event) for event in events]
        if all(state == after[0] for state in after):
            return after[0]
        resolved = await self._resolver.resolve(
            conn, room.room_version, await self._resolver.states_after(conn, events)
        )
        base_id = after[0].base_state_id
        return ResolvedState(base_id, difference((await self._states.load(conn, base_id)).entries(), resolved))

    async def _after_one(self, conn: Connection, event: StoredEvent) -> ResolvedState:
        assert event.state_id is not None, "Only events of the graph are followed"
        if event.state_key is None or event.rejected is not None:
            return ResolvedState(event.state_id, {})
        slot_ids = await self._states.find_slots(conn, [(event.type, event.state_key)])
        return ResolvedState(event.state_id, dict.fromkeys(slot_ids.values(), event.event_nid))

    async def _filled(self, conn: Connection, event: StoredEvent, found: FoundStates) -> ResolvedState:
        """The state before an event as it is stored, with the members of the whole state at the join that it lacks."""
        assert event.state_id is not None, "Only events of the graph are looked at"
        whole_id = next(iter(found.states.values()))
        stored = (await self._states.load(conn, event.state_id)).entries()
        whole = (await self._states.load(conn, whole_id)).entries()
        absent = [slot_id for slot_id in whole if slot_id not in stored]
        names = await self._states.slot_names(conn, absent)
        changes = {slot_id: whole[slot_id] for slot_id in absent if names[slot_id][0] == "m.room.member"}
        return ResolvedState(event.state_id, changes)

    async def _judge(self, pdu: Pdu, state_id: int) -> str | None:
        """Why the rules do not allow an event in a state; None if they do."""
        async with self._db.connection() as conn:
            entries = await self._resolver.entries(conn, ResolvedState(state_id, {}), authorizing_slots(pdu))
        try:
            check_auth(pdu, {slot: entry for slot, (_, entry) in entries.items()})
        except Forbidden as error:
            return error.message
        return None


def _in_graph_order(events: Sequence[LaterEvent]) -> Iterator[LaterEvent]:
    """Events with each after its previous ones."""
    by_nid: Mapping[int, LaterEvent] = {event.event_nid: event for event in events}
    waits_for = {event.event_nid: len(set(event.prev_event_nids) & by_nid.keys()) for event in events}
    followers: dict[int, list[int]] = {}
    for event in events:
        for prev_nid in set(event.prev_event_nids) & by_nid.keys():
            followers.setdefault(prev_nid, []).append(event.event_nid)
    ready = [event.event_nid for event in reversed(events) if not waits_for[event.event_nid]]
    while ready:
        event_nid = ready.pop()
        yield by_nid[event_nid]
        for follower in followers.get(event_nid, ()):
            waits_for[follower] -= 1
            if not waits_for[follower]:
                ready.append(follower)
