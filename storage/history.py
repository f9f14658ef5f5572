"""Paging through the history of one room, in the order of (topological, event_nid), both ways.

A span of history lies between two tokens, each a point between two events: those at or before the token lie before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from homeserver.core.filters import RoomEventFilter
from homeserver.core.ids import EventId, RoomId
from homeserver.core.tokens import HistoryToken, SyncToken
from storage.database import Connection
from storage.events import StoredEvent, stored_event

_LAST: Final = 2**63 - 1
BEGINNING: Final = HistoryToken(topological=-_LAST, event_nid=0)
END: Final = HistoryToken(topological=_LAST, event_nid=_LAST)


class Direction(StrEnum):
    """Which way a client pages (`dir`)."""

    BACKWARDS = "b"
    FORWARDS = "f"


@dataclass(frozen=True, slots=True)
class HistorySpan:
    """The events of a room behind one point of its history and up to another."""

    room_nid: int
    after: HistoryToken = BEGINNING
    upto: HistoryToken = END

    def start(self, direction: Direction) -> HistoryToken:
        """The end of the span from which one reads in a direction."""
        return self.upto if direction is Direction.BACKWARDS else self.after

    def beyond(self, event: StoredEvent, direction: Direction) -> "HistorySpan":
        """What is left of the span when one has come to an event, which is not part of it any more."""
        if direction is Direction.BACKWARDS:
            return replace(self, upto=before(event))
        return replace(self, after=at(event))


def at(event: StoredEvent) -> HistoryToken:
    """The point just behind an event, which must have a place in the history."""
    return HistoryToken(topological=event.topological or 0, event_nid=event.event_nid)


def before(event: StoredEvent) -> HistoryToken:
    """The point just before an event, which must have a place in the history."""
    return HistoryToken(topological=event.topological or 0, event_nid=event.event_nid - 1)


_IN_SPAN: Final = """
    FROM stored_events e
    WHERE e.room_nid = $1 AND e.topological IS NOT NULL
        AND (e.topological, e.event_nid) > ($2::bigint, $3::bigint)
        AND (e.topological, e.event_nid) <= ($4::bigint, $5::bigint)
"""
_WANTED: Final = """
        AND ($6::text[] IS NULL OR e.type LIKE ANY ($6))
        AND NOT e.type LIKE ANY ($7::text[])
        AND ($8::text[] IS NULL OR e.sender = ANY ($8))
        AND NOT e.sender = ANY ($9::text[])
        AND ($10::text[] IS NULL AND $11::text[] IS NULL OR EXISTS (
            SELECT FROM relations r JOIN events child USING (event_nid)
            WHERE r.relates_to = e.event_id
                AND ($10 IS NULL OR child.sender = ANY ($10)) AND ($11 IS NULL OR r.rel_type = ANY ($11))
        ))
