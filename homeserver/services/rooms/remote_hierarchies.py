"""Asking other servers for rooms that this one is not in, and for the children of spaces among them.

An answer is good for some minutes and for all users of this server: what each of them may know of it is decided
afterwards.

https://spec.matrix.org/v1.19/server-server-api/#spaces
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.errors import MatrixError
from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.services.expiring_cache import ExpiringCache
from homeserver.services.remote import HierarchyAnswer, RemoteDirectories
from homeserver.services.rooms.remote_summaries import RemoteSummary, parse_summary
from homeserver.services.rooms.space_children import CHILDREN_MAX, SpaceChild, children_elsewhere
from storage.database import Connection
from storage.discovery import list_invited_among, list_joined_among

ASKED_AT_ONCE_MAX: Final = 8
_SERVERS_MAX: Final = 3
_GOOD_SECONDS: Final = 300.0
_FAILURE_SECONDS: Final = 60.0
_ROOMS_MAX: Final = 20_000
_ROOM_BYTES: Final = 2_000


@dataclass(frozen=True, slots=True)
class RemoteSpace:
    """A room that this server is not in, with what it has below it.

    Attributes:
        children: its children in their order, if it is a space.
        summaries: what the server says of the children that it is in itself.
        inaccessible: the children that it is in, but does not tell this server of: they need not be asked for.
    """

    summary: RemoteSummary
    children: Sequence[SpaceChild] = ()
    summaries: Mapping[RoomId, RemoteSummary] = field(default_factory=dict)
    inaccessible: Collection[RoomId] = ()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What asking for a room has come to; None for nothing."""

    space: RemoteSpace | None


class RemoteHierarchies:
    """Finds rooms on other servers."""

    def __init__(self, *, remote: RemoteDirectories, clock: Clock, server_name: ServerName) -> None:
        self._remote = remote
        self._server_name = server_name
        self._outcomes: ExpiringCache[tuple[RoomId, bool], _Outcome] = ExpiringCache(
            "remote_hierarchies", clock=clock, weight_max=_ROOMS_MAX, weigh=_weight, bytes_each=_ROOM_BYTES
        )

    async def find(
        self, room_id: RoomId, via: Sequence[ServerName], *, suggested_only: bool = False
    ) -> RemoteSpace | None:
        """What the first of some servers that can tell says of a room; None if none can."""
        servers = [server for server in via if server != self._server_name][:_SERVERS_MAX]
        known = self._outcomes.get((room_id, suggested_only))
        if known is not None:
            return known.space
        for server in servers:
            try:
                answer = await self._remote.hierarchy(server, room_id, suggested_only=suggested_only)
            except MatrixError:
                continue
            space = _parse(answer, room_id, suggested_only=suggested_only)
            if space is not None:
                self._outcomes.put((room_id, suggested_only), _Outcome(space), lifetime_seconds=_GOOD_SECONDS)
                return space
        if servers:
            self._outcomes.put((room_id, suggested_only), _Outcome(None), lifetime_seconds=_FAILURE_SECONDS)
        return None

    async def find_many(
        self, wanted: Mapping[RoomId, Sequence[ServerName]], *, suggested_only: bool, deadline: float
    ) -> Mapping[RoomId, RemoteSpace]:
        """As `find`, for several rooms, a few at the same time.

        Args:
            wanted: servers to ask by room.
            suggested_only: whether only suggested children are wanted.
            deadline: the time of the event loop at which no more is waited for; what is there then is returned.
        """
        found: dict[RoomId, RemoteSpace] = {}
        turns = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

        async def find_one(room_id: RoomId, via: Sequence[ServerName]) -> None:
            async with turns:
                space = await self.find(room_id, via, suggested_only=suggested_only)
            if space is not None:
                found[room_id] = space

        try:
            async with asyncio.timeout_at(deadline), asyncio.TaskGroup() as asking:
                for room_id, via in wanted.items():
                    asking.create_task(find_one(room_id, via))
        except TimeoutError:
            pass
        return found


async def list_findable(
    conn: Connection, summaries: Collection[RemoteSummary], *, user_id: UserId | None
) -> set[RoomId]:
    """Those of some rooms on other servers that a user may know of: by their rules, or for it is invited to them."""
    findable = {summary.room_id for summary in summaries if summary.is_open}
    if user_id is None:
        return findable
    conditions = {each for summary in summaries for each in summary.allowed_room_ids}
    joined = await list_joined_among(conn, user_id, conditions)
    findable.update(summary.room_id for summary in summaries if not joined.isdisjoint(summary.allowed_room_ids))
    return findable | await list_invited_among(conn, user_id, [summary.room_id for summary in summaries])


def _parse(answer: HierarchyAnswer, room_id: RoomId, *, suggested_only: bool) -> RemoteSpace | None:
    """Reads an answer; None if it is not about the room."""
    summary = parse_summary(answer.room)
    if summary is None or summary.room_id != room_id:
        return None
    children = children_elsewhere(answer.room.get("children_state"), suggested_only=suggested_only)
    named = {child.room_id for child in children}
    parsed = (parse_summary(each) for each in answer.children[:CHILDREN_MAX])
    return RemoteSpace(
        summary=summary,
        children=children,
        summaries={each.room_id: each for each in parsed if each is not None and each.room_id in named},
        inaccessible=named.intersection(answer.inaccessible_children),
    )


def _weight(outcome: _Outcome) -> int:
    return 1 if outcome.space is None else 1 + len(outcome.space.children) + len(outcome.space.summaries)
