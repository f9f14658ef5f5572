"""What concerns a user: the rooms that it is in, and those whom it does not want to hear of.

It is kept in memory with the position at which it held. What happened since then is told by the log of memberships, so
what is used always is as of the response that it is used for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from homeserver.core.ids import RoomId, UserId
from homeserver.services.sync.recent import RecentChanges
from storage import timelines
from storage.account_data import ignored_users
from storage.bounded_cache import BoundedCache
from storage.database import Connection

ROOMS_REMEMBERED_MAX: Final = 1_000_000
# What a room takes in memory: its id, and the keys under which the hub knows it.
_ROOM_BYTES: Final = 500


@dataclass(frozen=True, slots=True)
class Interests:
    """What concerns a user, just below a position.

    Attributes:
        joined: the rooms that the user is joined to, by `room_nid`.
        keys: what the hub calls the rooms and the user.
        ignored: whom the user ignores, then or a moment later.
    """

    position: int
    joined: Mapping[int, RoomId]
    keys: frozenset[str]
    ignored: frozenset[UserId]


def keys_of(user_id: UserId, joined: Mapping[int, RoomId]) -> frozenset[str]:
    """What the hub calls a user, and the rooms that it is in."""
    kinds = ("room", "presence")
    return frozenset((f"user:{user_id}", *(f"{kind}:{room_id}" for room_id in joined.values() for kind in kinds)))


class InterestsOfUsers:
    """The interests of the users who sync with this process."""

    def __init__(self, *, recent: RecentChanges, rooms_max: int = ROOMS_REMEMBERED_MAX) -> None:
        """Starts with nothing in memory; `rooms_max` bounds the rooms of all users together."""
        self._recent = recent
        self._remembered: BoundedCache[UserId, Interests] = BoundedCache(
            "sync_interests",
            weight_max=rooms_max,
            weigh=lambda kept: 1 + len(kept.joined) + len(kept.ignored),
            bytes_each=_ROOM_BYTES,
        )

    def find_remembered(self, user_id: UserId) -> Interests | None:
        """What was last read, at whatever position."""
        return self._remembered.get(user_id)

    async def at(self, conn: Connection, user_id: UserId, position: int) -> Interests:
        """What concerns a user just below a position, up to which the recent changes must be known."""
        known = self._remembered.get(user_id)
        if known is not None and known.position <= position:
            interests = await self._advance(conn, user_id, known, position)
        else:
            joined = await _read_joined(conn, user_id, position)
            interests = Interests(position, joined, keys_of(user_id, joined), await ignored_users(conn, user_id))
        if known is None or known.position < position:
            self._remembered.put(user_id, interests)
        return interests

    async def _advance(self, conn: Connection, user_id: UserId, known: Interests, position: int) -> Interests:
        if not self._recent.user_changed(user_id, since=known.position):
            return replace(known, position=position)
        joined = dict(known.joined)
        for change in await timelines.list_membership_changes(conn, user_id, since=known.position):
            if change.position >= position:
                break
            if change.membership == "join":
                joined[change.room_nid] = change.room_id
            else:
                joined.pop(change.room_nid, None)
        return Interests(position, joined, keys_of(user_id, joined), await ignored_users(conn, user_id))


async def _read_joined(conn: Connection, user_id: UserId, position: int) -> Mapping[int, RoomId]:
    memberships = await timelines.list_memberships_at(conn, user_id, position=position, with_left=False)
    return {each.room_nid: each.room_id for each in memberships if each.membership == "join"}
