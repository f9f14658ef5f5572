"""What other servers may do and see in rooms: who is in, whom the room's access control list lets in, which events.

A room that is not known here, one that the other server is not in, and one that does not want it are refused with the
same bytes. Of a room that this server has left, what it knew then is told.

https://spec.matrix.org/v1.19/server-server-api/#server-access-control-lists-acls
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import member_slot
from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.core.pdu import StateKey
from homeserver.core.server_acl import ServerAcl
from homeserver.core.visibility import HistoryVisibility, visible_to_server
from homeserver.services.rooms.state_values import StateValues
from storage.bounded_cache import BoundedCache
from storage.database import Connection
from storage.events import StoredEvent, list_events
from storage.rooms import RoomRow
from storage.server_memberships import (
    ServerAclRow,
    find_room_for_server,
    find_server_acl,
    list_joined_rooms_among,
    list_member_events,
    list_users_of_server,
)
from storage.state import Snapshot, StateStore
from storage.users import list_erased

# What a list of usual length takes in memory, compiled.
_ACL_BYTES: Final = 10_000
_REFUSAL: Final = "The server is not in the room, or may not take part in it"
_HISTORY_VISIBILITY: Final[StateKey] = ("m.room.history_visibility", "")


class ServerAccess:
    """Answers what a server may do and see. It reads on the caller's connection."""

    def __init__(self, *, states: StateStore, acls_max: int = 1000, answers_max: int = 20_000) -> None:
        """Takes the store of states, and how many compiled lists, and answers of them, are kept in memory."""
        self._states = states
        self._values = StateValues(states=states, cache_name="server_visibility_values")
        self._acls: BoundedCache[ServerAclRow, ServerAcl] = BoundedCache(
            "server_acls", weight_max=acls_max, bytes_each=_ACL_BYTES
        )
        self._answers: BoundedCache[tuple[ServerAclRow, ServerName], bool] = BoundedCache(
            "server_acl_answers", weight_max=answers_max
        )

    async def require_in_room(self, conn: Connection, origin: ServerName, room_id: RoomId) -> RoomRow:
        """A room that another server is in now, if its access control list lets it take part.

        Where this server has left the room itself, "now" is when it left: others must still be able to ask for what
        its last events refer to, or they could never take its leave.

        Raises:
            Forbidden: one of this does not hold, or there is no such room; the answer does not tell which.
        """
        found = await find_room_for_server(conn, room_id, origin)
        if found is None or not found.is_joined:
            raise Forbidden(_REFUSAL)
        if found.acl is not None and not await self._allows(conn, found.acl, origin):
            raise Forbidden(_REFUSAL)
        return found.room

    async def require_allowed(self, conn: Connection, origin: ServerName, room_id: RoomId) -> None:
        """Checks that a room's access control list, as it is now, lets a server take part.

        A room that is not known here has none.

        Raises:
            Forbidden: it does not; the answer is that of `require_in_room`.
        """
        acl = await find_server_acl(conn, room_id)
        if acl is not None and not await self._allows(conn, acl, origin):
            raise Forbidden(_REFUSAL)

    async def allowed_among(
        self, conn: Connection, servers: Sequence[ServerName], room_id: RoomId
    ) -> Sequence[ServerName]:
        """Those of some servers that a room's access control list lets take part, in their order."""
        acl = await find_server_acl(conn, room_id)
        if acl is None:
            return servers
        return [server for server in servers if await self._allows(conn, acl, server)]

    async def visible(self, conn: Connection, origin: ServerName, events: Sequence[StoredEvent]) -> Sequence[bool]:
        """Which of some events, of any rooms, a server may see: those that any of its users may see.

        Rejected and soft-failed events are judged as any other. Of an event outside the graph nothing is known, so it
        may not be seen. Messages of users of this server who have had themselves erased are not shown.
        """
        placed = [event for event in events if event.state_id is not None]
        if not placed:
            return [False] * len(events)
        visibilities = await self._visibilities(conn, placed)
        room_nids = {event.room_nid for event in placed}
        joined_room_nids = await list_joined_rooms_among(conn, room_nids, origin)
        undecided = [
            event
            for event in placed
            if not visible_to_server(
                visibility_before=visibilities[event.event_nid][0],
                visibility_after=visibilities[event.event_nid][1],
                memberships=(),
                joined_later=event.room_nid in joined_room_nids,
            )
        ]
        hidden = await self._hidden(conn, origin, undecided, visibilities, joined_room_nids)
        erased = await list_erased(conn, list({event.sender for event in placed if event.state_key is None}))
        return [
            event.state_id is not None
            and event.event_nid not in hidden
            and not (event.state_key is None and event.sender in erased)
            for event in events
        ]

    async def _allows(self, conn: Connection, acl: ServerAclRow, server: ServerName) -> bool:
        answer = self._answers.get((acl, server))
        if answer is not None:
            return answer
        compiled = self._acls.get(acl)
        if compiled is None:
            events = await list_events(conn, [acl.event_nid])
            # The largest list costs 50 ms. An event that is gone lets nobody in.
            compiled = await asyncio.to_thread(ServerAcl.parse, events[0].content if events else {})
            self._acls.put(acl, compiled)
        answer = await asyncio.to_thread(compiled.allows, server)
        self._answers.put((acl, server), answer)
        return answer

    async def _visibilities(
        self, conn: Connection, placed: Sequence[StoredEvent]
    ) -> Mapping[int, tuple[HistoryVisibility, HistoryVisibility]]:
        """The history visibility before and after each event, by its number."""
        state_ids = {event.state_id for event in placed if event.state_id is not None}
        values = await self._values.at_slots(conn, state_ids, [_HISTORY_VISIBILITY])
        visibilities = {}
        for event in placed:
            value = values.get((event.state_id or 0, _HISTORY_VISIBILITY))
            before = HistoryVisibility.SHARED if value is None else HistoryVisibility(value)
            changes = (event.type, event.state_key) == _HISTORY_VISIBILITY
            visibilities[event.event_nid] = (before, HistoryVisibility.of_content(event.content) if changes else before)
        return visibilities

    async def _hidden(
        self,
        conn: Connection,
        origin: ServerName,
        events: Sequence[StoredEvent],
        visibilities: Mapping[int, tuple[HistoryVisibility, HistoryVisibility]],
        joined_room_nids: Collection[int],
    ) -> set[int]:
        """Those of some events (`event_nid`) that the memberships of a server's users do not let it see."""
        if not events:
            return set()
        users = await list_users_of_server(conn, {event.room_nid for event in events}, origin)
        memberships = await self._memberships(conn, users, events)
        last_joins = await self._last_joins(
            conn, {room_nid: them for room_nid, them in users.items() if room_nid not in joined_room_nids}
        )
        hidden = set()
        for event in events:
            before, after = visibilities[event.event_nid]
            is_visible = visible_to_server(
                visibility_before=before,
                visibility_after=after,
                memberships=[*memberships.get(event.state_id or 0, ()), *_own_membership(event, origin)],
                joined_later=event.room_nid in joined_room_nids or _precedes(event, last_joins.get(event.room_nid)),
            )
            if not is_visible:
                hidden.add(event.event_nid)
        return hidden

    async def _memberships(
        self, conn: Connection, users: Mapping[int, Sequence[UserId]], events: Sequence[StoredEvent]
    ) -> Mapping[int, Collection[str]]:
        """Which memberships some users of each room have in the states before events, by state."""
        slots = {member_slot(user_id) for them in users.values() for user_id in them}
        slot_ids = set((await self._states.find_slots(conn, slots)).values())
        state_ids_by_room: dict[int, set[int]] = {}
        for event in events:
            if event.state_id is not None:
                state_ids_by_room.setdefault(event.room_nid, set()).add(event.state_id)
        snapshots = await self._states.load_many(conn, {each for ids in state_ids_by_room.values() for each in ids})
        runs = [
            list(_changes([snapshots[state_id] for state_id in sorted(state_ids)], slot_ids))
            for state_ids in state_ids_by_room.values()
        ]
        wanted = {nid for run in runs for change in run for nid in change.added}
        values = await self._values.of_events(conn, wanted)
        found: dict[int, Collection[str]] = {}
        for run in runs:
            counts: Counter[str] = Counter()
            for change in run:
                counts.subtract(values[nid] for nid in change.removed)
                counts.update(values[nid] for nid in change.added)
                found[change.state_id] = [membership for membership, count in counts.items() if count > 0]
        return found

    async def _last_joins(self, conn: Connection, users: Mapping[int, Sequence[UserId]]) -> Mapping[int, int]:
        """Where in each room's history (`topological`) one of its users last joined, by `room_nid`."""
        if not users:
            return {}
        members = await list_member_events(conn, users, list({user_id for them in users.values() for user_id in them}))
        values = await self._values.of_events(conn, [member.event_nid for member in members])
        joins: dict[int, int] = {}
        for member in members:
            if values[member.event_nid] == "join":
                joins[member.room_nid] = max(joins.get(member.room_nid, member.topological), member.topological)
        return joins


