"""Events that have been read for a piece of work with one room, so that each is read once for all of it.

A fork of twenty events looks at the same power levels and members twenty times. What an event is does not change, but
for redactions: so a memory lasts only as long as the work, for example one transaction of another server.
"""

from collections.abc import Collection, Mapping
from typing import Final

from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from storage.database import Connection
from storage.events import (
    GraphEvent,
    find_event_nids,
    list_auth_chains,
    list_event_ids,
    list_graph_events,
)

_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of texts; parsed, they take a few times as much."""


class EventMemory:
    """What has been read. It forgets everything when it is full, and is then filled anew."""

    def __init__(self, *, bytes_max: int = _BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._events: dict[int, GraphEvent] = {}
        self._pdus: dict[EventId, Pdu] = {}
        # Also of events that have not been read themselves.
        self._nids: dict[EventId, int] = {}
        self._ids: dict[int, EventId] = {}
        self._rejected: set[EventId] = set()

    @property
    def pdus_by_id(self) -> Mapping[EventId, Pdu]:
        """The events that are kept."""
        return self._pdus

    @property
    def rejected_ids(self) -> Collection[EventId]:
        """Those of them that were rejected."""
        return self._rejected

    @property
    def nids_by_id(self) -> Mapping[EventId, int]:
        """The numbers of at least those events that are kept."""
        return self._nids

    def keep(self, event: GraphEvent) -> None:
        """Keeps an event as it is stored now."""
        self.forget(event.event_nid)
        if self._bytes + event.size_bytes > self._bytes_max:
            for kept in (self._events, self._pdus, self._nids, self._ids, self._rejected):
                kept.clear()
            self._bytes = 0
        event_id = event.pdu.event_id
        self._bytes += event.size_bytes
        self._events[event.event_nid] = event
        self._pdus[event_id] = event.pdu
        self.number(event_id, event.event_nid)
        if event.rejected is not None:
            self._rejected.add(event_id)

    def number(self, event_id: EventId, event_nid: int) -> None:
        """Keeps the number of an event."""
        self._nids[event_id] = event_nid
        self._ids[event_nid] = event_id

    def forget(self, event_nid: int) -> None:
        """Forgets an event that is stored otherwise now, for example because it has been redacted."""
        event = self._events.pop(event_nid, None)
        if event is not None:
            self._bytes -= event.size_bytes
            del self._pdus[event.pdu.event_id]
            self._rejected.discard(event.pdu.event_id)

    async def events(self, conn: Connection, event_nids: Collection[int]) -> list[GraphEvent]:
        """Events by their numbers, in the order of their arrival; unknown ones are absent."""
        found = {nid: event for nid in set(event_nids) if (event := self._events.get(nid)) is not None}
        # What stands outside the graph may have come into it.
        lacking = [nid for nid in set(event_nids) if nid not in found or found[nid].state_id is None]
        if lacking:
            found |= {event.event_nid: event for event in await list_graph_events(conn, lacking)}
            for nid in lacking:
                if nid in found:
                    self.keep(found[nid])
        return [found[nid] for nid in sorted(found)]

    async def pdus(self, conn: Connection, event_nids: Collection[int]) -> dict[int, Pdu]:
        """Events as servers exchange them, by their numbers; unknown ones are absent."""
        found = {nid: event for nid in event_nids if (event := self._events.get(nid)) is not None}
        lacking = [nid for nid in event_nids if nid not in found]
        if lacking:
            found |= {event.event_nid: event for event in await self.events(conn, lacking)}
        return {nid: event.pdu for nid, event in found.items()}

    async def events_by_id(
        self, conn: Connection, event_ids: Collection[EventId], *, with_ancestors: bool = False
    ) -> list[GraphEvent]:
        """Events by their ids, in no order; unknown ones are absent.

        With `with_ancestors` those that are not kept come with a bounded part of their auth chains.
        """
        found = [self._events[self._nids[event_id]] for event_id in event_ids if event_id in self._pdus]
        lacking = [event_id for event_id in event_ids if event_id not in self._pdus]
        if lacking:
            read = await list_auth_chains(conn, lacking, with_ancestors=with_ancestors)
            for event in read:
                self.keep(event)
            found += read
        return found

    async def nids(self, conn: Connection, event_ids: Collection[EventId]) -> dict[EventId, int]:
        """The numbers of events by their ids; unknown ones are absent."""
        found = {event_id: nid for event_id in event_ids if (nid := self._nids.get(event_id)) is not None}
        lacking = [event_id for event_id in event_ids if event_id not in found]
        if lacking:
            read = await find_event_nids(conn, lacking)
            for event_id, nid in read.items():
                self.number(event_id, nid)
            found |= read
        return found

    async def ids(self, conn: Connection, event_nids: Collection[int]) -> dict[int, EventId]:
        """The ids of events by their numbers; unknown ones are absent."""
        found = {nid: event_id for nid in event_nids if (event_id := self._ids.get(nid)) is not None}
        lacking = [nid for nid in event_nids if nid not in found]
        if lacking:
            read = await list_event_ids(conn, lacking)
            for nid, event_id in read.items():
                self.number(event_id, nid)
            found |= read
        return found
