"""The threads of a room.

https://spec.matrix.org/v1.19/client-server-api/#threading
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from homeserver.core.ids import EventId, RoomId
from homeserver.core.requester import Requester
from homeserver.core.tokens import HistoryToken
from homeserver.services.rooms.access import RoomAccess
from homeserver.services.rooms.history_reader import readable_span
from homeserver.services.rooms.pruning import prune
from homeserver.services.rooms.rendering import EventRenderer
from storage.account_data import ignored_users
from storage.database import Connection, Database
from storage.events import StoredEvent
from storage.related_events import list_threads

_ROUNDS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class ThreadsPage:
    """A page of thread roots, ready to be encoded, that with the latest event first.

    Attributes:
        next_batch: where the next page starts; None if there is none.
    """

    chunk: Sequence[Any]
    next_batch: HistoryToken | None


class Threads:
    """Lists the threads of rooms."""

    def __init__(self, *, db: Database, access: RoomAccess, renderer: EventRenderer) -> None:
        self._db = db
        self._access = access
        self._renderer = renderer

    async def threads(
        self,
        requester: Requester,
        room_id: RoomId,
        *,
        from_token: HistoryToken | None,
        limit: int,
        participated_only: bool,
    ) -> ThreadsPage:
        """A page of the roots that the user may see.

        Args:
            requester: who asks.
            room_id: the room.
            from_token: where to start; None for the thread with the latest event.
            limit: how many at most.
            participated_only: only threads in which the requester has sent an event.

        Raises:
            Forbidden: the user may not read the room.
        """
        async with self._db.connection() as conn:
            span = readable_span(await self._access.require_readable(conn, requester.user_id, room_id))
            ignored = await ignored_users(conn, requester.user_id)
            upto: HistoryToken | None = span.upto if from_token is None else min(span.upto, from_token)
            roots: list[StoredEvent] = []
            memberships: dict[EventId, str] = {}
            for _ in range(_ROUNDS_MAX):
                if upto is None or len(roots) >= limit:
                    break
                wanted = limit - len(roots)
                rows = await list_threads(
                    conn,
                    span.room_nid,
                    sight=span.upto,
                    upto=upto,
                    reader=requester.user_id,
                    ignored_users=ignored,
                    participated_only=participated_only,
                    limit=wanted + 1,
                )
                upto = rows[wanted].latest if len(rows) > wanted else None
                page = [row.root for row in rows[:wanted]]
                visible = await self._access.visible(conn, requester.user_id, page)
                roots.extend(visible.events)
                memberships.update(visible.memberships)
            roots = await _without_content_of(conn, ignored, roots)
            chunk = await self._renderer.render(conn, roots, requester, memberships=memberships)
            return ThreadsPage(chunk, next_batch=upto)


async def _without_content_of(
    conn: Connection, ignored: frozenset[str], roots: Sequence[StoredEvent]
) -> list[StoredEvent]:
    """The roots, those of ignored users as if they had been redacted."""
    pruned = await prune(conn, [root for root in roots if root.sender in ignored])
    return [pruned.get(root.event_nid, root) for root in roots]
