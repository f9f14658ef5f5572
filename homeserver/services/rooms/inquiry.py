"""Asking other servers about one room, as often as one piece of work may. All that comes goes through the gate.

The server whose events are to be understood is asked first. If it cannot be reached, others in the room are.

https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, TypeVar

from homeserver.core.errors import RemoteRefused, RemoteUnavailable, UnavailableForNow
from homeserver.core.ids import EventId, ServerName
from homeserver.core.pdu import Pdu
from homeserver.services.remote import EventJson, RemoteEvents, StateIds
from homeserver.services.rooms.gate import EventGate
from storage.rooms import RoomRow

_SIDE_BY_SIDE: Final = 8
_MISSING_EVENTS_LIMIT: Final = 50

T = TypeVar("T")


class Inquiry:
    """What other servers are asked about one room."""

    def __init__(
        self,
        *,
        remote: RemoteEvents,
        gate: EventGate,
        room: RoomRow,
        first: ServerName | None,
        requests_max: int,
        others: Callable[[], Awaitable[Sequence[ServerName]]] | None = None,
    ) -> None:
        """Takes its means, whom to ask first, how often anybody may be asked, and what finds some others to ask."""
        self._remote = remote
        self._gate = gate
        self._servers = [] if first is None else [first]
        self._find_others = others
        self._requests_left = requests_max
        self.room = room
        self.states_after: dict[EventId, Mapping[int, int]] = {}
        """The states after events outside the graph that have been found out, as events by slot, both as numbers."""

    @property
    def requests_left(self) -> int:
        """How often anybody may still be asked."""
        return self._requests_left

    async def _ask(self, request: Callable[[ServerName], Awaitable[T]]) -> T:
        """Asks a server, and if it cannot be reached the next one.

        Raises:
            RemoteRefused: it refuses.
            RemoteUnavailable, UnavailableForNow: nobody can be asked, or it has been done too often.
        """
        tried: set[ServerName] = set()
        while True:
            server = await self._server(tried)
            if self._requests_left <= 0:
                raise UnavailableForNow("Too much is missing of what the event refers to")
            self._requests_left -= 1
            try:
                return await request(server)
            except RemoteUnavailable:
                tried.add(server)
                # It is the last to be asked from now on.
                self._servers = [*(each for each in self._servers if each != server), server]
                if self._find_others is None and tried.issuperset(self._servers):
                    raise

    async def _server(self, tried: Collection[ServerName]) -> ServerName:
        """Whom to ask next."""
        if self._find_others is not None and all(server in tried for server in self._servers):
            find, self._find_others = self._find_others, None
            self._servers += await find()
        for server in self._servers:
            if server not in tried:
                return server
        raise UnavailableForNow("There is no server that could be asked for what the event refers to")

    async def events(self, event_ids: Collection[EventId]) -> list[Pdu]:
        """Those of some events that can be had and pass the gate, several asked for side by side."""
        wanted = list(event_ids)
        found: list[EventJson] = []
        places = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def fetch(event_id: EventId) -> None:
            async with places:
                try:
                    found.append(await self._ask(lambda server: self._remote.event(server, event_id)))
                except (RemoteRefused, RemoteUnavailable, UnavailableForNow):
                    return

        async with asyncio.TaskGroup() as tasks:
            for event_id in wanted:
                tasks.create_task(fetch(event_id))
        asked = set(wanted)
        return [pdu for pdu in await self._passed(found) if pdu.event_id in asked]

    async def missing_events(self, *, earliest: Collection[EventId], latest: Collection[EventId]) -> list[Pdu]:
        """Events between those that are known and those whose previous events are not.

        Raises:
            RemoteUnavailable, RemoteRefused, UnavailableForNow: they cannot be had.
        """
        events = await self._ask(
            lambda server: self._remote.get_missing_events(
                server, self.room.room_id, earliest=earliest, latest=latest, limit=_MISSING_EVENTS_LIMIT
            )
        )
        return await self._passed(events[:_MISSING_EVENTS_LIMIT])

    async def backfill(self, event_ids: Collection[EventId], *, limit: int) -> list[Pdu]:
        """Events and what precedes them; as they are old, they may refer to more events than new ones may.

        Raises:
            RemoteUnavailable, RemoteRefused, UnavailableForNow: they cannot be had.
        """
        room = self.room
        events = await self._ask(lambda server: self._remote.backfill(server, room.room_id, event_ids, limit=limit))
        result = await self._gate.check(
            room.room_version, events[:limit], room_id=room.room_id, any_number_of_references=True
        )
        return list(result.passed)

    async def auth_chain(self, event_id: EventId) -> list[Pdu]:
        """The auth chain of an event.

        Raises:
            RemoteUnavailable, RemoteRefused, UnavailableForNow: it cannot be had.
        """
        room_id = self.room.room_id
        return await self._passed(await self._ask(lambda server: self._remote.event_auth(server, room_id, event_id)))

    async def state_ids(self, event_id: EventId) -> StateIds:
        """The state before an event, and its auth chain, as ids.

        Raises:
            RemoteUnavailable, RemoteRefused, UnavailableForNow: it cannot be had.
        """
        return await self._ask(lambda server: self._remote.state_ids(server, self.room.room_id, event_id))

    async def state_events(self, event_id: EventId) -> list[Pdu]:
        """The events of the state before an event and of its auth chain.

        Raises:
            RemoteUnavailable, RemoteRefused, UnavailableForNow: they cannot be had.
        """
        state = await self._ask(lambda server: self._remote.state(server, self.room.room_id, event_id))
        return await self._passed([*state.auth_chain, *state.pdus])

    async def _passed(self, events: Sequence[EventJson]) -> list[Pdu]:
        result = await self._gate.check(self.room.room_version, events, room_id=self.room.room_id)
        return list(result.passed)
