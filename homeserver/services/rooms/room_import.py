"""Entering a room with the answer to send_join: its events are checked and stored, its state becomes the room's state.

Nothing shows before the last step. Until then events lie outside the graph, and the parts of the state that are written
already belong to a room that this server is not in. So whatever is interrupted may simply be done again.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from homeserver.core.errors import RemoteUnavailable, UnavailableForNow
from homeserver.core.ids import EventId, ServerName
from homeserver.core.pdu import Pdu, StateKey
from homeserver.services.lease_renewal import LeaseLost
from homeserver.services.remote import EventJson, SentJoin
from homeserver.services.rooms.append import wake_keys
from homeserver.services.rooms.batches import SUMMARIZED_SLOTS, member_of, summary_changes
from homeserver.services.rooms.claimed_state import ClaimedState, ClaimedStates, in_parts
from homeserver.services.rooms.event_chain import stored_form
from homeserver.services.rooms.gate import EventGate
from homeserver.services.rooms.heads import Heads
from homeserver.services.rooms.join_answer import check_join_allowed, with_their_signatures
from homeserver.services.rooms.leased_work import Lease
from homeserver.services.rooms.member_template import AUTHORISED_VIA
from storage.append import RoomChanged
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.room_import import (
    Entrance,
    StateMember,
    delete_absent_members,
    enter_room,
    hold_lease,
    list_filled_slots,
    put_entries,
    put_other_members,
    reset_room,
)
from storage.rooms import RoomRow, find_room, get_room, insert_room
from storage.state import StateStore, derive_state, insert_slots

SERVERS_MAX: Final = 20_000
"""How many servers of a room are remembered."""
_ROWS_CHUNK: Final = 2000
_SNAPSHOT_CHUNK: Final = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    """An answer whose events are stored, and which has been found to be a state that allows our join.

    Attributes:
        join: our join, with all its signatures.
        state: the entries of the state before it.
        nids: their numbers.
        servers: None if the state is whole.
    """

    room: RoomRow
    join: Pdu
    state: Mapping[StateKey, Pdu]
    nids: Mapping[EventId, int]
    servers: Sequence[ServerName] | None


class RoomImport:
    """Takes the answer to a join, and makes this server a part of the room."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        server_name: ServerName,
        gate: EventGate,
        claims: ClaimedStates,
        states: StateStore,
        heads: Heads,
    ) -> None:
        """Takes its means; heads are those of the `Appender`."""
        self._db = db
        self._bus = bus
        self._server_name = server_name
        self._gate = gate
        self._claims = claims
        self._states = states
        self._heads = heads

    async def enter(self, lease: Lease, via: ServerName, join: Pdu, answer: SentJoin) -> None:
        """Enters a room.

        Args:
            lease: for entering this room; nobody else may be about it.
            via: the server that let us in.
            join: our join, which it has accepted.
            answer: what it said.

        Raises:
            RemoteUnavailable: the answer cannot be used; another server may give a better one.
            UnavailableForNow: the database is away, or somebody else has entered the room meanwhile.
        """
        checked = await self._check(via, join, answer)
        try:
            await self._write(lease, checked)
        except (RoomChanged, LeaseLost) as error:
            raise UnavailableForNow("Somebody else has entered the room meanwhile") from error

    async def _check(self, via: ServerName, join: Pdu, answer: SentJoin) -> _Checked:
        signed = await self._signed(join, answer.event)
        room = await self._known_room(join)
        claimed = await self._claims.take(room, state=answer.state, auth_chain=answer.auth_chain)
        state = claimed.entries
        if answer.members_omitted:
            state = _with_cited_members(signed, claimed)
        check_join_allowed(signed, state, claimed.events, rejected=claimed.rejected)
        return _Checked(
            room=room,
            join=signed,
            state=state,
            nids={pdu.event_id: claimed.nid_of(pdu) for pdu in state.values()},
            servers=self._servers(via, answer) if answer.members_omitted else None,
        )

    async def _signed(self, join: Pdu, event: EventJson | None) -> Pdu:
        """Our join with the other server's signature; where somebody there vouches for us, that must be right."""
        json = with_their_signatures(join, event)
        if AUTHORISED_VIA in join.content:
            result = await self._gate.check(join.room_version, [json], room_id=join.room_id)
            if not result.passed:
                raise RemoteUnavailable("The other server has not signed our join as it must")
        return replace(join, json=json)

    async def _known_room(self, join: Pdu) -> RoomRow:
        """The room's row, made if there is none."""
        async with self._db.transaction() as conn:
            if await find_room(conn, join.room_id) is None:
                await insert_room(conn, join.room_id, join.room_version)
            room = await get_room(conn, join.room_id)
            if room.room_version == join.room_version:
                return room
            if room.state_id is not None:
                raise RemoteUnavailable("The room has another version than the other server says")
            await reset_room(conn, room.room_nid, join.room_version, server_name=self._server_name)
            return await get_room(conn, join.room_id)

    def _servers(self, via: ServerName, answer: SentJoin) -> list[ServerName]:
        """The servers in the room, the one that let us in first."""
        names = dict.fromkeys((via, *answer.servers_in_room[:SERVERS_MAX]))
        return [name for name in names if name != self._server_name]

    async def _write(self, lease: Lease, checked: _Checked) -> None:
        room = checked.room
        slot_ids, stale = await self._prepare_slots(room, checked)
        entries = {slot_ids[slot]: checked.nids[pdu.event_id] for slot, pdu in checked.state.items()}
        own, others = self._members(checked)
        before_id = await self._write_snapshot(lease, room, entries)
        for part in in_parts(list(entries.items()), _ROWS_CHUNK):
            async with self._db.transaction() as conn:
                await require_lease(conn, lease)
                await put_entries(conn, room.room_nid, dict(part))
        for members in in_parts(others, _ROWS_CHUNK):
            async with self._db.transaction() as conn:
                await require_lease(conn, lease)
                await put_other_members(conn, room.room_nid, members)
        async with self._db.transaction() as conn:
            await require_lease(conn, lease)
            present = [member.user_id for member in others]
            await delete_absent_members(conn, room.room_nid, present, server_name=self._server_name)
        entrance = self._entrance(checked, slot_ids, before_id=before_id, stale=stale, own=own)
        async with self._db.transaction() as conn:
            await require_lease(conn, lease)
            entered = await enter_room(conn, entrance, server_name=self._server_name)
        self._heads.discard(room.room_id)
        keys = {f"user:{user_id}" for user_id in entered.user_ids}
        await self._bus.wake(keys | wake_keys(room.room_id, [checked.join], self._server_name), entered.position)

    async def _prepare_slots(self, room: RoomRow, checked: _Checked) -> tuple[dict[StateKey, int], set[int]]:
        """The numbers of all slots, and those that hold something from earlier which the state has not."""
        own_slot = checked.join.state_slot
        assert own_slot is not None, "A join is a state event"
        slots = sorted({*checked.state, own_slot})
        slot_ids: dict[StateKey, int] = {}
        for part in in_parts(slots, _ROWS_CHUNK):
            async with self._db.connection() as conn:
                await insert_slots(conn, part)
                slot_ids |= await self._states.find_slots(conn, part)
        async with self._db.connection() as conn:
            filled = await list_filled_slots(conn, room.room_nid)
        return slot_ids, filled - set(slot_ids.values())

    async def _write_snapshot(self, lease: Lease, room: RoomRow, entries: Mapping[int, int]) -> int:
        """Stores the state before the join."""
        state_id: int | None = None
        for part in in_parts(list(entries.items()), _SNAPSHOT_CHUNK):
            async with self._db.transaction() as conn:
                await require_lease(conn, lease)
                state_id = await derive_state(conn, room_nid=room.room_nid, base_state_id=state_id, changes=dict(part))
        assert state_id is not None, "There is at least the create event"
        return state_id

    def _members(self, checked: _Checked) -> tuple[list[StateMember], list[StateMember]]:
        """The memberships in the state: those of our users, without who joins, and those of all others."""
        own: list[StateMember] = []
        others: list[StateMember] = []
        for member in members_of(checked.state.values(), checked.nids):
            if member.user_id.server_name != self._server_name:
                others.append(member)
            elif member.user_id != checked.join.sender:
                own.append(member)
        return own, others

    def _entrance(
        self,
        checked: _Checked,
        slot_ids: Mapping[StateKey, int],
        *,
        before_id: int,
        stale: set[int],
        own: Sequence[StateMember],
    ) -> Entrance:
        join = checked.join
        own_slot: StateKey = ("m.room.member", join.sender)
        return Entrance(
            room=checked.room,
            join=stored_form(join, prev_events=(), auth_events=(), replaces=checked.state.get(own_slot)),
            prev_events=join.prev_events,
            auth_events=join.auth_events,
            state_before_id=before_id,
            slot_id=slot_ids[own_slot],
            stale_slot_ids=stale,
            own_members=own,
            summary=summary_changes(list(checked.state.values()), emptied=SUMMARIZED_SLOTS),
            servers=checked.servers,
        )


def members_of(events: Iterable[Pdu], nids: Mapping[EventId, int]) -> Iterator[StateMember]:
    """The memberships that events of a state set; `nids` has their numbers."""
    for pdu in events:
        user_id = member_of(pdu)
        if user_id is not None and pdu.membership is not None:
            yield StateMember(user_id, pdu.membership, nids[pdu.event_id], pdu.sender)


def _with_cited_members(join: Pdu, claimed: ClaimedState) -> dict[StateKey, Pdu]:
    """A state without most members, with those by which our join is authorised."""
    cited = (claimed.events.get(event_id) for event_id in join.auth_events if claimed.is_accepted(event_id))
    members = {
        pdu.state_slot: pdu
        for pdu in cited
        if pdu is not None and pdu.type == "m.room.member" and pdu.state_slot is not None
    }
    return {**members, **claimed.entries}


async def require_lease(conn: Connection, lease: Lease) -> None:
    """Checks, within a transaction, that nobody else has taken over.

    Raises:
        LeaseLost: somebody has.
    """
    if not await hold_lease(conn, name=lease.name, holder=lease.holder):
        raise LeaseLost
