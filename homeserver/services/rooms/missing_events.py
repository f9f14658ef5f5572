"""Previous events that have not come: the server that has sent what follows them is asked for them.

https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid
"""

from collections.abc import Collection, Iterator
from typing import Final

from homeserver.core.errors import RemoteRefused, RemoteUnavailable, UnavailableForNow
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from homeserver.services.rooms.inquiry import Inquiry
from homeserver.services.rooms.outliers import auth_event_ids
from storage.database import Database
from storage.events import list_event_ids
from storage.outliers import KnownEvent, list_known_events
from storage.rooms import get_room

_ROUNDS_MAX: Final = 6
_EVENTS_MAX: Final = 300
_ENDS_MAX: Final = 20


class MissingEvents:
    """Fetches what lies between events that have come and the part of the graph that is here."""

    def __init__(self, *, db: Database) -> None:
        self._db = db

    async def add_to(self, inquiry: Inquiry, batch: dict[EventId, Pdu]) -> dict[EventId, KnownEvent]:
        """Adds previous events of some events to them, as far as that can be done in a few rounds.

        What cannot be had stays missing.

        Returns:
            What is known of the events and of all that they cite, as previous or auth events.
        """
        for round_number in range(_ROUNDS_MAX + 1):
            cited = {event_id for pdu in batch.values() for event_id in pdu.prev_events} - batch.keys()
            judging = {event_id for pdu in batch.values() for event_id in auth_event_ids(pdu)}
            async with self._db.connection() as conn:
                known = await list_known_events(conn, {*cited, *judging, *batch})
                missing = {event_id for event_id in cited if event_id not in known or not known[event_id].in_graph}
                latest = [
                    pdu.event_id
                    for pdu in batch.values()
                    if not missing.isdisjoint(pdu.prev_events)
                    and not (pdu.event_id in known and known[pdu.event_id].in_graph)
                ]
                if not latest or len(batch) >= _EVENTS_MAX or round_number == _ROUNDS_MAX:
                    return known
                room = await get_room(conn, inquiry.room.room_id)
                ends = await list_event_ids(conn, sorted(room.forward_extremities, reverse=True)[:_ENDS_MAX])
            try:
                found = await inquiry.missing_events(earliest=list(ends.values()), latest=latest[-_ENDS_MAX:])
            except (RemoteRefused, RemoteUnavailable, UnavailableForNow):
                return known
            added = {pdu.event_id: pdu for pdu in leading_to(missing, found)}
            if not added.keys() - batch.keys():
                return known
            batch.update(added)
        raise AssertionError("The last round returns")


def leading_to(missing: Collection[EventId], found: Collection[Pdu]) -> Iterator[Pdu]:
    """Those of some events that others lead to by their previous events; nothing else was asked for."""
    by_id = {pdu.event_id: pdu for pdu in found}
    waiting = list(missing)
    while waiting:
        pdu = by_id.pop(waiting.pop(), None)
        if pdu is not None:
            yield pdu
            waiting += pdu.prev_events


def in_graph_order(batch: dict[EventId, Pdu]) -> tuple[list[Pdu], list[Pdu]]:
    """Events with each after its previous events, else as they came; and those that follow each other in a circle."""
    lacking = {event_id: len(set(pdu.prev_events) & batch.keys()) for event_id, pdu in batch.items()}
    followers: dict[EventId, list[EventId]] = {}
    for event_id, pdu in batch.items():
        for prev_id in set(pdu.prev_events) & batch.keys():
            followers.setdefault(prev_id, []).append(event_id)
    ordered: list[Pdu] = []
    ready = [event_id for event_id in reversed(batch) if not lacking[event_id]]
    while ready:
        event_id = ready.pop()
        ordered.append(batch[event_id])
        for follower in reversed(followers.get(event_id, ())):
            lacking[follower] -= 1
            if not lacking[follower]:
                ready.append(follower)
    return ordered, [pdu for event_id, pdu in batch.items() if lacking[event_id]]
