"""Events that other servers send, of rooms that this one is in: whether they are taken, with all checks on receipt.

https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

from homeserver.core.clock import Clock
from homeserver.core.errors import (
    Forbidden,
    InvalidParam,
    MatrixError,
    NotFound,
    RemoteRefused,
    RemoteUnavailable,
    UnavailableForNow,
)
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.services.remote import EventJson, RemoteEvents
from homeserver.services.rooms.drafts import AddedEvents
from homeserver.services.rooms.gate import EventGate, name_events
from homeserver.services.rooms.gathered_wakes import GatheredWakes
from homeserver.services.rooms.graph_ends import GraphEnds
from homeserver.services.rooms.inquiry import Inquiry
from homeserver.services.rooms.lanes import Lanes
from homeserver.services.rooms.placing import Reception
from homeserver.services.rooms.policy_servers import PolicyReview
from homeserver.services.rooms.postponed import PostponedEvents
from homeserver.services.rooms.resolution import StateUnknown
from homeserver.services.rooms.taking import EventTaking
from storage.bounded_cache import BoundedCache
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.errors import DatabaseUnavailable
from storage.incoming_rooms import IncomingRoom, find_incoming_room, list_other_servers
from storage.rooms import RoomRow

REQUESTS_MAX: Final = 200
"""How often a server is asked for what its events of one room refer to, in one transaction of it."""
SECONDS_MAX: Final = 180.0

_OTHERS_MAX: Final = 3
_LANE_SECONDS_MAX: Final = 60.0
_LANE_WAITING_MAX: Final = 100

_TOO_LONG: Final = "It took too long to find what the event refers to"
_NOT_HERE: Final = "This server is not in the room"


class OutOfBandMembership(Protocol):
    """Takes what becomes of local users' invitations and knocks in rooms that this server is not in."""

    async def receive(self, origin: ServerName, room: RoomRow, pdu: Pdu) -> None:
        """A `leave` or `ban` of a local user, of a room that this server is not in; it has passed the gate.

        Raises:
            MatrixError: it has nothing to do with an invitation or knock that is outstanding, or is not allowed.
        """
        ...


class AccessControl(Protocol):
    """Says which servers a room keeps out (`ServerAccess`)."""

    async def require_allowed(self, conn: Connection, origin: ServerName, room_id: RoomId) -> None:
        """Checks a server against the room's `m.room.server_acl`.

        Raises:
            Forbidden: it is kept out.
        """
        ...


class Arrivals(Protocol):
    """Knows of rooms that this server is just coming into (`JoinsUnderWay`)."""

    async def settle(self, room_id: RoomId) -> None:
        """Waits a while if somebody is joining a room."""
        ...


