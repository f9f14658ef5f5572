"""Completing rooms that this server has come into without being told of all members.

A task of each process looks for such rooms; one process at a time deals with a room. It asks the servers that were in
the room for the whole state at our join, finds out what follows from it for all events since then, and writes that in
one step. Syncing clients see a change of state. What fails is tried again, with other servers, until it is done.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.errors import RemoteRefused, RemoteUnavailable
from homeserver.core.ids import ServerName, UserId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.services.lease_renewal import LeaseLost
from homeserver.services.remote import RemoteEvents
from homeserver.services.rooms.batches import member_of, summary_changes
from homeserver.services.rooms.claimed_state import ClaimedState, ClaimedStates, in_parts
from homeserver.services.rooms.heads import Heads
from homeserver.services.rooms.later_states import FoundStates, LaterStates
from homeserver.services.rooms.leased_work import Lease, LeasedWork
from homeserver.services.rooms.resolution import StateUnknown, difference
from homeserver.services.rooms.room_import import members_of, require_lease
from storage.append import RoomChanged
from storage.bus.base import Bus
from storage.database import Database
from storage.errors import DatabaseError
from storage.events import StoredEvent, list_events, list_pdus
from storage.partial_rooms import PartialRoom, delete_partial_room, find_partial_room, list_due, postpone
from storage.resident_rooms import find_resident_room
from storage.room_completion import Completion, complete_room
from storage.room_import import StateMember, put_other_members
from storage.rooms import RoomRow
from storage.state import StateStore, derive_state, insert_slots

logger = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS: Final = 5.0
_AT_ONCE: Final = 4
_SERVERS_PER_ATTEMPT: Final = 5
_ROUNDS_MAX: Final = 5
_ROWS_CHUNK: Final = 2000
_SNAPSHOT_CHUNK: Final = 5000
_BACKOFF_MS_MIN: Final = 5_000
_BACKOFF_MS_MAX: Final = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lacking:
    """What was lacking in the state at our join.

    Attributes:
        whole_id: the snapshot of the whole state before the join.
        entries: what it has more, by slot.
        pdus: the events of these, by number.
    """

    whole_id: int
    entries: Mapping[int, int]
    pdus: Mapping[int, Pdu]


class PartialCompletion:
    """The work of completing rooms; `run()` does it."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        server_name: ServerName,
        remote: RemoteEvents,
        claims: ClaimedStates,
        later: LaterStates,
        states: StateStore,
        heads: Heads,
        work: LeasedWork,
        due: asyncio.Event,
    ) -> None:
        """Takes its means; `due` is set when there is a room to complete, so that nobody waits for the next look."""
        self._db = db
        self._bus = bus
        self._clock = clock
        self._server_name = server_name
        self._remote = remote
        self._claims = claims
        self._later = later
        self._states = states
        self._heads = heads
        self._work = work
        self._due = due

    async def run(self) -> None:
        """Looks for rooms to complete until it is cancelled."""
        while True:
            self._due.clear()
            try:
                await self.look()
            except DatabaseError as error:
                logger.warning("nobody could look for rooms to complete: %s", type(error).__name__)
            await self._wait()

    async def look(self) -> None:
        """Deals with the rooms that are due, a few at a time."""
        async with self._db.connection() as conn:
            rooms = await list_due(conn, now_ms=self._clock.now_ms(), limit=100)
        for part in in_parts(rooms, _AT_ONCE):
            async with asyncio.TaskGroup() as tasks:
                for room in part:
                    tasks.create_task(self._deal_with(room))

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                await self._due.wait()
        except TimeoutError:
            return

    async def _deal_with(self, room: PartialRoom) -> None:
        """Completes a room, unless another process does; or notes when it is tried again."""
        try:
            await self._work.run_if_free(f"complete:{room.room_id}", lambda lease: self._complete(lease, room.room_nid))
        except Exception:
            # Of this room; the others shall not have to wait for it.
            logger.exception("a room could not be completed; this will be tried again")
            await self._postpone(room)

    async def _postpone(self, room: PartialRoom) -> None:
        pause_ms = min(_BACKOFF_MS_MIN * 2 ** min(room.failures, 20), _BACKOFF_MS_MAX)
        try:
            async with self._db.connection() as conn:
                await postpone(conn, room.room_nid, retry_at_ts=self._clock.now_ms() + pause_ms)
        except DatabaseError as error:
            logger.warning("nobody could note that a room was not completed: %s", type(error).__name__)

    async def _complete(self, lease: Lease, room_nid: int) -> None:
        async with self._db.connection() as conn:
            partial = await find_partial_room(conn, room_nid)
            if partial is None:
                return
            room = await find_resident_room(conn, partial.room_id)
            joins = await list_events(conn, [partial.join_nid])
            if room is None or not joins:
                # Everybody has left; whoever joins again is told anew.
                await delete_partial_room(conn, room_nid)
                return
        lacking = await self._ask_for_lacking(lease, room, partial, joins[0])
        if lacking is None:
            logger.info("no server has told the members of %s yet", room.room_id)
            await self._postpone(partial)
            return
        for _ in range(_ROUNDS_MAX):
            try:
                await self._write(lease, room, partial.join_nid, lacking)
            except RoomChanged:
                async with self._db.connection() as conn:
                    room = await find_resident_room(conn, partial.room_id) or room
                continue
            return
        await self._postpone(partial)

    async def _ask_for_lacking(
        self, lease: Lease, room: RoomRow, partial: PartialRoom, join: StoredEvent
    ) -> _Lacking | None:
        """What another server says about the state at our join; None if none has said it."""
        # With each failure it begins with another one.
        start = partial.failures % max(1, len(partial.servers))
        servers = [*partial.servers[start:], *partial.servers[:start]][:_SERVERS_PER_ATTEMPT]
        for server_name in servers:
            try:
                answer = await self._remote.state(server_name, room.room_id, join.event_id)
                claimed = await self._claims.take(room, state=answer.pdus, auth_chain=answer.auth_chain)
            except (RemoteRefused, RemoteUnavailable) as error:
                logger.info("%s has not told the state of %s: %s", server_name, room.room_id, error)
                continue
            return await self._merge(lease, room, join, claimed)
        return None

    async def _merge(self, lease: Lease, room: RoomRow, join: StoredEvent, claimed: ClaimedState) -> _Lacking:
        """The state at our join with the members that it lacked; what it had stays as it was."""
        assert join.state_id is not None, "Our join is in the graph"
        members = {slot: pdu for slot, pdu in claimed.entries.items() if slot[0] == "m.room.member"}
        slot_ids: dict[StateKey, int] = {}
        for part in in_parts(sorted(members), _ROWS_CHUNK):
            async with self._db.connection() as conn:
                await insert_slots(conn, part)
                slot_ids |= await self._states.find_slots(conn, part)
        async with self._db.connection() as conn:
            held = (await self._states.load(conn, join.state_id)).entries()
        new = {slot_ids[slot]: pdu for slot, pdu in members.items() if slot_ids[slot] not in held}
        entries = {slot_id: claimed.nid_of(pdu) for slot_id, pdu in new.items()}
        whole_id = join.state_id
        for rows in in_parts(list(entries.items()), _SNAPSHOT_CHUNK):
            async with self._db.transaction() as conn:
                await require_lease(conn, lease)
                whole_id = await derive_state(conn, room_nid=room.room_nid, base_state_id=whole_id, changes=dict(rows))
        pdus = {claimed.nid_of(pdu): pdu for pdu in new.values()}
        await self._write_members(lease, room, pdus)
        return _Lacking(whole_id=whole_id, entries=entries, pdus=pdus)

    async def _write_members(self, lease: Lease, room: RoomRow, pdus: Mapping[int, Pdu]) -> None:
        """Notes the members of other servers that have no membership here yet; the room's summary counts them later."""
        nids = {pdu.event_id: event_nid for event_nid, pdu in pdus.items()}
        others = [
            member for member in members_of(pdus.values(), nids) if member.user_id.server_name != self._server_name
        ]
        for part in in_parts(others, _ROWS_CHUNK):
            async with self._db.transaction() as conn:
                await require_lease(conn, lease)
                await put_other_members(conn, room.room_nid, part, if_absent=True)

    async def _write(self, lease: Lease, room: RoomRow, join_nid: int, lacking: _Lacking) -> None:
        """Finds out all states since the join, and makes them hold.

        Raises:
            RoomChanged: the room's state has changed meanwhile.
        """
        found = await self._later.find(room, join_nid, lacking.whole_id)
        try:
            current = await self._later.current(room, found)
        except StateUnknown as error:
            raise RemoteUnavailable("The states of the room's ends cannot be resolved") from error
        state_id = current.base_state_id
        if current.changes:
            async with self._db.transaction() as conn:
                state_id = await derive_state(
                    conn, room_nid=room.room_nid, base_state_id=current.base_state_id, changes=current.changes
                )
        completion = await self._completion(room, join_nid, state_id, found, lacking)
        try:
            async with self._db.transaction() as conn:
                await require_lease(conn, lease)
                position, user_ids = await complete_room(conn, completion, server_name=self._server_name)
        except LeaseLost as error:
            raise RoomChanged from error
        self._heads.discard(room.room_id)
        await self._bus.wake(
            {f"room:{room.room_id}", f"state:{room.room_id}", *(f"user:{user_id}" for user_id in user_ids)}, position
        )

    async def _completion(
        self, room: RoomRow, join_nid: int, state_id: int, found: FoundStates, lacking: _Lacking
    ) -> Completion:
        assert room.state_id is not None, "This server is in the room"
        async with self._db.connection() as conn:
            held = (await self._states.load(conn, room.state_id)).entries()
            changes = difference(held, (await self._states.load(conn, state_id)).entries())
            filled = {slot_id: event_nid for slot_id, event_nid in changes.items() if event_nid is not None}
            emptied = {slot_id: held[slot_id] for slot_id, event_nid in changes.items() if event_nid is None}
            # Most of what is new came just now.
            others = [nid for nid in (*filled.values(), *emptied.values()) if nid not in lacking.pdus]
            pdus = {**lacking.pdus, **await list_pdus(conn, others)}
        new = {slot_id: event_nid for slot_id, event_nid in filled.items() if slot_id not in held}
        own, replaced = self._members(
            [pdus[nid] for nid in filled.values()],
            {pdus[nid].event_id: nid for nid in filled.values()},
            new={pdus[nid].event_id for nid in new.values() if nid in lacking.pdus},
        )
        gone = [_left(pdus[nid], nid) for nid in emptied.values() if member_of(pdus[nid]) is not None]
        own += [member for member in gone if member.user_id.server_name == self._server_name]
        replaced += [member for member in gone if member.user_id.server_name != self._server_name]
        empty_slots = [slot for nid in emptied.values() if (slot := pdus[nid].state_slot) is not None]
        return Completion(
            room_nid=room.room_nid,
            join_nid=join_nid,
            state_version=room.state_version,
            partial_state_id=room.state_id,
            state_id=state_id,
            entries=filled,
            emptied_slot_ids=list(emptied),
            states=found.states,
            rejected=found.rejected,
            own_members=own,
            other_members=replaced,
            summary=summary_changes([pdus[nid] for nid in filled.values()], emptied=empty_slots),
        )

    def _members(
        self, pdus: Sequence[Pdu], nids: Mapping[str, int], *, new: set[str]
    ) -> tuple[list[StateMember], list[StateMember]]:
        """The memberships that events set: of our users, and of others, without those that are written already."""
        own: list[StateMember] = []
        others: list[StateMember] = []
        for pdu in pdus:
            user_id = member_of(pdu)
            if user_id is None or pdu.membership is None:
                continue
            member = StateMember(user_id, pdu.membership, nids[pdu.event_id], pdu.sender)
            if user_id.server_name == self._server_name:
                own.append(member)
            elif pdu.event_id not in new:
                others.append(member)
        return own, others


def _left(pdu: Pdu, event_nid: int) -> StateMember:
    """What is left of a membership that has vanished by the resolution of conflicts."""
    user_id = UserId(pdu.state_key or "")
    return StateMember(user_id, "leave", event_nid, user_id)
