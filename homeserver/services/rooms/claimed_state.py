"""A state of a room as another server claims it to be: whole, with the auth chains of its events.

Whether it is right cannot be told. Its events pass the gate and are judged by their auth events; what is dropped or
rejected on the way is no part of it. What is left must be a state of the room, with the one create event.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from homeserver.core.errors import RemoteUnavailable
from homeserver.core.ids import EventId, ServerName
from homeserver.core.pdu import Pdu, StateKey
from homeserver.services.remote import EventJson
from homeserver.services.rooms.gate import EventGate
from homeserver.services.rooms.join_answer import check_room, state_of
from homeserver.services.rooms.outliers import AuthPool, Outliers, StoredOutlier
from storage.rooms import RoomRow

logger = logging.getLogger(__name__)

EVENTS_MAX: Final = 500_000
"""How many events a state and its auth chains may have."""
_GATE_CHUNK: Final = 5000

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedState:
    """A state whose events are stored now.

    Attributes:
        entries: the state.
        stored: what became of each event that could be judged, also of the auth chains.
        events: all events that have passed the gate.
    """

    entries: Mapping[StateKey, Pdu]
    stored: Mapping[EventId, StoredOutlier]
    events: Mapping[EventId, Pdu]

    def is_accepted(self, event_id: EventId) -> bool:
        """Whether an event is stored and was not rejected."""
        return event_id in self.stored and self.stored[event_id].rejected is None

    @property
    def rejected(self) -> set[EventId]:
        """The events that were rejected."""
        return {event_id for event_id, outlier in self.stored.items() if outlier.rejected is not None}

    def nid_of(self, pdu: Pdu) -> int:
        """The number of an entry."""
        return self.stored[pdu.event_id].event_nid


class ClaimedStates:
    """Takes states that other servers claim."""

    def __init__(self, *, gate: EventGate, outliers: Outliers, server_name: ServerName) -> None:
        self._gate = gate
        self._outliers = outliers
        self._server_name = server_name

    async def take(self, room: RoomRow, *, state: Sequence[EventJson], auth_chain: Sequence[EventJson]) -> ClaimedState:
        """Checks and stores a state.

        Raises:
            RemoteUnavailable: it is too large, or no state of this room.
            UnavailableForNow: the database is away, or the room too busy.
        """
        if len(state) + len(auth_chain) > EVENTS_MAX:
            raise RemoteUnavailable("The other server's answer is too large")
        chain = await self._admit(room, auth_chain)
        entries = state_of(await self._admit(room, state))
        events = {pdu.event_id: pdu for pdu in (*chain, *entries.values())}
        check_room(room, entries, events.values())
        stored = await self._outliers.store(room, list(events.values()))
        claimed = ClaimedState(entries=entries, stored=stored, events=events)
        pool = AuthPool(dict(events), {each: stored[each].rejected or "" for each in claimed.rejected})
        accepted = {slot: pdu for slot, pdu in entries.items() if self._is_accepted(claimed, pdu, pool)}
        check_room(room, accepted, ())
        return ClaimedState(entries=accepted, stored=stored, events=events)

    async def _admit(self, room: RoomRow, events: Sequence[EventJson]) -> list[Pdu]:
        """Those of some events that pass the gate."""
        passed: list[Pdu] = []
        for part in in_parts(events, _GATE_CHUNK):
            result = await self._gate.check(room.room_version, part, room_id=room.room_id)
            passed += result.passed
            if result.dropped:
                reason = result.dropped[0].reason
                logger.info("%s events of %s did not pass: %s", len(result.dropped), room.room_id, reason)
        return passed

    def _is_accepted(self, claimed: ClaimedState, pdu: Pdu, pool: AuthPool) -> bool:
        """Whether an event was accepted.

        Invitations of our own users are stored when they come, before anybody can judge them; so they are judged here.
        """
        if not claimed.is_accepted(pdu.event_id):
            return False
        is_ours = pdu.type == "m.room.member" and (pdu.state_key or "").endswith(f":{self._server_name}")
        return not is_ours or pool.judge(pdu) is None


def in_parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Some things, not more than `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
