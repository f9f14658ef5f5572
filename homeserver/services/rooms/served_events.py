"""Single events, states and auth chains for other servers.

Only a server that is in the room now is served. What is not here, what belongs to another room than the one that is
named, and what may not be told are refused with the same bytes.

https://spec.matrix.org/v1.19/server-server-api/#retrieving-events
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from homeserver.core.errors import Forbidden, NotFound
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.services.remote import StateIds
from homeserver.services.rooms.federation_form import list_federation_forms
from homeserver.services.rooms.server_access import ServerAccess
from storage.database import Connection, Database
from storage.event_graph import list_auth_chain
from storage.events import StoredEvent, find_event, list_event_ids
from storage.partial_rooms import is_partial
from storage.rooms import RoomRow
from storage.state import StateStore

_NOT_FOUND: Final = "Event not found"
_CHUNK_SIZE: Final = 500

Events = AsyncGenerator[Sequence[Any], None]
"""Events in their federation form, ready to be encoded, by the chunk. To be closed if it is not read to its end."""


@dataclass(frozen=True, slots=True)
class ServedState:
    """The state before an event, and its auth chain."""

    pdus: Events
    auth_chain: Events


class ServedEvents:
    """Serves events and states to other servers."""

    def __init__(self, *, db: Database, access: ServerAccess, states: StateStore) -> None:
        self._db = db
        self._access = access
        self._states = states

    async def event(self, origin: ServerName, event_id: EventId) -> Any:
        """One event, ready to be encoded. If the server may not see it, it is told as a redaction would leave it.

        Of the events outside the graph only state events are told: they belong to auth chains and states.

        Raises:
            NotFound: it is not known or was rejected, or the server is not in its room.
        """
        async with self._db.connection() as conn:
            event = await find_event(conn, event_id)
            if event is None or event.rejected is not None:
                raise NotFound(_NOT_FOUND)
            try:
                await self._access.require_in_room(conn, origin, event.room_id)
            except Forbidden as error:
                raise NotFound(_NOT_FOUND) from error
            is_outlier = event.state_id is None
            if is_outlier and event.state_key is None:
                raise NotFound(_NOT_FOUND)
            visible = is_outlier or (await self._access.visible(conn, origin, [event]))[0]
            forms = await list_federation_forms(conn, [event.event_nid], redacted=() if visible else (event.event_nid,))
        return orjson.Fragment(forms[event.event_nid])

    async def state(self, origin: ServerName, room_id: RoomId, event_id: EventId) -> ServedState:
        """The state before an event, and its auth chain, which are read while they are sent.

        Raises:
            Forbidden: the server is not in the room, or there is no such room.
            NotFound: there is no such event in the room, or the state before it is not known, or not all of it.
        """
        pdu_nids, auth_chain_nids = await self._state(origin, room_id, event_id)
        return ServedState(self._read(pdu_nids), self._read(auth_chain_nids))

    async def state_ids(self, origin: ServerName, room_id: RoomId, event_id: EventId) -> StateIds:
        """The state before an event, and its auth chain, as ids; raises as `state`."""
        pdu_nids, auth_chain_nids = await self._state(origin, room_id, event_id)
        async with self._db.connection() as conn:
            ids = await list_event_ids(conn, {*pdu_nids, *auth_chain_nids})
        return StateIds([ids[nid] for nid in pdu_nids], [ids[nid] for nid in auth_chain_nids])

    async def auth_chain(self, origin: ServerName, room_id: RoomId, event_id: EventId) -> Events:
        """The auth chain of an event, without the event itself, which is read while it is sent.

        Raises:
            Forbidden: the server is not in the room, or there is no such room.
            NotFound: there is no such event in the room.
        """
        async with self._db.connection() as conn:
            room = await self._access.require_in_room(conn, origin, room_id)
            event = await _event_of_room(conn, room, event_id)
            chain = await list_auth_chain(conn, room.room_nid, [event.event_nid])
        return self._read(chain)

    async def _state(
        self, origin: ServerName, room_id: RoomId, event_id: EventId
    ) -> tuple[Sequence[int], Sequence[int]]:
        """The state before an event and its auth chain, as `event_nid`s."""
        async with self._db.connection() as conn:
            room = await self._access.require_in_room(conn, origin, room_id)
            event = await _event_of_room(conn, room, event_id)
            # While members are lacking, no state is what it must be.
            if event.state_id is None or await is_partial(conn, room.room_nid):
                raise NotFound(_NOT_FOUND)
            snapshot = await self._states.load(conn, event.state_id)
            pdu_nids = sorted(snapshot.entries().values())
            return pdu_nids, await list_auth_chain(conn, room.room_nid, pdu_nids)

    async def _read(self, event_nids: Sequence[int]) -> Events:
        """Events in their federation form. No connection is held while a chunk is sent."""
        for begin in range(0, len(event_nids), _CHUNK_SIZE):
            chunk = event_nids[begin : begin + _CHUNK_SIZE]
            async with self._db.connection() as conn:
                forms = await list_federation_forms(conn, chunk)
            yield [orjson.Fragment(forms[nid]) for nid in chunk if nid in forms]


async def _event_of_room(conn: Connection, room: RoomRow, event_id: EventId) -> StoredEvent:
    """An event of a room that was not rejected.

    Raises:
        NotFound: there is none.
    """
    event = await find_event(conn, event_id)
    if event is None or event.room_nid != room.room_nid or event.rejected is not None:
        raise NotFound(_NOT_FOUND)
    return event
