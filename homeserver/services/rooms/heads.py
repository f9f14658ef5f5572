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
        head = _head(room_id, found)
        cached = self._cache.get(room_id)
        if cached is not None and cached.state_version == head.state_version:
            head = replace(head, entries=_joined(cached.entries, head.entries))
        self._cache.put(room_id, head)
        return head

    async def look(self, conn: Connection, room_id: RoomId, slots: Collection[StateKey]) -> RoomHead | None:
        """A room as it is now, with one statement; None if it is not known.

        What is read is kept for what is added to the room next. As nobody waits for the room to do so, events may be
        added to it meanwhile: then what is known of them is not given up.
        """
        found = await find_head(conn, room_id, slots)
        if found is not None and found.state_id is not None:
            head, cached = _head(room_id, found), self._cache.get(room_id)
            if cached is None or cached.state_version < head.state_version:
                self._cache.put(room_id, head)
            elif cached.state_version == head.state_version:
                newer = max(
                    cached, head, key=lambda known: max((end.event_nid for end in known.extremities), default=0)
                )
                self._cache.put(room_id, replace(newer, entries=_joined(cached.entries, head.entries)))
        return found

    def advance(self, head: Head, appended: Appended, changes: Mapping[StateKey, StateEntry | None]) -> None:
        """Keeps the head as it is after events were added to it."""
        entries = head.entries
        cached = self._cache.get(head.room_id)
        if cached is not None and cached is not head and cached.state_version == head.state_version:
            # Others have looked at the same state meanwhile, for what they are going to add.
            entries = _joined(cached.entries, entries)
        self._cache.put(
            head.room_id,
            replace(
                head,
                state_version=appended.state_version,
                state_id=appended.state_id,
                extremities=tuple(appended.extremities),
                entries={**entries, **changes} if changes else entries,
            ),
        )

    def discard(self, room_id: RoomId) -> None:
        """Forgets a room, so that it is read anew."""
        self._cache.discard(room_id)


def _joined(
    known: Mapping[StateKey, StateEntry | None], found: Mapping[StateKey, StateEntry | None]
) -> Mapping[StateKey, StateEntry | None]:
    """Entries of one state, from two readings; the older reading is given up when it has become very long."""
    return {**known, **found} if len(known) < _ENTRIES_OF_ROOM_MAX else found


def _head(room_id: RoomId, found: RoomHead) -> Head:
    return Head(
        room_nid=found.room_nid,
        room_id=room_id,
        room_version=found.room_version,
        state_version=found.state_version,
        state_id=found.state_id,
        extremities=found.extremities,
        entries={slot: None if row is None else StateEntry(row[0], row[1]) for slot, row in found.entries.items()},
    )
