"""The head of a room as one process knows it: where its event graph ends, and entries of its current state.

A head is an assumption: `append_events` refuses events that were made on an outdated state.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from homeserver.core.errors import Forbidden
from homeserver.core.ids import RoomId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.room_versions import RoomVersion
from homeserver.services.rooms.drafts import StateEntry
from storage.append import Appended, Extremity
from storage.bounded_cache import BoundedCache
from storage.database import Connection
from storage.room_heads import RoomHead, find_head

_ENTRIES_OF_ROOM_MAX: Final = 1000
# What an entry takes in memory: its event, parsed.
_ENTRY_BYTES: Final = 3000


@dataclass(frozen=True, slots=True)
class Head:
    """A room at one version of its state.

    Attributes:
        extremities: the events that nothing follows yet, as far as is known.
        entries: the entries of the current state that were asked for; None for an empty slot.
    """

    room_nid: int
    room_id: RoomId
    room_version: RoomVersion
    state_version: int
    state_id: int | None
    extremities: tuple[Extremity, ...]
    entries: Mapping[StateKey, StateEntry | None] = field(default_factory=dict)

    def find(self, slot: StateKey) -> Pdu | None:
        """The event at a slot of the current state, which must be among the entries; None if the slot is empty."""
        entry = self.entries[slot]
        return None if entry is None else entry.pdu

    def lacks(self, slots: Iterable[StateKey]) -> list[StateKey]:
        """Those of some slots that are not among the entries."""
        return [slot for slot in slots if slot not in self.entries]


class Heads:
    """The heads of rooms, read from the database or kept from the last time."""

    def __init__(self, *, entries_max: int = 20_000) -> None:
        """Takes how many entries of states are kept, of all rooms together."""
        self._cache: BoundedCache[RoomId, Head] = BoundedCache(
            "room_heads", weight_max=entries_max, weigh=lambda head: 1 + len(head.entries), bytes_each=_ENTRY_BYTES
        )

    def find_cached(self, room_id: RoomId, slots: Collection[StateKey]) -> Head | None:
        """The head from memory, if it has these slots."""
        head = self._cache.get(room_id)
        return None if head is None or head.lacks(slots) else head

    async def read(self, conn: Connection, room_id: RoomId, slots: Collection[StateKey]) -> Head:
        """The head as it is now, with one statement. What is known of the same state version stays known.

        Raises:
            Forbidden: this server is not in the room. It is what members would be told who may not do something, so
                that nobody learns which rooms exist.
        """
        found = await find_head(conn, room_id, slots)
        if found is None or found.state_id is None:
            raise Forbidden("You are not in the room")
        return self._keep(room_id, found)

    async def look(self, conn: Connection, room_id: RoomId, slots: Collection[StateKey]) -> RoomHead | None:
        """A room as it is now, with one statement; None if it is not known. What is read is kept, as by `read`."""
        found = await find_head(conn, room_id, slots)
        if found is not None and found.state_id is not None:
            self._keep(room_id, found)
        return found

    def _keep(self, room_id: RoomId, found: RoomHead) -> Head:
        entries: dict[StateKey, StateEntry | None] = {
            slot: None if row is None else StateEntry(row[0], row[1]) for slot, row in found.entries.items()
        }
        cached = self._cache.get(room_id)
        if cached is not None and cached.state_version == found.state_version:
            entries = {**cached.entries, **entries} if len(cached.entries) < _ENTRIES_OF_ROOM_MAX else entries
        head = Head(
            room_nid=found.room_nid,
            room_id=room_id,
            room_version=found.room_version,
            state_version=found.state_version,
            state_id=found.state_id,
            extremities=found.extremities,
            entries=entries,
        )
        self._cache.put(room_id, head)
        return head

    def advance(self, head: Head, appended: Appended, changes: Mapping[StateKey, StateEntry | None]) -> None:
        """Keeps the head as it is after events were added to it."""
        self._cache.put(
            head.room_id,
            replace(
                head,
                state_version=appended.state_version,
                state_id=appended.state_id,
                extremities=tuple(appended.extremities),
                entries={**head.entries, **changes} if changes else head.entries,
            ),
        )

    def discard(self, room_id: RoomId) -> None:
        """Forgets a room, so that it is read anew."""
        self._cache.discard(room_id)