@dataclass(frozen=True, slots=True)
class _Change:
    """How a state differs from the one before it in a run, at slots of interest: events that come and go."""

    state_id: int
    added: Sequence[int]
    removed: Sequence[int]


def _changes(snapshots: Sequence[Snapshot], slot_ids: Collection[int]) -> Iterator[_Change]:
    """Goes through states of one room, close to each other; the first is told whole.

    So the cost is that of one state and of what has changed, however many users the server has in the room.
    """
    older: Snapshot | None = None
    for snapshot in snapshots:
        if older is None:
            entries = snapshot.entries()
            added = [entries[slot_id] for slot_id in slot_ids if slot_id in entries]
            yield _Change(snapshot.state_id, added, ())
        else:
            changed = {slot: nid for slot, nid in snapshot.changes_since(older).items() if slot in slot_ids}
            removed = [nid for slot in changed if (nid := older.get(slot)) is not None]
            yield _Change(snapshot.state_id, [nid for nid in changed.values() if nid is not None], removed)
        older = snapshot


def _precedes(event: StoredEvent, topological: int | None) -> bool:
    """Whether an event stands before a place in the history of its room; None for no place."""
    return topological is not None and event.topological is not None and event.topological < topological


def _own_membership(event: StoredEvent, origin: ServerName) -> Sequence[str]:
    """The membership that a member event gives to a user of the server; nothing for other events."""
    if event.type != "m.room.member" or event.state_key is None:
        return ()
    if event.state_key.partition(":")[2] != origin:
        return ()
    membership = event.content.get("membership")
    return (membership,) if isinstance(membership, str) else ()
