"""Adding events of other servers that simply go on where the room ends, many at once.

Such events, each the only successor of the one before, are what a room in peace consists of. The state before the first
is the current state, so nothing has to be resolved: what they may do is seen from the head of the room, as for events
made here.

https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import authorizing_slots
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.pdu import Pdu, StateKey
from homeserver.services.rooms.append import wake_keys
from homeserver.services.rooms.batches import push_exceptions, relations, state_changes, summary_changes
from homeserver.services.rooms.drafts import PushedRoom, PushEvaluator, StateEntry
from homeserver.services.rooms.event_chain import stored_form
from homeserver.services.rooms.gathered_wakes import GatheredWakes
from homeserver.services.rooms.heads import Head, Heads
from homeserver.services.rooms.lanes import Lanes
from storage.append import Appended, Batch, NewEvent, RoomChanged, append_events
from storage.bus.base import Bus
from storage.database import Database
from storage.errors import UniqueViolation

_ATTEMPTS_MAX: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LineEvent:
    """An event that its own auth events allow.

    Attributes:
        auth_state: the state that these make up.
        auth_nids: their numbers, or -n for the n-th event of the line.
        thread_root: the root of the thread that it belongs to.
    """

    pdu: Pdu
    auth_state: Mapping[StateKey, Pdu]
    auth_nids: Sequence[int]
    thread_root: EventId | None = None


class LineAppender:
    """Adds lines of events at the end of rooms."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        server_name: ServerName,
        heads: Heads,
        lanes: Lanes,
        push: PushEvaluator,
    ) -> None:
        """Takes its means; heads and lanes are those of the `Appender`."""
        self._db = db
        self._bus = bus
        self._server_name = server_name
        self._heads = heads
        self._lanes = lanes
        self._push = push

    async def append(
        self,
        room_id: RoomId,
        line: Sequence[LineEvent],
        *,
        members_lacking: bool = False,
        wakes: GatheredWakes | None = None,
    ) -> Sequence[int]:
        """Adds as many events as simply go on where the room ends and are allowed there.

        Args:
            room_id: their room, which this server is in.
            line: the events, none of which is stored in any way; each follows only the one before. No redactions.
            members_lacking: the current state lacks members, so those that the events cite are believed.
            wakes: takes the wake that is due; None: it is given out at once.

        Returns:
            The numbers of those that were added, from the first on. What is left has to be added in another way.

        Raises:
            Forbidden: this server is not in the room.
            UnavailableForNow: the room is too busy.
        """
        slots = {slot for link in line for slot in _slots_of(link.pdu)}
        async with self._lanes.enter(room_id):
            for attempt in range(_ATTEMPTS_MAX):
                head = None if attempt else self._heads.find_cached(room_id, slots)
                if head is None or not _goes_on(head, line[0].pdu):
                    async with self._db.connection() as conn:
                        head = await self._heads.read(conn, room_id, slots)
                if not _goes_on(head, line[0].pdu):
                    return ()
                allowed = _allowed(head, line, members_lacking=members_lacking)
                if not allowed:
                    return ()
                try:
                    appended = await self._append(head, allowed)
                    break
                except RoomChanged:
                    continue
                except UniqueViolation:
                    return ()
            else:
                return ()
        pdus = [link.pdu for link in allowed]
        await (wakes or self._bus).wake(wake_keys(room_id, pdus, self._server_name), appended.position)
        return appended.event_nids

    async def _append(self, head: Head, line: Sequence[LineEvent]) -> Appended:
        """Adds events to the room as it is in the head.

        Raises:
            RoomChanged: it is not like that any more, or a redaction waits for one of the events.
            UniqueViolation: one of them has come meanwhile.
        """
        pdus = [link.pdu for link in line]
        new_events = _stored_forms(head, line)
        known = {slot: entry.pdu for slot, entry in head.entries.items() if entry is not None}
        pushed = PushedRoom(head.room_nid, head.room_id, head.room_version, head.state_version, known)
        outcomes = await self._push.evaluate(pushed, pdus)
        batch = Batch(
            room_nid=head.room_nid,
            state_version=head.state_version,
            extremities=[end.event_nid for end in head.extremities],
            events=[
                replace(new_event, push_actions_id=outcome.actions_id)
                for new_event, outcome in zip(new_events, outcomes, strict=True)
            ],
            state_changes=state_changes(pdus, self._server_name),
            summary_changes=summary_changes(pdus),
            relations=relations(pdus),
            push_exceptions=push_exceptions(outcomes),
            reviewed_redactions=(),
        )
        async with self._db.connection() as conn:
            appended = await append_events(conn, batch)
        changes: dict[StateKey, StateEntry | None] = {
            pdu.state_slot: StateEntry(event_nid, pdu)
            for pdu, event_nid in zip(pdus, appended.event_nids, strict=True)
            if pdu.state_slot is not None
        }
        self._heads.advance(head, appended, changes)
        return appended


def _slots_of(pdu: Pdu) -> frozenset[StateKey]:
    """The entries of the state that an event looks at or takes."""
    slots = authorizing_slots(pdu)
    return slots if pdu.state_slot is None else slots | {pdu.state_slot}


def _goes_on(head: Head, pdu: Pdu) -> bool:
    """Whether an event follows all ends of the room and nothing else."""
    return set(pdu.prev_events) == {end.event_id for end in head.extremities}


def _allowed(head: Head, line: Sequence[LineEvent], *, members_lacking: bool) -> Sequence[LineEvent]:
    """The first events of a line up to one that is not allowed, each judged by the state that those before it leave."""
    state = {slot: entry.pdu for slot, entry in head.entries.items() if entry is not None}
    for number, link in enumerate(line):
        pdu = link.pdu
        slots = authorizing_slots(pdu)
        if any(_id_at(state, slot) != _id_at(link.auth_state, slot) for slot in slots):
            deciding = believe_members(state, link.auth_state, slots) if members_lacking else state
            try:
                check_auth(pdu, deciding)
            except Forbidden:
                return line[:number]
        if pdu.state_slot is not None:
            state[pdu.state_slot] = pdu
    return line


def _id_at(state: Mapping[StateKey, Pdu], slot: StateKey) -> EventId | None:
    pdu = state.get(slot)
    return None if pdu is None else pdu.event_id


def believe_members(
    state: Mapping[StateKey, Pdu], auth_state: Mapping[StateKey, Pdu], slots: frozenset[StateKey]
) -> dict[StateKey, Pdu]:
    """A state that lacks members, with those that an event cites in their place."""
    cited = {slot: auth_state[slot] for slot in slots if slot[0] == "m.room.member" and slot in auth_state}
    return {**cited, **state}


def _stored_forms(head: Head, line: Sequence[LineEvent]) -> list[NewEvent]:
    state: dict[StateKey, Pdu] = {slot: entry.pdu for slot, entry in head.entries.items() if entry is not None}
    prev_events: Sequence[int] = [end.event_nid for end in head.extremities]
    forms = []
    for number, link in enumerate(line, start=1):
        slot = link.pdu.state_slot
        forms.append(
            stored_form(
                link.pdu,
                prev_events=prev_events,
                auth_events=link.auth_nids,
                replaces=None if slot is None else state.get(slot),
                thread_root=link.thread_root,
            )
        )
        prev_events = [-number]
        if slot is not None:
            state[slot] = link.pdu
    return forms
