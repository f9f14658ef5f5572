"""Memberships of this server's users in rooms that it is not in: they are invited, they knock, and it ends.

Nothing about such an event can be checked but its signatures. It stands outside the room's graph and changes no state;
only the user is told.

https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from collections.abc import Sequence
from typing import Final

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.client_event import parse_stripped_state
from homeserver.core.errors import Forbidden
from homeserver.core.ids import ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.services.remote import EventJson
from homeserver.services.rooms.append import wake_keys
from homeserver.services.rooms.batches import member_of
from homeserver.services.rooms.drafts import PushedRoom, PushEvaluator, PushOutcome
from homeserver.services.rooms.event_chain import client_json, federation_json
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.invited_states import InvitedState, put_invited_state
from storage.out_of_band import (
    OutsideEvent,
    OutsideRoom,
    add_outside_push,
    change_outside_membership,
    find_known_event,
    insert_outside_event,
    lock_outside_room,
)
from storage.rooms import insert_room

SERVERS_MAX: Final = 20
"""How many servers are remembered with an invitation or a knock."""
_MEMBERSHIPS: Final = frozenset({"invite", "knock", "leave", "ban"})


class ServerIsInRoom(Exception):
    """This server is in the room: what happens there comes to it by other ways."""


class OutOfBandMemberships:
    """Records memberships from outside."""

    def __init__(self, *, db: Database, bus: Bus, server_name: ServerName, push: PushEvaluator) -> None:
        self._db = db
        self._bus = bus
        self._server_name = server_name
        self._push = push

    async def record(
        self, pdu: Pdu, *, stripped_state: Sequence[EventJson] = (), servers: Sequence[ServerName] = ()
    ) -> int | None:
        """Makes a member event the membership of a local user, in a room that this server is not in.

        Args:
            pdu: the event, which has passed the gate or was made here; an invite, a knock, a leave or a ban.
            stripped_state: what the other server said of the room, stripped or whole events; not believed, and cut
                to what is well-formed and not too much.
            servers: servers that are in the room, as far as is known.

        Returns:
            The position at which the user is told; None if this very event has been its membership before, for
            nobody is invited twice by one event.

        Raises:
            ServerIsInRoom: nothing was recorded.
            Forbidden: the event was rejected before, or the room is known here with another version.
        """
        user_id = self._local_member(pdu)
        outcomes = await self._evaluate_push(pdu)
        state = InvitedState(
            encode_canonical(parse_stripped_state(list(stripped_state))).decode(),
            list(dict.fromkeys(servers))[:SERVERS_MAX],
        )
        async with self._db.transaction() as conn:
            room = await self._enter(conn, pdu)
            event_nid = await _store(conn, room, pdu, user_id)
            if event_nid is None:
                return None
            position = await change_outside_membership(
                conn,
                user_id=user_id,
                room_nid=room.room_nid,
                membership=pdu.membership or "",
                event_nid=event_nid,
                sender=pdu.sender,
            )
            if pdu.membership in ("invite", "knock"):
                await put_invited_state(conn, event_nid, state)
            await add_outside_push(
                conn,
                room_nid=room.room_nid,
                event_nid=event_nid,
                sender=pdu.sender,
                outcomes=[(each.user_id, each.actions, each.notify, each.highlight) for each in outcomes.exceptions],
            )
        await self._bus.wake(wake_keys(pdu.room_id, [pdu], self._server_name), position)
        return position

    def _local_member(self, pdu: Pdu) -> UserId:
        user_id = member_of(pdu)
        if user_id is None or user_id.server_name != self._server_name or pdu.membership not in _MEMBERSHIPS:
            raise ValueError("Only member events of this server's users come out of band")
        return user_id

    async def _evaluate_push(self, pdu: Pdu) -> PushOutcome:
        """What the event does to the user: an invitation notifies. Of the room nothing is known that could matter."""
        if pdu.membership != "invite":
            return PushOutcome()
        room = PushedRoom(None, pdu.room_id, pdu.room_version, 0, {})
        return (await self._push.evaluate(room, [pdu]))[0]

    async def _enter(self, conn: Connection, pdu: Pdu) -> OutsideRoom:
        """The room, locked; made known if it is not yet."""
        room = await lock_outside_room(conn, pdu.room_id)
        if room is None:
            await insert_room(conn, pdu.room_id, pdu.room_version)
            room = await lock_outside_room(conn, pdu.room_id)
        assert room is not None, "It was added just now"
        if room.is_resident:
            raise ServerIsInRoom
        if room.room_version != pdu.room_version.identifier:
            raise Forbidden("The room has another version")
        return room


async def _store(conn: Connection, room: OutsideRoom, pdu: Pdu, user_id: UserId) -> int | None:
    """The number of the event, stored now or before; None if the user was told of it before."""
    event_nid = await insert_outside_event(
        conn,
        room.room_nid,
        OutsideEvent(
            event_id=pdu.event_id,
            depth=pdu.depth,
            origin_server_ts=pdu.origin_server_ts,
            type=pdu.type,
            state_key=user_id,
            sender=pdu.sender,
            prev_events=pdu.prev_events,
            auth_events=pdu.auth_events,
            client_json=client_json(pdu, {}),
            federation_json=federation_json(pdu),
        ),
    )
    if event_nid is not None:
        return event_nid
    known = await find_known_event(conn, pdu.event_id, user_id)
    assert known is not None, "There is an event of that id"
    if known.is_rejected:
        raise Forbidden("The event was rejected")
    return None if known.is_told else known.event_nid
