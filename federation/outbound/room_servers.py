"""Which servers are to be told of what happens in a room.

What is kept in memory is how many users of each server were joined in one state of a room. From there to any other
state leads the difference of the two snapshots, so neither a change nor an event costs a look at all members.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import ServerName
from homeserver.core.pdu import StateKey
from homeserver.core.server_acl import ServerAcl
from storage.bounded_cache import BoundedCache
from storage.database import Connection
from storage.events import EventCache, StoredEvent
from storage.outgoing_events import OutgoingEvent
from storage.room_servers import (
    ServerCounts,
    list_current_state_ids,
    list_partial_room_servers,
    list_server_counts,
    list_set_memberships,
)
from storage.state import Snapshot, StateStore

SERVER_ACL: Final[StateKey] = ("m.room.server_acl", "")
COUNTS_MAX: Final = 500_000
ANSWERS_MAX: Final = 500_000
# What a server's name and number take in memory.
SERVER_BYTES: Final = 150

RoomState = tuple[int, int]
"""A room (`room_nid`) and a snapshot of its state (`state_id`)."""


_AclKey = tuple[int, int]
"""An `m.room.server_acl` event (`event_nid`) and the revision of its text."""


@dataclass(frozen=True, slots=True)
class _Answers:
    """A list, and the servers that it has been asked about."""

    acl: ServerAcl
    allowed: dict[ServerName, bool]


@dataclass(frozen=True, slots=True)
class _ServersAt:
    """The servers in a room in one state; `joined` has the numbers of their users."""

    joined: Mapping[ServerName, int]
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class _Step:
    """The way from one state of a room to another: the changed slots, each with the events before and after."""

    target: RoomState
    changes: Mapping[int, tuple[int | None, int | None]]


class RoomServers:
    """Finds the servers in rooms: at single events, and now."""

    def __init__(self, *, server_name: ServerName, states: StateStore, events: EventCache) -> None:
        """Takes this server's name, and what reads states and events."""
        self._server_name = server_name
        self._states = states
        self._events = events
        self._counts: BoundedCache[int, ServerCounts] = BoundedCache(
            "room_servers", weight_max=COUNTS_MAX, weigh=lambda counts: 10 + len(counts.joined), bytes_each=SERVER_BYTES
        )
        self._acls: BoundedCache[_AclKey, _Answers] = BoundedCache(
            "room_server_acls",
            weight_max=ANSWERS_MAX,
            weigh=lambda answers: 100 + len(answers.allowed),
            bytes_each=SERVER_BYTES,
        )

    async def destinations(self, conn: Connection, events: Sequence[OutgoingEvent]) -> dict[int, frozenset[ServerName]]:
        """The servers that each event has to be sent to, by its number; events for nobody are absent.

        These are the servers in the room before the event, also those that its access control list denies: they take
        no part, but see what becomes of it. A user who was only invited, or has only knocked, is told of the refusal
        too; of an invitation its server knows already. An event of this server's users from before it was in the room
        has been handed in at another server, which sends it.
        """
        placed = {event: (event.room_nid, event.state_id) for event in events if event.state_id is not None}
        servers_at = await self._servers_at(conn, placed.values())
        refused = await self._refused_outsiders(conn, {event: servers_at[state] for event, state in placed.items()})
        found: dict[int, frozenset[ServerName]] = {}
        for event, state in placed.items():
            servers = {*servers_at[state].joined, *event.partial_servers}
            if self._server_name not in servers:
                continue
            if event.event_nid in refused:
                servers.add(refused[event.event_nid])
            servers.discard(self._server_name)
            if event.is_relayed:
                servers.discard(event.sender.server_name)
            if servers:
                found[event.event_nid] = frozenset(servers)
        return found

    async def current(self, conn: Connection, room_nids: Collection[int]) -> dict[int, frozenset[ServerName]]:
        """The other servers in rooms that this one is in, by `room_nid`, without those that a room does not allow."""
        # First, for a room may be completed at any moment: its state is then read as it is afterwards.
        partial = await list_partial_room_servers(conn, room_nids)
        states = await list_current_state_ids(conn, room_nids)
        servers_at = await self._servers_at(conn, states.items())
        acls = await self._acls_of(conn, {state: at.snapshot for state, at in servers_at.items()})
        return {
            room_nid: await self._allowed(
                {*at.joined, *partial.get(room_nid, ())} - {self._server_name}, acls.get((room_nid, state_id))
            )
            for (room_nid, state_id), at in servers_at.items()
        }

    async def user_counts(self, conn: Connection, room_nids: Collection[int]) -> dict[int, Mapping[ServerName, int]]:
        """How many users of each server are joined to rooms that this server is in, by `room_nid`."""
        states = await list_current_state_ids(conn, room_nids)
        servers_at = await self._servers_at(conn, states.items())
        return {room_nid: at.joined for (room_nid, _), at in servers_at.items()}

    async def _servers_at(self, conn: Connection, wanted: Iterable[RoomState]) -> dict[RoomState, _ServersAt]:
        """The servers in some states of rooms; those that are not known as the current state are reached in steps."""
        states = list(dict.fromkeys(wanted))
        rooms = {room_nid for room_nid, _ in states}
        known = {room_nid: counts for room_nid in rooms if (counts := self._counts.get(room_nid)) is not None}
        known |= await list_server_counts(conn, rooms - known.keys()) if rooms - known.keys() else {}
        states = [state for state in states if state[0] in known]
        try:
            return await self._step_through(conn, states, known)
        except LookupError:
            # What was remembered has been swept meanwhile.
            for room_nid in rooms:
                self._counts.discard(room_nid)
            return await self._step_through(conn, states, await list_server_counts(conn, rooms))

    async def _step_through(
        self, conn: Connection, states: Sequence[RoomState], known: Mapping[int, ServerCounts]
    ) -> dict[RoomState, _ServersAt]:
        ids = {state_id for _, state_id in states} | {counts.state_id for counts in known.values()}
        snapshots = await self._states.load_many(conn, ids)
        last = {room_nid: counts.state_id for room_nid, counts in known.items()}
        steps = []
        for room_nid, state_id in states:
            older, newer = snapshots[last[room_nid]], snapshots[state_id]
            changes = {} if older is newer else newer.changes_since(older)
            steps.append(_Step((room_nid, state_id), {slot: (older.get(slot), new) for slot, new in changes.items()}))
            last[room_nid] = state_id
        servers_of, memberships = await self._members_in(conn, steps)
        joined = {room_nid: counts.joined for room_nid, counts in known.items()}
        found: dict[RoomState, _ServersAt] = {}
        for step in steps:
            room_nid, state_id = step.target
            joined[room_nid] = _after(joined[room_nid], step, servers_of, memberships)
            found[step.target] = _ServersAt(joined[room_nid], snapshots[state_id])
        for room_nid, counts in joined.items():
            self._counts.put(room_nid, ServerCounts(last[room_nid], counts))
        return found

    async def _members_in(
        self, conn: Connection, steps: Sequence[_Step]
    ) -> tuple[Mapping[int, ServerName], Mapping[int, str]]:
        """Of the slots that change those of members, with their servers; and the memberships that the events set."""
        slots = {slot for step in steps for slot in step.changes}
        names = await self._states.slot_names(conn, slots) if slots else {}
        servers = {
            slot: ServerName(state_key.partition(":")[2])
            for slot, (event_type, state_key) in names.items()
            if event_type == "m.room.member" and state_key.startswith("@") and ":" in state_key
        }
        nids = {
            nid
            for step in steps
            for slot, both in step.changes.items()
            if slot in servers
            for nid in both
            if nid is not None
        }
        return servers, await list_set_memberships(conn, nids)

    async def _acls_of(self, conn: Connection, snapshots: Mapping[RoomState, Snapshot]) -> dict[RoomState, StoredEvent]:
        """The access control lists of states that have one."""
        slot = (await self._states.find_slots(conn, [SERVER_ACL])).get(SERVER_ACL)
        if slot is None:
            return {}
        nids = {state: nid for state, snapshot in snapshots.items() if (nid := snapshot.get(slot)) is not None}
        events = {event.event_nid: event for event in await self._events.load(conn, set(nids.values()))}
        return {state: events[nid] for state, nid in nids.items() if nid in events}

    async def _allowed(self, servers: Collection[ServerName], event: StoredEvent | None) -> frozenset[ServerName]:
        """Those of some servers that an access control list lets take part; all, if there is none."""
        if event is None:
            return frozenset(servers)
        key = (event.event_nid, event.revision)
        answers = self._acls.get(key)
        unasked = [server for server in servers if answers is None or server not in answers.allowed]
        if answers is None or unasked:
            # Lists can be long, and rooms large.
            answers = await asyncio.to_thread(_ask, answers, event, unasked)
            self._acls.put(key, answers)
        return frozenset(server for server in servers if answers.allowed[server])

    async def _refused_outsiders(
        self, conn: Connection, events: Mapping[OutgoingEvent, _ServersAt]
    ) -> dict[int, ServerName]:
        """The servers of users who are refused by an event after an invitation or a knock, by the event's number."""
        slots = {event: ("m.room.member", str(event.member)) for event in events if event.member is not None}
        if not slots:
            return {}
        slot_ids = await self._states.find_slots(conn, slots.values())
        before = {
            event: nid
            for event, slot in slots.items()
            if slot in slot_ids and (nid := events[event].snapshot.get(slot_ids[slot])) is not None
        }
        nids = {nid for event, old in before.items() for nid in (event.event_nid, old)}
        memberships = await list_set_memberships(conn, nids)
        return {
            event.event_nid: event.member.server_name
            for event, old in before.items()
            if event.member is not None
            and memberships.get(old) in ("invite", "knock")
            and memberships.get(event.event_nid) in ("leave", "ban")
        }


def _after(
    joined: Mapping[ServerName, int],
    step: _Step,
    servers_of: Mapping[int, ServerName],
    memberships: Mapping[int, str],
) -> dict[ServerName, int]:
    """The numbers of joined users after a step."""
    counts = dict(joined)
    for slot, (old, new) in step.changes.items():
        server = servers_of.get(slot)
        if server is None:
            continue
        was, is_now = (nid is not None and memberships.get(nid) == "join" for nid in (old, new))
        count = counts.get(server, 0) + is_now - was
        if count > 0:
            counts[server] = count
        else:
            counts.pop(server, None)
    return counts


def _ask(known: _Answers | None, event: StoredEvent, servers: Sequence[ServerName]) -> _Answers:
    """What a list answers, with what it has been asked before."""
    acl = ServerAcl.parse(event.content) if known is None else known.acl
    allowed = {} if known is None else known.allowed
    return _Answers(acl, {**allowed, **{server: acl.allows(server) for server in servers}})
