"""Fetching the history of rooms from other servers, as far as it is missing here and somebody wants to read it.

One piece of such work is done for a room at a time, by all workers together: who comes while it goes on waits for it.
It goes on when those who wait for it have gone, so that what takes long is there when they come again. An event that
nobody had is remembered as such for a time, so that reading comes to an end.

https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import Counter

from homeserver.core.errors import Forbidden, MatrixError, RemoteRefused, RemoteUnavailable, UnavailableForNow
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.pdu import Pdu
from homeserver.core.tokens import HistoryToken
from homeserver.services.remote import RemoteEvents
from homeserver.services.rooms.gate import EventGate
from homeserver.services.rooms.history_servers import find_history_servers
from homeserver.services.rooms.incoming import AccessControl
from homeserver.services.rooms.inquiry import Inquiry
from homeserver.services.rooms.leased_work import Lease, LeasedWork
from homeserver.services.rooms.past_taking import PastTaking
from storage.backfill import list_gaps
from storage.database import Database
from storage.errors import DatabaseError
from storage.missing_events import MissingEvent, list_missing_events, note_tried
from storage.outliers import list_known_events
from storage.resident_rooms import find_resident_room
from storage.rooms import RoomRow
from storage.state import StateStore

logger = logging.getLogger(__name__)

BACKFILLED_EVENTS: Final = Counter(
    "heliograph_backfilled_events", "Events that were fetched into the history of rooms."
)
BACKFILLS: Final = Counter("heliograph_backfills", "How asking for history of a room ended.", ["outcome"])

WAIT_SECONDS_MAX: Final = 10.0
"""How long a reader waits for history."""
_ASKING_SECONDS_MAX: Final = 150.0
_SERVER_SECONDS_MAX: Final = 90.0
_BUSY_SECONDS_MAX: Final = 60.0
_AT_ONCE_MAX: Final = 50
"""In how many rooms a worker fetches history at a time."""
_REQUESTS_MAX: Final = 100
_ASKED_MAX: Final = 20
_ASKED_SPREAD: Final = 100
"""Events that are missing so close to each other, and are about as old, are asked for together."""
_GAPS_MAX: Final = 3
_EVENTS_MIN: Final = 30
_EVENTS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class _Fetching:
    """Work for a room, and what comes of it: whether something was found."""

    room_id: RoomId
    work: Callable[[Lease], Awaitable[bool]]
    outcome: "asyncio.Future[bool]"


@dataclass(frozen=True, slots=True)
class _Told:
    """How many events were placed by the answer of a server, and which were in it."""

    placed: int = 0
    event_ids: Collection[EventId] = ()


_NOTHING: Final = _Told()


class RoomBackfill:
    """Fetches history; `run()` must be running. It satisfies `Backfill` and `EventImport`."""

    def __init__(
        self,
        *,
        db: Database,
        server_name: ServerName,
        remote: RemoteEvents,
        gate: EventGate,
        access: AccessControl,
        states: StateStore,
        taking: PastTaking,
        work: LeasedWork,
    ) -> None:
        self._db = db
        self._server_name = server_name
        self._remote = remote
        self._gate = gate
        self._access = access
        self._states = states
        self._taking = taking
        self._work = work
        self._under_way: dict[RoomId, _Fetching] = {}
        self._begun: asyncio.Queue[_Fetching] = asyncio.Queue()

    async def run(self) -> None:
        """Does the work that readers ask for, until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(self._fetch(await self._begun.get()))

    async def reach(self, room: RoomRow, at: HistoryToken, *, limit: int) -> bool:
        """Fetches some of what precedes a point of a room's history, if anybody has it; whether there is more now.

        It raises nothing.
        """
        work = partial(self._fill, room_id=room.room_id, upto=at.topological, limit=limit)
        return await self._within_limits(self._do(room.room_id, work, or_other_work=True))

    async def fetch_event(self, room: RoomRow, via: ServerName, event_id: EventId) -> bool:
        """Fetches an event from a server and gives it its place in the room's history; whether that was done.

        It raises nothing.
        """
        work = partial(self._fetch_event, room_id=room.room_id, via=via, event_id=event_id)
        return await self._within_limits(self._do(room.room_id, work))

    async def _within_limits(self, done: Awaitable[bool]) -> bool:
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                return await done
        except (TimeoutError, UnavailableForNow):
            return False

    async def _do(
        self, room_id: RoomId, work: Callable[[Lease], Awaitable[bool]], *, or_other_work: bool = False
    ) -> bool:
        """Waits until this process does nothing else for the room, does the work, and returns what comes of it.

        With `or_other_work` it need not be done if something else was found meanwhile.
        """
        while (other := self._under_way.get(room_id)) is not None:
            if await asyncio.shield(other.outcome) and or_other_work:
                return True
        if len(self._under_way) >= _AT_ONCE_MAX:
            raise UnavailableForNow("The history of too many rooms is being fetched")
        fetching = _Fetching(room_id, work, asyncio.get_running_loop().create_future())
        self._under_way[room_id] = fetching
        self._begun.put_nowait(fetching)
        return await asyncio.shield(fetching.outcome)

    async def _fetch(self, fetching: _Fetching) -> None:
        found = False
        try:
            found = await self._work.run(
                f"history:{fetching.room_id}", fetching.work, wait_seconds_max=_BUSY_SECONDS_MAX
            )
        except (MatrixError, DatabaseError) as error:
            BACKFILLS.labels("failed").inc()
            logger.info("history of %s was not fetched: %s", fetching.room_id, error)
        except Exception:
            # A mistake of ours: other rooms, and this one the next time, must not suffer from it.
            BACKFILLS.labels("failed").inc()
            logger.exception("history of %s could not be fetched", fetching.room_id)
        finally:
            del self._under_way[fetching.room_id]
            fetching.outcome.set_result(found)

    async def _fill(self, lease: Lease, *, room_id: RoomId, upto: int, limit: int) -> bool:
        """Fetches some of what is missing before a place in a room's history; whether there may be more now."""
        async with self._db.connection() as conn:
            room = await find_resident_room(conn, room_id)
        if room is None:
            return False
        for number in range(_GAPS_MAX):
            async with self._db.connection() as conn:
                missing = await list_missing_events(conn, room.room_nid, upto=upto, limit=_ASKED_MAX, due_only=True)
            if not missing:
                # At first: somebody else has been faster.
                return number == 0
            if await self._ask(lease, room, _close(missing), limit):
                return True
        return False

    async def _ask(self, lease: Lease, room: RoomRow, missing: Sequence[MissingEvent], limit: int) -> int:
        """Asks for missing events until somebody has some, and notes which nobody had; returns how many were placed."""
        wanted = [each.event_id for each in missing]
        async with self._db.connection() as conn:
            servers = await find_history_servers(
                conn,
                self._states,
                room,
                topological=missing[0].topological,
                failures=missing[0].failures,
                server_name=self._server_name,
            )
        told = _NOTHING
        try:
            async with asyncio.timeout(_ASKING_SECONDS_MAX):
                told = await self._ask_in_turn(lease, room, servers, wanted, limit)
        except UnavailableForNow:
            raise  # this is not because of what they have
        except TimeoutError:
            logger.info("the servers that were asked for history of %s took too long", room.room_id)
        except Exception:
            # A mistake of ours, which must not be repeated all the time.
            logger.exception("history of %s could not be taken", room.room_id)
        # What was told but not placed waits for what is to come before; unless nothing was placed at all.
        in_vain = [event_id for event_id in wanted if not told.placed or event_id not in told.event_ids]
        async with self._db.connection() as conn:
            await note_tried(conn, room.room_nid, in_vain)
        BACKFILLS.labels("filled" if told.placed else "nothing").inc()
        return told.placed

    async def _ask_in_turn(
        self, lease: Lease, room: RoomRow, servers: Sequence[ServerName], wanted: Collection[EventId], limit: int
    ) -> _Told:
        for server in servers:
            told = await self._ask_server(lease, room, server, wanted, limit=limit)
            if told.placed:
                return told
        return _NOTHING

    async def _ask_server(
        self, lease: Lease, room: RoomRow, server: ServerName, wanted: Collection[EventId], *, limit: int
    ) -> _Told:
        """Asks one server for events and what precedes them, and takes what it tells."""

        async def nobody() -> Sequence[ServerName]:
            return ()

        inquiry = Inquiry(
            remote=self._remote, gate=self._gate, room=room, first=server, others=nobody, requests_max=_REQUESTS_MAX
        )
        try:
            async with self._db.connection() as conn:
                await self._access.require_allowed(conn, server, room.room_id)
            async with asyncio.timeout(_SERVER_SECONDS_MAX):
                events = await self._request(inquiry, wanted, limit)
                placed = await self._taking.take(lease, inquiry, wanted, events)
        except (Forbidden, TimeoutError) as error:
            logger.info(
                "%s was not asked for history of %s: %s", server, room.room_id, str(error) or "it took too long"
            )
            return _NOTHING
        BACKFILLED_EVENTS.inc(placed)
        return _Told(placed, {pdu.event_id for pdu in events})

    async def _request(self, inquiry: Inquiry, wanted: Collection[EventId], limit: int) -> Sequence[Pdu]:
        """Events and what precedes them, as far as the server that is asked tells."""
        try:
            return await inquiry.backfill(wanted, limit=min(max(limit, _EVENTS_MIN), _EVENTS_MAX))
        except (RemoteRefused, RemoteUnavailable, UnavailableForNow) as error:
            logger.info("no history of %s was told: %s", inquiry.room.room_id, error)
            return ()

    async def _fetch_event(self, lease: Lease, *, room_id: RoomId, via: ServerName, event_id: EventId) -> bool:
        """Fetches an event with some of what precedes it; whether it stands in the room's history now."""
        async with self._db.connection() as conn:
            room = await find_resident_room(conn, room_id)
            known = (await list_known_events(conn, [event_id])).get(event_id)
            if room is None:
                return False
            if known is not None and (known.in_graph or known.room_nid != room.room_nid):
                return known.room_nid == room.room_nid
            # Where nothing is missing, there is no place for it.
            if not await list_gaps(conn, room.room_nid, limit=1):
                return False
        return (await self._ask_server(lease, room, via, [event_id], limit=_EVENTS_MIN)).placed > 0


def _close(missing: Sequence[MissingEvent]) -> list[MissingEvent]:
    """The first of some missing events, and those that are missing close to it and are about as old, if that is known.

    What is older comes later: it would have to wait for what lies in between.
    """
    first = missing[0]
    return [
        each
        for each in missing
        if first.topological - each.topological < _ASKED_SPREAD
        and (first.depth is None or each.depth is None or first.depth - each.depth < _ASKED_SPREAD)
    ]
