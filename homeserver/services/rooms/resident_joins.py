"""What a resident server answers to those that hand in a join or a knock: the room's state, and its auth chain.

A join is answered with events by the thousand. They are read and encoded a few at a time while the answer is sent;
until then they are only numbers.

https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.errors import NotFound
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.services.remote import EventJson
from homeserver.services.rooms.federation_form import list_federation_forms
from homeserver.services.rooms.stripped_state import TOLD
from homeserver.services.rooms.submitted_memberships import SubmittedMemberships
from storage.database import Connection, Database
from storage.event_graph import list_auth_chain
from storage.events import StoredEvent, list_pdus
from storage.resident_rooms import list_joined_servers, list_without_members
from storage.state import StateStore
from storage.timelines import list_summaries

_READ_TOGETHER: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedJoin:
    """A join that has become a part of its room, and what the joining server needs to take part in it.

    Attributes:
        event: the join as `event_nid`, with this server's signature where that was needed.
        state: the state before it, as `event_nid`.
        auth_chain: of the join and of what is in `state`, likewise.
        members_omitted: `state` lacks most members, and what is in it is not in `auth_chain` once more.
        servers_in_room: those before the join; None unless members were omitted.
    """

    event: int
    state: Sequence[int]
    auth_chain: Sequence[int]
    members_omitted: bool
    servers_in_room: Sequence[ServerName] | None


class ResidentJoins:
    """Lets users of other servers in, and answers their servers."""

    def __init__(self, *, db: Database, memberships: SubmittedMemberships, states: StateStore) -> None:
        self._db = db
        self._memberships = memberships
        self._states = states

    async def join(
        self, origin: ServerName, room_id: RoomId, event_id: EventId, event: EventJson, *, omit_members: bool
    ) -> AcceptedJoin:
        """Makes a join a part of its room.

        Args:
            origin: the joining server.
            room_id: the room, as the path of the request says.
            event_id: the join, likewise.
            event: the join.
            omit_members: the other server can do with a state that lacks most members.

        Raises:
            MatrixError: see `SubmittedMemberships.accept`.
        """
        accepted = await self._memberships.accept(origin, room_id, event_id, event, membership="join")
        async with self._db.connection() as conn:
            state = list((await self._state_before(conn, accepted)).values())
            if not omit_members:
                chain = await list_auth_chain(conn, accepted.room_nid, [*state, accepted.event_nid])
                return AcceptedJoin(
                    event=accepted.event_nid,
                    state=state,
                    auth_chain=chain,
                    members_omitted=False,
                    servers_in_room=None,
                )
            summaries = await list_summaries(conn, accepted.sender, [accepted.room_nid])
            heroes = summaries[accepted.room_nid].heroes or ()
            told = await list_without_members(conn, state, members=heroes)
            chain = await list_auth_chain(conn, accepted.room_nid, [*told, accepted.event_nid])
            servers = await list_joined_servers(conn, accepted.room_nid, without=accepted.sender)
        seen = set(told)
        return AcceptedJoin(
            event=accepted.event_nid,
            state=told,
            auth_chain=[event_nid for event_nid in chain if event_nid not in seen],
            members_omitted=True,
            servers_in_room=servers,
        )

    async def knock(
        self, origin: ServerName, room_id: RoomId, event_id: EventId, event: EventJson
    ) -> Sequence[EventJson]:
        """Makes a knock a part of its room; arguments as for `join`.

        Returns:
            The events of the room's state by which it can be told, whole.

        Raises:
            MatrixError: see `SubmittedMemberships.accept`.
        """
        accepted = await self._memberships.accept(origin, room_id, event_id, event, membership="knock")
        async with self._db.connection() as conn:
            slot_ids = await self._states.find_slots(conn, TOLD)
            state = await self._state_before(conn, accepted)
            told = [state[slot_ids[slot]] for slot in TOLD if slot in slot_ids and slot_ids[slot] in state]
            pdus = await list_pdus(conn, told)
        return [pdus[event_nid].json for event_nid in told]

    async def encoded(self, event_nids: Sequence[int]) -> AsyncGenerator[Sequence[str], None]:
        """Events as JSON text, in the given order, a few at a time. No connection is held in between."""
        for begin in range(0, len(event_nids), _READ_TOGETHER):
            together = event_nids[begin : begin + _READ_TOGETHER]
            async with self._db.connection() as conn:
                forms = await list_federation_forms(conn, together)
            yield [forms[event_nid] for event_nid in together if event_nid in forms]

    async def _state_before(self, conn: Connection, event: StoredEvent) -> dict[int, int]:
        """The state before an event, as `event_nid` by slot."""
        if event.state_id is None:
            raise NotFound("The state before the event is not known")
        return dict((await self._states.load(conn, event.state_id)).entries())