class IncomingEvents:
    """Takes events from other servers. Within this process, those of one room come in one after the other."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        server_name: ServerName,
        gate: EventGate,
        remote: RemoteEvents,
        access: AccessControl,
        out_of_band: OutOfBandMembership,
        taking: EventTaking,
        policy: PolicyReview,
        ends: GraphEnds,
        arrivals: Arrivals,
        postponed: PostponedEvents,
    ) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._server_name = server_name
        self._gate = gate
        self._remote = remote
        self._access = access
        self._out_of_band = out_of_band
        self._taking = taking
        self._policy = policy
        self._ends = ends
        self._arrivals = arrivals
        self._postponed = postponed
        # Not the lanes of those who append: here one waits for other servers.
        self._lanes = Lanes(wait_seconds_max=_LANE_SECONDS_MAX, waiting_max=_LANE_WAITING_MAX)
        self._senders: BoundedCache[tuple[RoomId, ServerName], bool] = BoundedCache("room_senders", weight_max=50_000)

    async def receive(
        self, origin: ServerName, room_id: RoomId, events: Sequence[EventJson]
    ) -> Mapping[EventId, str | None]:
        """Takes the events of one room that a server has pushed; returns for each that can be named what is wrong.

        All that is right is committed when this returns. An event that is soft-failed is stored as such, and so is one
        that is rejected, for which a `Rejection` is returned. One for which something is missing that nobody can be
        asked for is kept, and tried again later.

        Args:
            origin: the server that sends them, and is asked for what is missing.
            room_id: the room that they say they belong to.
            events: not checked in any way.

        Raises:
            DatabaseUnavailable: not all could be done; the server may send them again.
        """
        found = await self._arrive(origin, room_id)
        if found is None:
            return _claimed_ids(events, "This server does not know the room")
        async with self._db.connection() as conn:
            refusal = await self._refusal(conn, origin, room_id)
        if refusal is not None:
            return dict.fromkeys(name_events(found.room.room_version, events, room_id=room_id), refusal)
        result = await self._gate.check(found.room.room_version, events, room_id=room_id)
        outcome: dict[EventId, str | None] = {
            dropped.event_id: dropped.reason for dropped in result.dropped if dropped.event_id is not None
        }
        if not found.is_resident:
            for pdu in result.passed:
                outcome[pdu.event_id] = await self._receive_outside(origin, found.room, pdu)
            return outcome
        async with self._db.connection() as conn:
            refused = await self._refused(conn, origin, found, result.passed)
            reception = await self._reception(conn, origin, found)
        outcome |= refused
        taken = [pdu for pdu in result.passed if pdu.event_id not in refused]
        if taken:
            pending: dict[EventId, str | None] = {pdu.event_id: _TOO_LONG for pdu in taken}
            await self._take_within_limits(reception, taken, pending)
            await self._keep_postponed(reception, origin, taken)
            outcome.update((pdu.event_id, pending[pdu.event_id]) for pdu in taken)
        return outcome

    async def take_again(self, origin: ServerName, room_id: RoomId, events: Sequence[Pdu]) -> Mapping[EventId, bool]:
        """Takes events that have been postponed; tells for each whether it is done with.

        Raises:
            DatabaseUnavailable: not all could be done.
        """
        async with self._db.connection() as conn:
            found = await self._find_room(conn, origin, room_id)
            if found is None or not found.is_resident:
                return {pdu.event_id: True for pdu in events}
            reception = await self._reception(conn, origin, found)
        outcome: dict[EventId, str | None] = {pdu.event_id: _TOO_LONG for pdu in events}
        await self._take_within_limits(reception, events, outcome)
        return {pdu.event_id: pdu.event_id not in reception.postponed for pdu in events}

    async def run(self) -> None:
        """Tries again what has been postponed, until it is cancelled."""
        await self._postponed.run(self.take_again)

    async def add(self, origin: ServerName, pdu: Pdu, *, relay: bool = False) -> AddedEvents:
        """Adds one event that has passed the gate, handed in by a server that wants to know what becomes of it.

        Args:
            origin: the server that hands it in; this server itself, if it only has the event from elsewhere.
            pdu: for example a join by send_join. If it is stored already, nothing is done.
            relay: this server passes the event on to the servers in the room (table `relayed_events`).

        Raises:
            NotFound: this server is not in the room.
            Forbidden: the event is rejected, or not allowed in the room as it is now; then it is not stored.
            UnavailableForNow: what it refers to cannot be found, or the room is too busy.
        """
        async with self._db.connection() as conn:
            found = await self._find_room(conn, origin, pdu.room_id)
            if found is None or not found.is_resident:
                raise NotFound(_NOT_HERE)
            await self._access.require_allowed(conn, origin, pdu.room_id)
            reception = await self._reception(conn, origin, found)
        try:
            async with self._at_work(reception):
                placed = await self._taking.take_last(reception, pdu, relayed=relay)
        except TimeoutError as error:
            raise UnavailableForNow(_TOO_LONG) from error
        except (StateUnknown, RemoteRefused, RemoteUnavailable) as error:
            raise UnavailableForNow("What the event refers to cannot be found") from error
        return placed.added

    async def _arrive(self, origin: ServerName, room_id: RoomId) -> IncomingRoom | None:
        """A room; if this server is just coming into it, then as it is afterwards.

        Whoever lets us in tells the others at once, and what they say then is not to be lost.
        """
        async with self._db.connection() as conn:
            found = await self._find_room(conn, origin, room_id)
        if found is not None and found.is_resident:
            return found
        await self._arrivals.settle(room_id)
        async with self._db.connection() as conn:
            return await self._find_room(conn, origin, room_id)

    async def _find_room(self, conn: Connection, origin: ServerName, room_id: RoomId) -> IncomingRoom | None:
        key = (room_id, origin)
        found = await find_incoming_room(conn, room_id, origin, knows_sender=self._senders.get(key) is not None)
        if found is not None and found.knows_sender:
            self._senders.put(key, True)
        return found

    async def _reception(self, conn: Connection, origin: ServerName, found: IncomingRoom) -> Reception:
        async def others() -> Sequence[ServerName]:
            known = {origin, self._server_name}
            async with self._db.connection() as own_conn:
                return await list_other_servers(own_conn, found.room.room_nid, without=known, limit=_OTHERS_MAX)

        inquiry = Inquiry(
            remote=self._remote,
            gate=self._gate,
            room=found.room,
            first=None if origin == self._server_name else origin,
            requests_max=REQUESTS_MAX,
            others=others,
        )
        policy = None
        if found.policy_nid is not None:
            policy = await self._policy.current(conn, found.room.room_nid)
        return Reception(
            inquiry=inquiry,
            members_lacking=found.members_lacking,
            policy=policy,
            wakes=GatheredWakes(bus=self._bus, clock=self._clock),
        )

    async def _refusal(self, conn: Connection, server_name: ServerName, room_id: RoomId) -> str | None:
        """Why a room takes nothing from a server; None if it does."""
        try:
            await self._access.require_allowed(conn, server_name, room_id)
        except Forbidden as error:
            return error.message
        return None

    async def _refused(
        self, conn: Connection, origin: ServerName, found: IncomingRoom, events: Sequence[Pdu]
    ) -> dict[EventId, str | None]:
        """Those of some events that the room does not take by way of this server, with the reason."""
        room_id = found.room.room_id
        senders = {pdu.sender.server_name for pdu in events} - {origin}
        reasons = {sender: await self._refusal(conn, sender, room_id) for sender in senders}
        if not found.knows_sender:
            # Its own users' events are judged by themselves; but it has no part in the room to pass on those of others.
            reasons = dict.fromkeys(senders, "Your server has never been in the room")
        return {pdu.event_id: reason for pdu in events if (reason := reasons.get(pdu.sender.server_name)) is not None}

    async def _keep_postponed(self, reception: Reception, origin: ServerName, events: Sequence[Pdu]) -> None:
        """Keeps those of some events that could not be taken yet; what was fetched with them can be fetched again."""
        kept = [pdu for pdu in events if pdu.event_id in reception.postponed]
        if kept:
            await self._postponed.keep(reception.room.room_nid, origin, kept)

    async def _receive_outside(self, origin: ServerName, room: RoomRow, pdu: Pdu) -> str | None:
        """Takes an event of a room that this server is not in: the end of an invitation or a knock, no other."""
        try:
            user_id = UserId.parse(pdu.state_key) if pdu.membership in ("leave", "ban") else None
            if user_id is None or user_id.server_name != self._server_name:
                return _NOT_HERE
            await self._out_of_band.receive(origin, room, pdu)
        except DatabaseUnavailable:
            raise
        except InvalidParam:
            return _NOT_HERE
        except MatrixError as error:
            return error.message
        return None

    async def _take_within_limits(
        self, reception: Reception, events: Sequence[Pdu], outcome: dict[EventId, str | None]
    ) -> None:
        """Takes events; those that the limits of time and of waiting do not allow keep the outcome that they have."""
        try:
            async with self._at_work(reception):
                may_have_forked = await self._taking.take(reception, events, outcome)
        except DatabaseUnavailable:
            raise
        except UnavailableForNow as error:
            outcome.update(dict.fromkeys(outcome, error.message))
            reception.postponed.update((pdu.event_id, pdu) for pdu in events)
            return
        except TimeoutError:
            reception.postponed.update((pdu.event_id, pdu) for pdu in events if outcome[pdu.event_id] == _TOO_LONG)
            return
        if may_have_forked:
            await self._ends.join(reception.room.room_id)

    @asynccontextmanager
    async def _at_work(self, reception: Reception) -> AsyncIterator[None]:
        """Holds the room's lane for a limited time, and wakes all at the end who have not been woken."""
        try:
            async with self._lanes.enter(reception.room.room_id), asyncio.timeout(SECONDS_MAX):
                yield
        finally:
            if reception.wakes is not None:
                await reception.wakes.give_out()


def _claimed_ids(events: Sequence[object], error: str) -> dict[EventId, str | None]:
    """The same error for all events that say their id themselves; without a room version there are no others."""
    ids: dict[EventId, str | None] = {}
    for event in events:
        try:
            ids[EventId.parse(event.get("event_id") if isinstance(event, Mapping) else None)] = error
        except InvalidParam:
            continue
    return ids
