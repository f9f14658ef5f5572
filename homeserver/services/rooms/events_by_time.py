"""Finding the event of a room that is closest to a time, for users and for other servers.

Where history is missing here next to what is found, another server may know a closer event. It is believed only once
the event has been fetched and has its place in the history: then it is found like any other.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from homeserver.core.errors import MatrixError, NotFound
from homeserver.core.filters import RoomEventFilter
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.requester import Requester
from homeserver.services.remote import RemoteEvents
from homeserver.services.rooms.access import ReadableRoom, RoomAccess
from homeserver.services.rooms.server_access import ServerAccess
from storage.database import Connection, Database
from storage.discovery import list_servers
from storage.events import StoredEvent
from storage.history import Direction, HistorySpan, list_events_by_time, list_history
from storage.missing_events import list_missing_events
from storage.rooms import RoomRow

_PAGE_SIZE: Final = 100
_PAGES_MAX: Final = 10
_EVENT_NID_MAX: Final = 2**63 - 1
_SERVERS_MAX: Final = 5
_ASKING_SECONDS_MAX: Final = 15.0
_ANY: Final = RoomEventFilter()

Visible = Callable[[Sequence[StoredEvent]], Awaitable[Sequence[StoredEvent]]]
"""Keeps those of some events that may be told, in their order."""


@dataclass(frozen=True, slots=True)
class DatedEvent:
    """An event that was found by its time, in milliseconds since the epoch."""

    event_id: EventId
    origin_server_ts: int


class EventImport(Protocol):
    """Fetches single events of a room's past."""

    async def fetch_event(self, room: RoomRow, via: ServerName, event_id: EventId) -> bool:
        """Fetches an event from a server and gives it its place in the room's history; whether that was done.

        It raises nothing.
        """
        ...


class NoEventImport:
    """For a server that fetches none."""

    async def fetch_event(self, room: RoomRow, via: ServerName, event_id: EventId) -> bool:
        """Fetches nothing."""
        return False


class EventsByTime:
    """Finds events by their time."""

    def __init__(
        self,
        *,
        db: Database,
        access: RoomAccess,
        server_access: ServerAccess,
        server_name: ServerName,
        remote: RemoteEvents,
        imports: EventImport,
    ) -> None:
        self._db = db
        self._access = access
        self._server_access = server_access
        self._server_name = server_name
        self._remote = remote
        self._imports = imports

    async def closest(
        self, requester: Requester, room_id: RoomId, *, timestamp_ms: int, direction: Direction
    ) -> DatedEvent:
        """The event closest to a time, not before it or (backwards) not after it, that the user may see.

        Raises:
            Forbidden: the user may not read the room.
            NotFound: there is no such event.
        """
        async with self._db.connection() as conn:
            readable = await self._access.require_readable(conn, requester.user_id, room_id)
            found = await self._closest_to_user(conn, requester, readable.room, timestamp_ms, direction)
            servers = await self._servers_to_ask(conn, readable, found, direction)
        if servers and await self._fetch_closer(readable.room, servers, found, timestamp_ms, direction):
            async with self._db.connection() as conn:
                found = await self._closest_to_user(conn, requester, readable.room, timestamp_ms, direction)
        return _dated(found, timestamp_ms, direction)

    async def closest_for_server(
        self, origin: ServerName, room_id: RoomId, *, timestamp_ms: int, direction: Direction
    ) -> DatedEvent:
        """As `closest`, for another server that is in the room; nobody else is asked.

        Raises:
            Forbidden: the server is not in the room, or there is no such room.
            NotFound: there is no such event that the server may see.
        """
        async with self._db.connection() as conn:

            async def visible(events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
                answers = await self._server_access.visible(conn, origin, events)
                return [event for event, is_visible in zip(events, answers, strict=True) if is_visible]

            room = await self._server_access.require_in_room(conn, origin, room_id)
            found = await _first_by_time(conn, room.room_nid, timestamp_ms, direction, visible)
        return _dated(found, timestamp_ms, direction)

    async def _closest_to_user(
        self, conn: Connection, requester: Requester, room: RoomRow, timestamp_ms: int, direction: Direction
    ) -> StoredEvent | None:
        async def visible(events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
            return await self._access.filter_visible(conn, requester.user_id, events)

        return await _first_by_time(conn, room.room_nid, timestamp_ms, direction, visible)

    async def _servers_to_ask(
        self, conn: Connection, readable: ReadableRoom, found: StoredEvent | None, direction: Direction
    ) -> Sequence[ServerName]:
        """Servers that may know a closer event: those in the room, if history is missing between it and the time."""
        if readable.departure is not None:
            return ()
        later = await _event_behind_gap(conn, readable.room, found, direction)
        if later is None or later.topological is None:
            return ()
        missing = await list_missing_events(conn, readable.room.room_nid, upto=later.topological, limit=1)
        if not missing or missing[0].topological != later.topological:
            return ()
        servers = await list_servers(conn, readable.room.room_id, limit=_SERVERS_MAX + 1)
        return [server for server in servers if server != self._server_name][:_SERVERS_MAX]

    async def _fetch_closer(
        self,
        room: RoomRow,
        servers: Sequence[ServerName],
        found: StoredEvent | None,
        timestamp_ms: int,
        direction: Direction,
    ) -> bool:
        """Asks servers one after the other until one knows a closer event; whether that has been fetched."""
        try:
            async with asyncio.timeout(_ASKING_SECONDS_MAX):
                for server in servers:
                    try:
                        event_id, ts = await self._remote.timestamp_to_event(
                            server, room.room_id, ts=timestamp_ms, direction=direction.value
                        )
                    except MatrixError:
                        continue
                    is_closer = found is None or abs(ts - timestamp_ms) < abs(found.origin_server_ts - timestamp_ms)
                    if is_closer and await self._imports.fetch_event(room, server, event_id):
                        return True
        except TimeoutError:
            return False
        return False


async def _first_by_time(
    conn: Connection, room_nid: int, timestamp_ms: int, direction: Direction, visible: Visible
) -> StoredEvent | None:
    """The event closest to a time in a direction that may be told; None if there is none within what is searched."""
    point = (timestamp_ms + 1, 0) if direction is Direction.BACKWARDS else (timestamp_ms - 1, _EVENT_NID_MAX)
    for _ in range(_PAGES_MAX):
        page = await list_events_by_time(conn, room_nid, direction, after=point, limit=_PAGE_SIZE)
        for event in await visible(page):
            return event
        if len(page) < _PAGE_SIZE:
            break
        point = (page[-1].origin_server_ts, page[-1].event_nid)
    return None


async def _event_behind_gap(
    conn: Connection, room: RoomRow, found: StoredEvent | None, direction: Direction
) -> StoredEvent | None:
    """The event before which closer ones would stand, if history is missing there; None if none can be closer."""
    if direction is Direction.FORWARDS:
        return found
    span = HistorySpan(room.room_nid)
    if found is not None:
        span = span.beyond(found, Direction.FORWARDS)
    following = await list_history(conn, span, Direction.FORWARDS, event_filter=_ANY, limit=1)
    return following[0] if following else None


def _dated(found: StoredEvent | None, timestamp_ms: int, direction: Direction) -> DatedEvent:
    if found is None:
        way = "backward" if direction is Direction.BACKWARDS else "forward"
        raise NotFound(f"Unable to find an event from {timestamp_ms} in {way} direction")
    return DatedEvent(found.event_id, found.origin_server_ts)
