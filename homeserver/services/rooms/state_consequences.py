"""What this server has to do when the state of a room changes, also by other servers.

Its guests leave a room that is closed to them, and what points from here to a room that is replaced points to the new
one. It follows the stream of events; what was handled before changes nothing when it is handled again.

https://spec.matrix.org/v1.19/client-server-api/#guest-access
https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
"""

from collections.abc import Sequence
from typing import Final

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import member_slot
from homeserver.core.ids import RoomId, UserId
from homeserver.core.pdu import StateKey
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.drafts import CurrentState, Draft
from homeserver.services.rooms.member_content import member_content
from homeserver.services.rooms.succession import TOMBSTONE, RoomSuccession
from homeserver.services.stream.follower import Batch
from storage.database import Database
from storage.memberships import list_joined_guests
from storage.room_heads import find_head
from storage.state_events import list_state_changes

NAME: Final = "state_consequences"
KEYS: Final = frozenset(("state:",))

GUEST_ACCESS: Final[StateKey] = ("m.room.guest_access", "")
_CHANGES_MAX: Final = 1000


class StateConsequences:
    """The consumer of a `Follower`."""

    def __init__(self, *, db: Database, appender: Appender, succession: RoomSuccession) -> None:
        self._db = db
        self._appender = appender
        self._succession = succession

    async def handle(self, batch: Batch) -> int:
        """Looks at the rooms whose guest access has changed or that have been replaced, as they are now."""
        async with self._db.connection() as conn:
            changes = await list_state_changes(
                conn, (GUEST_ACCESS[0], TOMBSTONE[0]), since=batch.since, upto=batch.upto, limit=_CHANGES_MAX
            )
        for room_id, event_type in dict.fromkeys((change.room_id, change.type) for change in changes):
            if event_type == TOMBSTONE[0]:
                await self._succession.hand_on(room_id)
            else:
                await self._remove_guests(room_id)
        if len(changes) < _CHANGES_MAX:
            return batch.upto
        # The last transaction may not be complete in the list; but what fills a whole list has to be left behind.
        last = changes[-1].position
        return last if last > batch.since else last + 1

    async def _remove_guests(self, room_id: RoomId) -> None:
        """Has the guests of this server leave a room, unless they may be there."""
        async with self._db.connection() as conn:
            head = await find_head(conn, room_id, [GUEST_ACCESS])
            guests = [] if head is None else await list_joined_guests(conn, head.room_nid)
        for guest in guests:
            try:
                await self._appender.append(room_id, _Departure(guest), slots=[GUEST_ACCESS, member_slot(guest)])
            except Forbidden:
                # Somebody else has removed the guest, or this server cannot act in the room any more.
                continue


class _Departure:
    """A guest leaves, if the room is closed to guests then; see `drafts.Compose`."""

    def __init__(self, guest: UserId) -> None:
        self._guest = guest

    def __call__(self, state: CurrentState) -> Sequence[Draft]:
        access, member = state.find(GUEST_ACCESS), state.find(member_slot(self._guest))
        is_open = access is not None and access.content.get("guest_access") == "can_join"
        if is_open or member is None or member.membership != "join":
            return ()
        return (departure(self._guest),)


def departure(guest: UserId) -> Draft:
    """The event by which a guest leaves."""
    return Draft(type="m.room.member", sender=guest, state_key=guest, content=member_content("leave"))
