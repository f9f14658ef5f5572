"""The newest events of the rooms that somebody here follows, in memory: one read serves all who wait for them.

A tail has every streamed event of its room from a position on, up to where the recent changes are known. What is in it
never changes: where something told of may be another now (an event was redacted, or a room's past was judged anew), the
tail begins anew, and whoever is further behind asks the database.
"""

from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

from storage.bounded_cache import BoundedCache
from storage.database import Connection
from storage.recent_events import RecentEvent, list_recent_events

TAILS_BYTES_MAX: Final = 16 * 1024 * 1024
EVENTS_PER_ROOM_MAX: Final = 50
# What is read at once; where more has happened, the tails begin anew.
EVENTS_READ_MAX: Final = 1000
WANTED_MAX: Final = 10_000
# A row and its members beside the text.
_EVENT_BYTES: Final = 1500
_TAIL_BYTES: Final = 500


class _Tail:
    """One room's events, all from `since` on."""

    __slots__ = ("bytes", "events", "since")

    def __init__(self, since: int) -> None:
        self.since = since
        self.events: deque[RecentEvent] = deque()
        self.bytes = _TAIL_BYTES

    def add(self, recent: RecentEvent) -> None:
        self.events.append(recent)
        self.bytes += _bytes_of(recent)
        while len(self.events) > EVENTS_PER_ROOM_MAX:
            dropped = self.events.popleft()
            self.bytes -= _bytes_of(dropped)
            # Others of the same transaction may be left: they are all there only behind it.
            self.since = (dropped.event.position or 0) + 1


class RoomTails:
    """The tails of one process."""

    def __init__(self, *, bytes_max: int = TAILS_BYTES_MAX) -> None:
        """Starts with none."""
        self._tails: BoundedCache[int, _Tail] = BoundedCache(
            "room_tails", weight_max=bytes_max, weigh=lambda tail: tail.bytes, bytes_each=1
        )
        self._wanted: set[int] = set()

    def find(self, room_nid: int, *, since: int) -> Sequence[RecentEvent] | None:
        """A room's events from a position on, oldest first; None if not all of them are here."""
        tail = self._tails.get(room_nid)
        if tail is None or since < tail.since:
            return None
        found: list[RecentEvent] = []
        for recent in reversed(tail.events):
            if (recent.event.position or 0) < since:
                break
            found.append(recent)
        found.reverse()
        return found

    def follow(self, room_nids: Collection[int]) -> None:
        """Begins tails of those rooms that have none, where the next reading begins."""
        if len(self._wanted) < WANTED_MAX:
            self._wanted.update(room_nid for room_nid in room_nids if room_nid not in self._tails)

    async def read_on(
        self, conn: Connection, active: Collection[int], judged_anew: Collection[int], *, since: int, upto: int
    ) -> None:
        """Reads what follows the tails; nothing of it is to be seen before all of it is there.

        Args:
            active: the rooms with events between the positions.
            judged_anew: the rooms whose current state has changed.
        """
        for room_nid in self._wanted:
            if room_nid not in self._tails:
                self._tails.put(room_nid, _Tail(since))
        self._wanted.clear()
        followed = [room_nid for room_nid in active if room_nid in self._tails]
        news: list[RecentEvent] = []
        if followed:
            news = await list_recent_events(conn, followed, since=since, upto=upto, limit=EVENTS_READ_MAX)
        if len(news) == EVENTS_READ_MAX:
            self.clear()
            return
        told = {recent.event.room_nid for recent in news if recent.event.state_key is not None}
        changed = {recent.event.room_nid for recent in news if recent.event.type == "m.room.redaction"}
        for room_nid in changed | (set(judged_anew) - told):
            if room_nid in self._tails:
                self._tails.put(room_nid, _Tail(upto))
        by_room: dict[int, list[RecentEvent]] = {}
        for recent in news:
            if recent.event.room_nid not in changed:
                by_room.setdefault(recent.event.room_nid, []).append(recent)
        for room_nid, events in by_room.items():
            tail = self._tails.get(room_nid)
            if tail is None:  # it was pushed out meanwhile
                continue
            # Weighed by what it holds, so it leaves the cache before it grows.
            self._tails.discard(room_nid)
            for recent in events:
                tail.add(recent)
            self._tails.put(room_nid, tail)

    def clear(self) -> None:
        """Forgets all tails."""
        self._tails.clear()


def _bytes_of(recent: RecentEvent) -> int:
    return _EVENT_BYTES + len(recent.event.client_json) + 200 * len(recent.exceptions or ())
