"""Reading a room's history as one user sees it.

What a user may not see is passed over: one reads on until there is enough, or the history ends, or so much has been
read that the client had better ask again (it then gets little or nothing, and where to go on all the same).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from homeserver.core.filters import RoomEventFilter
from homeserver.core.ids import EventId, UserId
from homeserver.core.tokens import HistoryToken, SyncToken
from homeserver.services.rooms.access import ReadableRoom, RoomAccess
from storage.account_data import ignored_users
from storage.database import Connection
from storage.events import StoredEvent
from storage.history import END, Direction, HistorySpan, at, find_scan_end, history_token, list_history

_ROUNDS_MAX: Final = 8
_FURTHER_ROUNDS_SIZE: Final = 250
_SCANNED_MAX: Final = 2000

NextPage = Callable[[HistorySpan, int], Awaitable[tuple[Sequence[StoredEvent], HistorySpan | None]]]
"""Reads the first events of a span, at most so many; beside them what is left of the span then, None for nothing."""


@dataclass(frozen=True, slots=True)
class SeenHistory:
    """Events that a user sees, in the direction in which they were read.

    Attributes:
        memberships: the user's membership at each event.
        rest: what lies behind them; None if that is nothing.
    """

    events: Sequence[StoredEvent] = ()
    memberships: Mapping[EventId, str] = field(default_factory=dict)
    rest: HistorySpan | None = None


class HistoryReader:
    """Reads runs of events that a user may see."""

    def __init__(self, *, access: RoomAccess) -> None:
        self._access = access

    async def read(
        self,
        conn: Connection,
        user_id: UserId,
        span: HistorySpan,
        direction: Direction,
        *,
        event_filter: RoomEventFilter,
        limit: int,
    ) -> SeenHistory:
        """The first events of a span that the user sees and the filter lets through."""
        next_page = partial(_next_page, conn, direction, event_filter)
        return await self.collect(conn, user_id, span, direction, next_page=next_page, limit=limit)

    async def collect(
        self,
        conn: Connection,
        user_id: UserId,
        span: HistorySpan,
        direction: Direction,
        *,
        next_page: NextPage,
        limit: int,
    ) -> SeenHistory:
        """The first events of a span that the user sees, of those that `next_page` brings.

        Messages of users that the user ignores are left out; their state events are not.
        """
        ignored = await ignored_users(conn, user_id)
        events: list[StoredEvent] = []
        memberships: dict[EventId, str] = {}
        rest: HistorySpan | None = span
        for number in range(_ROUNDS_MAX):
            if rest is None or len(events) >= limit:
                break
            page, rest = await next_page(rest, limit if number == 0 else max(limit, _FURTHER_ROUNDS_SIZE))
            wanted = [event for event in page if event.state_key is not None or event.sender not in ignored]
            visible = await self._access.visible(conn, user_id, wanted)
            kept = visible.events[: limit - len(events)]
            if len(kept) < len(visible.events):
                rest = span.beyond(kept[-1], direction)
            events.extend(kept)
            memberships.update(visible.memberships)
        return SeenHistory(events, memberships, rest)


async def _next_page(
    conn: Connection, direction: Direction, event_filter: RoomEventFilter, span: HistorySpan, size: int
) -> tuple[Sequence[StoredEvent], HistorySpan | None]:
    """The next events that the filter lets through, and what is left of the span then."""
    rest: HistorySpan | None = None
    scanned = span
    if _is_selective(event_filter):
        rest = await find_scan_end(conn, span, direction, events_max=_SCANNED_MAX)
        if rest is not None and direction is Direction.BACKWARDS:
            scanned = replace(span, after=rest.upto)
        elif rest is not None:
            scanned = replace(span, upto=rest.after)
    page = await list_history(conn, scanned, direction, event_filter=event_filter, limit=size + 1)
    if len(page) > size:
        page = page[:size]
        rest = span.beyond(page[-1], direction)
    return [event for event in page if passes(event_filter, event)], rest


def _is_selective(event_filter: RoomEventFilter) -> bool:
    """Whether the database may have to pass over many events."""
    wanted = (
        event_filter.types,
        event_filter.senders,
        event_filter.related_by_senders,
        event_filter.related_by_rel_types,
    )
    return any(each is not None for each in wanted) or bool(event_filter.not_types or event_filter.not_senders)


def passes(event_filter: RoomEventFilter, event: StoredEvent) -> bool:
    """Whether a filter lets an event through, as far as the event itself can tell."""
    return event_filter.matches_in_room(
        event_type=event.type,
        sender=event.sender,
        room_id=event.room_id,
        content={} if event_filter.contains_url is None else event.content,
    )


def readable_span(readable: ReadableRoom) -> HistorySpan:
    """The history of a room up to where a user's sight ends."""
    departure = readable.departure
    return HistorySpan(readable.room.room_nid, upto=END if departure is None else at(departure))


async def asked_span(
    conn: Connection,
    readable: ReadableRoom,
    direction: Direction,
    *,
    from_token: HistoryToken | SyncToken | None,
    to_token: HistoryToken | SyncToken | None,
) -> HistorySpan:
    """The history between two tokens, in a direction, up to where the user's sight ends; None for either end of it."""
    span = readable_span(readable)
    first, last = (to_token, from_token) if direction is Direction.BACKWARDS else (from_token, to_token)
    after = span.after if first is None else await history_token(conn, span.room_nid, first)
    upto = span.upto if last is None else await history_token(conn, span.room_nid, last)
    return replace(span, after=after, upto=min(span.upto, upto))