"""
_BACKWARDS: Final = "ORDER BY e.topological DESC, e.event_nid DESC"
_FORWARDS: Final = "ORDER BY e.topological, e.event_nid"

SELECT_HISTORY_BACKWARDS: Final = f"SELECT e.* {_IN_SPAN} {_WANTED} {_BACKWARDS} LIMIT $12"
SELECT_HISTORY_FORWARDS: Final = f"SELECT e.* {_IN_SPAN} {_WANTED} {_FORWARDS} LIMIT $12"


async def list_history(
    conn: Connection, span: HistorySpan, direction: Direction, *, event_filter: RoomEventFilter, limit: int
) -> list[StoredEvent]:
    """The first events of a span in a direction.

    Of the filter all is applied but its rooms and `contains_url`. If it lets little through, many events are read:
    bound the span by `find_scan_end` first.
    """
    rows = await conn.fetch(
        SELECT_HISTORY_BACKWARDS if direction is Direction.BACKWARDS else SELECT_HISTORY_FORWARDS,
        *_bounds(span),
        event_filter.types_like,
        event_filter.not_types_like,
        event_filter.senders,
        event_filter.not_senders,
        event_filter.related_by_senders,
        event_filter.related_by_rel_types,
        limit,
    )
    return [stored_event(row) for row in rows]


SELECT_SCAN_END_BACKWARDS: Final = f"SELECT e.topological, e.event_nid {_IN_SPAN} {_BACKWARDS} OFFSET $6 LIMIT 1"
SELECT_SCAN_END_FORWARDS: Final = f"SELECT e.topological, e.event_nid {_IN_SPAN} {_FORWARDS} OFFSET $6 LIMIT 1"


async def find_scan_end(
    conn: Connection, span: HistorySpan, direction: Direction, *, events_max: int
) -> HistorySpan | None:
    """What is left of a span behind its first events in a direction; None if there are no more than `events_max`."""
    backwards = direction is Direction.BACKWARDS
    statement = SELECT_SCAN_END_BACKWARDS if backwards else SELECT_SCAN_END_FORWARDS
    row = await conn.fetchrow(statement, *_bounds(span), events_max)
    if row is None:
        return None
    if backwards:
        return replace(span, upto=HistoryToken(row["topological"], row["event_nid"]))
    return replace(span, after=HistoryToken(row["topological"], row["event_nid"] - 1))


def _bounds(span: HistorySpan) -> Sequence[int]:
    after, upto = span.after, span.upto
    return span.room_nid, after.topological, after.event_nid, upto.topological, upto.event_nid


SELECT_POINT_AT_POSITION: Final = """
    SELECT topological, event_nid FROM events
    WHERE room_nid = $1 AND position IS NOT NULL AND position < $2 AND topological IS NOT NULL
    ORDER BY position DESC, event_nid DESC
    LIMIT 1
"""


async def history_token(conn: Connection, room_nid: int, token: HistoryToken | SyncToken) -> HistoryToken:
    """A point in a room's history; for one in the stream, that behind the last event that was streamed before it."""
    if isinstance(token, HistoryToken):
        return token
    row = await conn.fetchrow(SELECT_POINT_AT_POSITION, room_nid, token.position)
    return BEGINNING if row is None else HistoryToken(row["topological"], row["event_nid"])


SELECT_LAST_EVENT: Final = f"SELECT e.* {_IN_SPAN} {_BACKWARDS} LIMIT 1"


async def find_last_event(conn: Connection, span: HistorySpan) -> StoredEvent | None:
    """The last event of a span; None if it has none."""
    row = await conn.fetchrow(SELECT_LAST_EVENT, *_bounds(span))
    return None if row is None else stored_event(row)


SELECT_EVENTS_UNTIL_TIME: Final = """
    SELECT * FROM stored_events
    WHERE room_nid = $1 AND topological IS NOT NULL
        AND (origin_server_ts, event_nid) < ($2::bigint, $3::bigint)
    ORDER BY origin_server_ts DESC, event_nid DESC
    LIMIT $4
"""
SELECT_EVENTS_FROM_TIME: Final = """
    SELECT * FROM stored_events
    WHERE room_nid = $1 AND topological IS NOT NULL
        AND (origin_server_ts, event_nid) > ($2::bigint, $3::bigint)
    ORDER BY origin_server_ts, event_nid
    LIMIT $4
"""


async def list_events_by_time(
    conn: Connection, room_nid: int, direction: Direction, *, after: tuple[int, int], limit: int
) -> list[StoredEvent]:
    """Events in the order of their `origin_server_ts`, starting behind the point `(origin_server_ts, event_nid)`."""
    statement = SELECT_EVENTS_UNTIL_TIME if direction is Direction.BACKWARDS else SELECT_EVENTS_FROM_TIME
    return [stored_event(row) for row in await conn.fetch(statement, room_nid, *after, limit)]


SELECT_EVENT_IN_ROOM: Final = """
    SELECT * FROM stored_events
    WHERE event_id = $1 AND topological IS NOT NULL
        AND room_nid = (SELECT r.room_nid FROM rooms r WHERE r.room_id = $2)
"""


async def find_event_in_room(conn: Connection, *, room_id: RoomId, event_id: EventId) -> StoredEvent | None:
    """An event that has a place in the history of a room; None if it is not known, or one of another room."""
    row = await conn.fetchrow(SELECT_EVENT_IN_ROOM, event_id, room_id)
    return None if row is None else stored_event(row)
