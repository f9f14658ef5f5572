"""The events of rooms' current states as JSON texts, in memory, for those who ask for all of them at once.

A room's `state_version` is raised by all that changes its state, or the text of an event in it: as long as it is the
same, so are the texts.

https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from storage.bounded_cache import BoundedCache
from storage.database import Connection
from storage.rooms import RoomRow
from storage.state import StateStore
from storage.state_events import StateText, list_state_texts

TEXTS_BYTES_MAX: Final = 16 * 1024 * 1024
# A text and its members beside the characters.
_TEXT_BYTES: Final = 300


@dataclass(frozen=True, slots=True)
class _KeptTexts:
    state_version: int
    state_id: int
    texts: Sequence[StateText]
    size_bytes: int


class StateTexts:
    """The texts of the current states of rooms. It reads on the caller's connection."""

    def __init__(self, *, states: StateStore, bytes_max: int = TEXTS_BYTES_MAX) -> None:
        """Takes the store of states, and how much is kept in memory."""
        self._states = states
        self._cache: BoundedCache[int, _KeptTexts] = BoundedCache(
            "state_texts", weight_max=bytes_max, weigh=lambda kept: kept.size_bytes, bytes_each=1
        )

    async def of_room(self, conn: Connection, room: RoomRow) -> Sequence[StateText]:
        """The events of the current state of a room that this server has a part in, in the order of their arrival."""
        assert room.state_id is not None, "There is no state where this server has no part in the room"
        kept = self._cache.get(room.room_nid)
        if kept is None or (kept.state_version, kept.state_id) != (room.state_version, room.state_id):
            snapshot = await self._states.load(conn, room.state_id)
            texts = await list_state_texts(conn, snapshot.entries().values())
            size_bytes = sum(_TEXT_BYTES + len(text.client_json) for text in texts)
            kept = _KeptTexts(room.state_version, room.state_id, texts, size_bytes)
            self._cache.put(room.room_nid, kept)
        return kept.texts
