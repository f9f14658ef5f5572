"""Reading the tree of a space, level by level: two statements for each, and what other servers tell of their rooms.

All of it is bounded: the rooms, how many of them are asked for elsewhere, and for how long.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.core.spaces import SPACE
from homeserver.services.rooms.discovery import discover
from homeserver.services.rooms.remote_hierarchies import RemoteHierarchies, RemoteSpace, list_findable
from homeserver.services.rooms.remote_summaries import RemoteSummary
from homeserver.services.rooms.space_children import SpaceChild, children_of_rows
from storage.database import Database
from storage.discovery import list_children

ROOMS_MAX: Final = 5000
_ASKED_MAX: Final = 100
_SECONDS_MAX: Final = 20.0


@dataclass(frozen=True, slots=True)
class TreeRoom:
    """A room of the tree: its summary in the form of the specification, and its children in their order."""

    summary: Mapping[str, Any]
    children: Sequence[SpaceChild] = ()

    def json(self) -> dict[str, Any]:
        """The room as a `SpaceHierarchyRoomsChunk` of the specification."""
        return {**self.summary, "children_state": [child.stripped for child in self.children]}


Tree = Mapping[RoomId, TreeRoom]
"""The rooms that can be reached from a space, as far as somebody may know of them."""


class SpaceTrees:
    """Reads trees of spaces."""

    def __init__(self, *, db: Database, remote: RemoteHierarchies) -> None:
        self._db = db
        self._remote = remote

    async def read(self, user_id: UserId, root: RoomId, *, depth: int, suggested_only: bool) -> Tree:
        """The rooms that can be reached from a space, as far as a user may know of them."""
        reading = _Reading(
            root,
            user_id=user_id,
            suggested_only=suggested_only,
            deadline=asyncio.get_running_loop().time() + _SECONDS_MAX,
        )
        level: Sequence[RoomId] = [root]
        for _ in range(depth + 1):
            elsewhere = await self._add_own(reading, level)
            if elsewhere:
                await self._add_others(reading, elsewhere)
            level = reading.next_level(level)
            if not level:
                break
        return reading.tree

    async def _add_own(self, reading: "_Reading", level: Sequence[RoomId]) -> Sequence[RoomId]:
        """Adds those rooms of a level that this server is in; returns the others."""
        async with self._db.connection() as conn:
            rooms = await discover(conn, level, user_id=reading.user_id)
            spaces = [found.summary.room_nid for found in rooms.found.values() if found.summary.room_type == SPACE]
            children = children_of_rows(
                await list_children(conn, spaces, limit=ROOMS_MAX), suggested_only=reading.suggested_only
            )
        for room_id, found in rooms.found.items():
            reading.tree[room_id] = TreeRoom(found.json(), children.get(found.summary.room_nid, ()))
        return [room_id for room_id in level if room_id not in rooms.found and room_id not in rooms.refused]

    async def _add_others(self, reading: "_Reading", level: Sequence[RoomId]) -> None:
        """Adds those rooms of a level that other servers tell of.

        A space is asked for itself; of other rooms what was told together with their space is enough.
        """
        told = {room_id: reading.told[room_id] for room_id in level if room_id in reading.told}
        asked = [room_id for room_id in level if room_id not in told or told[room_id].room_type == SPACE]
        asked = [room_id for room_id in asked if room_id not in reading.inaccessible][: reading.may_ask]
        reading.may_ask -= len(asked)
        spaces = await self._remote.find_many(
            {room_id: reading.via(room_id) for room_id in asked},
            suggested_only=reading.suggested_only,
            deadline=reading.deadline,
        )
        summaries = {**told, **{room_id: space.summary for room_id, space in spaces.items()}}
        async with self._db.connection() as conn:
            findable = await list_findable(conn, summaries.values(), user_id=reading.user_id)
        for room_id in findable:
            space = spaces.get(room_id)
            is_space = summaries[room_id].room_type == SPACE
            children = space.children if space is not None and is_space else ()
            reading.tree[room_id] = TreeRoom(summaries[room_id].body, children)
            if space is not None and is_space:
                reading.note(space)


class _Reading:
    """A tree that is being read.

    Attributes:
        may_ask: how many rooms may still be asked for elsewhere.
        told: what servers have said of rooms beside what they were asked for.
        inaccessible: rooms of which a server has said that this one may not know of them.
    """

    def __init__(self, root: RoomId, *, user_id: UserId, suggested_only: bool, deadline: float) -> None:
        self.user_id = user_id
        self.suggested_only = suggested_only
        self.deadline = deadline
        self.tree: dict[RoomId, TreeRoom] = {}
        self.may_ask = _ASKED_MAX
        self.told: dict[RoomId, RemoteSummary] = {}
        self.inaccessible: set[RoomId] = set()
        self._seen = {root}
        self._via: dict[RoomId, Sequence[ServerName]] = {}

    def note(self, space: RemoteSpace) -> None:
        """Notes what a server has said of a space's children. Of several servers, the first is believed."""
        self.told = {**space.summaries, **self.told}
        self.inaccessible.update(space.inaccessible)

    def via(self, room_id: RoomId) -> Sequence[ServerName]:
        """Servers to ask for a room; where nobody names any, the one that made the room."""
        made_by = room_id.server_name
        return self._via.get(room_id) or ([] if made_by is None else [made_by])

    def next_level(self, level: Collection[RoomId]) -> Sequence[RoomId]:
        """The rooms one level below that have not been come to yet."""
        found: list[RoomId] = []
        for child in self._children(level):
            if child.room_id not in self._seen and len(self._seen) < ROOMS_MAX:
                self._seen.add(child.room_id)
                self._via[child.room_id] = child.via
                found.append(child.room_id)
        return found

    def _children(self, level: Collection[RoomId]) -> Iterator[SpaceChild]:
        for room_id in level:
            if room_id in self.tree:
                yield from self.tree[room_id].children
