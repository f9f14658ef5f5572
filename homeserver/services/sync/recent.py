"""What has changed lately, remembered by each process: so a sync need not ask about rooms in which nothing happened.

The memory is read from the streams, a piece at a time, by whoever syncs first after something was written; the others
find it there. It may name too much (a receipt has moved on since) but leaves nothing out.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import UserId
from homeserver.services.sync.room_tails import RoomTails
from storage.database import Connection
from storage.errors import DatabaseUnavailable
from storage.recent_changes import ChangeKind, list_changed_rooms, list_changes

KEYS_MAX: Final = 20_000
# After so many transactions that nobody here has asked about, it is cheaper to begin anew.
GAP_MAX: Final = 100_000
CATCH_UP_SECONDS_MAX: Final = 15.0

_ROOM_KINDS: Final = (ChangeKind.EVENTS, ChangeKind.STATE, ChangeKind.RECEIPTS, ChangeKind.TYPING)


@dataclass(frozen=True, slots=True)
class Changes:
    """What may have changed for one user between two positions; the rooms by `room_nid`.

    Attributes:
        events: rooms with new events.
        state: rooms whose current state changed.
        receipts: rooms in which somebody read on.
        typing: rooms in which somebody began or stopped typing.
        user: the user's account data, push rules, memberships, or messages to its devices.
        presence: anybody's presence.
        device_lists: anybody's devices.
    """

    events: Collection[int] = frozenset()
    state: Collection[int] = frozenset()
    receipts: Collection[int] = frozenset()
    typing: Collection[int] = frozenset()
    user: bool = True
    presence: bool = True
    device_lists: bool = True

    @property
    def rooms(self) -> set[int]:
        """All rooms in which something changed."""
        return {*self.events, *self.state, *self.receipts, *self.typing}

    @property
    def is_any(self) -> bool:
        """Whether anything changed."""
        return self.user or self.presence or self.device_lists or bool(self.rooms)


class RecentChanges:
    """The memory of one process."""

    def __init__(self, *, tails: RoomTails | None = None, keys_max: int = KEYS_MAX) -> None:
        """Starts with nothing in memory; `tails` are kept up with it."""
        self._tails = tails
        self._keys_max = keys_max
        # The last position of each, the oldest first.
        self._positions: OrderedDict[tuple[ChangeKind, int | UserId | None], int] = OrderedDict()
        # All that changed between these is in memory.
        self._since: int | None = None
        self._upto = 0
        self._reading = asyncio.Lock()

    def reaches(self, upto: int) -> bool:
        """Whether all below a bound can be asked about already."""
        return self._since is not None and upto <= self._upto

    async def catch_up(self, conn: Connection, upto: int) -> None:
        """Reads what is new, so that all below a bound can be asked about.

        Raises:
            DatabaseUnavailable: somebody else is reading it, for too long.
        """
        if self.reaches(upto):
            return
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS_MAX), self._reading:
                if not self.reaches(upto):
                    await self._read(conn, upto)
        except TimeoutError as error:
            raise DatabaseUnavailable from error

    async def _read(self, conn: Connection, upto: int) -> None:
        if self._since is None or upto - self._upto > GAP_MAX:
            self._begin(upto)
            return
        changes = await list_changes(conn, since=self._upto, upto=upto, limit=self._keys_max)
        if len(changes) == self._keys_max:
            self._begin(upto)
            return
        if self._tails is not None:
            events, state = (
                [change.key for change in changes if change.kind is kind and isinstance(change.key, int)]
                for kind in (ChangeKind.EVENTS, ChangeKind.STATE)
            )
            await self._tails.read_on(conn, events, state, since=self._upto, upto=upto)
        for change in changes:
            self._positions[change.kind, change.key] = change.position
            self._positions.move_to_end((change.kind, change.key))
        self._upto = upto
        while len(self._positions) > self._keys_max:
            _, position = self._positions.popitem(last=False)
            self._since = max(self._since, position + 1)

    def _begin(self, upto: int) -> None:
        self._positions.clear()
        self._since = self._upto = upto
        if self._tails is not None:
            self._tails.clear()

    @property
    def upto(self) -> int:
        """Below which all can be asked about."""
        return self._upto

    def has_read(self, user_id: UserId, *, since: int) -> bool:
        """Whether a user may have read on, in whatever room, from a position on."""
        if self._since is None or since < self._since:
            return True
        return self._positions.get((ChangeKind.READ, user_id), -1) >= since

    def user_changed(self, user_id: UserId, *, since: int) -> bool:
        """Whether something of a user's own may have changed from a position on."""
        if self._since is None or since < self._since:
            return True
        return self._positions.get((ChangeKind.USER, user_id), -1) >= since

    async def read(
        self, conn: Connection, user_id: UserId, rooms: Collection[int], *, since: int, upto: int
    ) -> Changes:
        """What may have changed for a user, who is in some rooms, from `since` on and before `upto`.

        All below `upto` must be known by now. What is not in memory any more is asked of the database.
        """
        remembered = self.find_remembered(user_id, rooms, since=since)
        return remembered or _changes(await list_changed_rooms(conn, rooms, since=since, upto=upto))

    def find_remembered(self, user_id: UserId, rooms: Collection[int], *, since: int) -> Changes | None:
        """What may have changed for a user, who is in some rooms, from `since` on; None if that is not in memory."""
        if self._since is None or since < self._since:
            return None
        recent = []
        for key, position in reversed(self._positions.items()):
            if position < since:
                break
            recent.append(key)
        return _changes(
            [(kind, key) for kind, key in recent if isinstance(key, int) and key in rooms],
            user=(ChangeKind.USER, user_id) in recent,
            presence=(ChangeKind.PRESENCE, None) in recent,
            device_lists=(ChangeKind.DEVICE_LISTS, None) in recent,
        )


def _changes(
    found: Collection[tuple[ChangeKind, int]], *, user: bool = True, presence: bool = True, device_lists: bool = True
) -> Changes:
    events, state, receipts, typing = (
        frozenset(room_nid for kind, room_nid in found if kind is wanted) for wanted in _ROOM_KINDS
    )
    return Changes(events, state, receipts, typing, user, presence, device_lists)
