"""The state at a gap: where previous events of an event are not in the graph, other servers are asked for it.

What they say is a claim. Every event of it is judged by its auth events, and what comes of it is never put in the place
of what this server knows: it is the state of one end of the graph, which is resolved with the others.

https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from homeserver.core.errors import UnavailableForNow
from homeserver.core.event_auth.auth_events import CREATE
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from homeserver.services.rooms.inquiry import Inquiry
from homeserver.services.rooms.outliers import Outliers
from homeserver.services.rooms.resolution import ResolvedState, StateResolver, StateUnknown, difference
from storage.database import Database
from storage.events import list_events
from storage.incoming_rooms import StateRow, list_state_rows
from storage.outliers import list_known_events
from storage.rooms import get_room
from storage.state import StateStore, insert_slots

_SINGLY_MAX: Final = 40
"""So many events are fetched one by one at most; if more are lacking, the whole state is."""


class StateFetch:
    """Finds out states by asking other servers."""

    def __init__(self, *, db: Database, states: StateStore, resolver: StateResolver, outliers: Outliers) -> None:
        self._db = db
        self._states = states
        self._resolver = resolver
        self._outliers = outliers

    async def state_before(
        self, inquiry: Inquiry, *, known_nids: Collection[int], missing: Sequence[EventId]
    ) -> ResolvedState:
        """The state before an event of whose previous events some are not in the graph.

        Args:
            inquiry: whom to ask.
            known_nids: its previous events that are in the graph.
            missing: the others, at least one.

        Raises:
            RemoteUnavailable, RemoteRefused, UnavailableForNow: what is lacking cannot be had.
            StateUnknown: an event that decides about conflicts is not here.
        """
        claimed = [await self.state_after(inquiry, event_id) for event_id in missing]
        async with self._db.connection() as conn:
            room = await get_room(conn, inquiry.room.room_id)
            if room.state_id is None:
                raise StateUnknown("This server is not in the room")
            states = [*claimed, *await self._resolver.states_after(conn, await list_events(conn, known_nids))]
            resolved = await self._resolver.resolve(conn, room.room_version, states)
            base = (await self._states.load(conn, room.state_id)).entries()
            return ResolvedState(room.state_id, difference(base, resolved))

    async def state_after(self, inquiry: Inquiry, event_id: EventId) -> Mapping[int, int]:
        """The state after an event outside the graph, as another server says: events by slot, both as numbers.

        The event is stored.

        Raises:
            RemoteUnavailable, RemoteRefused, UnavailableForNow: it cannot be had.
        """
        found = inquiry.states_after.get(event_id)
        if found is None:
            found = inquiry.states_after[event_id] = await self._ask(inquiry, event_id)
        return found

    async def _ask(self, inquiry: Inquiry, event_id: EventId) -> Mapping[int, int]:
        claimed = await inquiry.state_ids(event_id)
        wanted = list(dict.fromkeys([*claimed.auth_chain_ids, *claimed.pdu_ids, event_id]))
        async with self._db.connection() as conn:
            known = await list_known_events(conn, wanted)
        lacking = [wanted_id for wanted_id in wanted if wanted_id not in known]
        if lacking:
            await self._outliers.store(inquiry.room, await self._fetch(inquiry, event_id, lacking))
        async with self._db.connection() as conn:
            rows = await list_state_rows(conn, inquiry.room.room_nid, [*dict.fromkeys(claimed.pdu_ids)])
            own = await list_state_rows(conn, inquiry.room.room_nid, [event_id])
            is_stored = event_id in await list_known_events(conn, [event_id])
        if not is_stored:
            raise UnavailableForNow(f"The previous event {event_id} cannot be had")
        return await self._entries([*rows, *own])

    async def _fetch(self, inquiry: Inquiry, event_id: EventId, lacking: Sequence[EventId]) -> Sequence[Pdu]:
        """Events of the state before an event, of its auth chain, or the event itself.

        What a bad connection has taken away must not be missing from the state: other servers would have another one.
        So all are had, or nothing comes of it; only those that are not valid are missing.
        """
        found: list[Pdu] = []
        if len(lacking) <= _SINGLY_MAX:
            found = await inquiry.events(lacking)
        elif event_id in lacking:
            found = await inquiry.events([event_id])
        if set(lacking) - {event_id} - {pdu.event_id for pdu in found}:
            found += await inquiry.state_events(event_id)
        return found

    async def _entries(self, rows: Sequence[StateRow]) -> Mapping[int, int]:
        """Events by slot; of several at the same slot the last counts.

        Raises:
            UnavailableForNow: there is no create event among them.
        """
        by_slot = {(row.type, row.state_key): row.event_nid for row in rows if row.state_key is not None}
        if CREATE not in by_slot:
            raise UnavailableForNow("The state that the other server describes is none of a room")
        async with self._db.connection() as conn:
            await insert_slots(conn, by_slot)
            slot_ids = await self._states.find_slots(conn, by_slot)
        return {slot_ids[slot]: event_nid for slot, event_nid in by_slot.items()}
