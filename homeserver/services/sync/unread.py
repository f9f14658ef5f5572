"""What is unread, for syncs: counted by the database once, then carried on from memory by what happens in the room.

A count in memory holds for the events up to one of them. It is counted anew once its user has read, or once its user's
own things have changed, a membership among them, and where the room's newest events are not in memory.

https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId, UserId
from homeserver.services.push.counts import NotificationCounts, UnreadCount, UnreadCounts
from homeserver.services.sync.recent import RecentChanges
from homeserver.services.sync.room_tails import RoomTails
from storage.bounded_cache import BoundedCache
from storage.database import Connection
from storage.recent_events import RecentEvent

COUNTS_REMEMBERED_MAX: Final = 200_000
_NONE: Final = NotificationCounts()


@dataclass(frozen=True, slots=True)
class _Counted:
    """A count of all events up to `newest_nid`, among which are all below `position`."""

    count: UnreadCount
    newest_nid: int
    position: int


class UnreadInRooms:
    """The counts of the users who sync with this process."""

    def __init__(self, *, counts: UnreadCounts, recent: RecentChanges, tails: RoomTails) -> None:
        self._counts = counts
        self._recent = recent
        self._tails = tails
        self._remembered: BoundedCache[tuple[UserId, int], _Counted] = BoundedCache(
            "unread_counts", weight_max=COUNTS_REMEMBERED_MAX
        )

    async def of_rooms(self, conn: Connection, user_id: UserId, room_nids: Sequence[int]) -> Mapping[int, UnreadCount]:
        """What a user has not read of those of some rooms that it is joined to, by `room_nid`.

        All is counted up to where the recent changes reach; later events may be counted or not.
        """
        found: dict[int, UnreadCount] = {}
        unknown: list[int] = []
        for room_nid in room_nids:
            counted = self._carry_on(user_id, room_nid)
            if counted is None:
                unknown.append(room_nid)
            else:
                found[room_nid] = counted.count
        if unknown:
            # What is read now counts all that the recent changes know of.
            position = self._recent.upto
            for room_nid, (count, newest_nid) in (await self._counts.of_rooms(conn, user_id, unknown)).items():
                found[room_nid] = count
                self._remembered.put((user_id, room_nid), _Counted(count, newest_nid, position))
        return found

    def _carry_on(self, user_id: UserId, room_nid: int) -> _Counted | None:
        """What memory tells, with what has happened since; it is remembered then. None if it cannot tell."""
        counted = self._remembered.get((user_id, room_nid))
        if (
            counted is None
            or self._recent.has_read(user_id, since=counted.position)
            or self._recent.user_changed(user_id, since=counted.position)
        ):
            return None
        events = self._tails.find(room_nid, since=counted.position)
        if events is None:
            return None
        later = [recent for recent in events if recent.event.event_nid > counted.newest_nid]
        if later:
            count = add_events(counted.count, user_id, later)
            if count is None:
                return None
            counted = _Counted(count, later[-1].event.event_nid, self._recent.upto)
            self._remembered.put((user_id, room_nid), counted)
        return counted


def add_events(count: UnreadCount, user_id: UserId, events: Sequence[RecentEvent]) -> UnreadCount | None:
    """A count after further events of the room, in their order; None if they do not say what they do for the user.

    Whoever sends something into a thread, the main timeline being one, has read it up to there.
    """
    main, threads = count.main, dict(count.threads)
    for recent in events:
        event = recent.event
        if event.sender == user_id:
            if event.transaction_id is not None and event.type != "m.room.redaction":
                if event.thread_root is None:
                    main = _NONE
                else:
                    threads.pop(event.thread_root, None)
            continue
        if recent.exceptions is None:
            return None
        default = (event.push_actions_id is not None, (event.push_actions_id or 0) < 0)
        notifies, highlights = recent.exceptions.get(user_id, default)
        if not notifies and not highlights:
            continue
        added = NotificationCounts(int(notifies), int(highlights))
        if event.thread_root is None:
            main += added
        else:
            root = EventId(event.thread_root)
            threads[root] = threads.get(root, _NONE) + added
    return UnreadCount(main, threads)
