"""Memberships that other servers have to help with: knocking and leaving where this server is not in the room, and
inviting users of other servers.

https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from homeserver.core.clock import Clock
from homeserver.core.errors import (
    Forbidden,
    IncompatibleRoomVersion,
    MatrixError,
    RemoteUnavailable,
    UnsupportedRoomVersion,
)
from homeserver.core.event_auth.auth_events import member_slot
from homeserver.core.hashing import reference_hash
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.signing import signature_key_ids, verify_event
from homeserver.core.text import is_storable
from homeserver.services.ports import RemoteProfiles
from homeserver.services.remote import EventJson, KeyWish, RemoteRooms, ServerKeys
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.gate import EventGate
from homeserver.services.rooms.incoming import IncomingEvents
from homeserver.services.rooms.join_candidates import ask_in_turn, find_candidates, for_client
from homeserver.services.rooms.member_template import MemberEvents
from homeserver.services.rooms.membership_changes import MembershipChange
from homeserver.services.rooms.out_of_band import OutOfBandMemberships
from homeserver.services.rooms.stripped_state import TOLD
from storage.database import Connection, Database
from storage.events import list_pdus
from storage.memberships import MembershipRow, find_membership
from storage.room_heads import find_head

logger = logging.getLogger(__name__)

_LEAVE_SECONDS_MAX: Final = 20.0
"""How long somebody waits to be rid of an invitation, whether or not another server hears of it."""
_PROFILE_SECONDS_MAX: Final = 5.0
_PROFILE_FIELD_BYTES_MAX: Final = 1024
_SIGNATURES_MAX: Final = 8


class RemoteMemberships:
    """Knocks, leaves and invitations."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        server_name: ServerName,
        remote: RemoteRooms,
        profiles: RemoteProfiles,
        keys: ServerKeys,
        events: MemberEvents,
        gate: EventGate,
        incoming: IncomingEvents,
        out_of_band: OutOfBandMemberships,
        appender: Appender,
    ) -> None:
        self._db = db
        self._clock = clock
        self._server_name = server_name
        self._remote = remote
        self._profiles = profiles
        self._keys = keys
        self._events = events
        self._gate = gate
        self._incoming = incoming
        self._out_of_band = out_of_band
        self._appender = appender

    async def knock(
        self, user_id: UserId, room_id: RoomId, *, via: Sequence[ServerName], content: Mapping[str, Any]
    ) -> EventId:
        """Knocks at a room that this server is not in.

        Args:
            user_id: who knocks.
            room_id: the room.
            via: servers that may be in the room, beside those that are known otherwise.
            content: of the member event.

        Raises:
            NotFound: no server is known to be in the room.
            Forbidden, IncompatibleRoomVersion: the other servers refuse.
            RemoteUnavailable: none of them can be asked.
            ServerIsInRoom: this server has come into the room meanwhile.
        """

        async def knock_via(server_name: ServerName) -> EventId:
            template = await self._remote.make_knock(server_name, room_id, user_id)
            if not template.room_version.knock_allowed:
                raise RemoteUnavailable("The other server proposed a knock in a room that takes none")
            knock = self._events.after_template(template, room_id=room_id, user_id=user_id, content=content)
            room_state = await self._remote.send_knock(server_name, knock)
            told = await self._credible(knock, room_state)
            await self._out_of_band.record(knock, stripped_state=told, servers=[server_name, *via])
            return knock.event_id

        async with self._db.connection() as conn:
            candidates = await find_candidates(conn, room_id, user_id, via, server_name=self._server_name)
        return await ask_in_turn(candidates, knock_via, clock=self._clock)

    async def _credible(self, knock: Pdu, room_state: Sequence[object]) -> Sequence[EventJson]:
        """What is told of the room, without whole events that are none of it, or not signed.

        Up to version 11 servers may send stripped events, which cannot be checked.
        """
        version = knock.room_version
        events = [event for event in room_state if isinstance(event, Mapping)]
        stripped = [event for event in events if "signatures" not in event]
        whole = [event for event in events if "signatures" in event]
        checked = await self._gate.check(version, whole, room_id=knock.room_id)
        return [*(() if version.room_id_is_create_hash else stripped), *(pdu.json for pdu in checked.passed)]

    async def leave(self, user_id: UserId, room_id: RoomId, *, content: Mapping[str, Any]) -> EventId:
        """Rejects an invitation to a room that this server is not in, or takes back a knock.

        If no other server can or will help, the user is rid of it all the same, and only this server knows.

        Raises:
            Forbidden: the user has nothing to leave.
            ServerIsInRoom: this server has come into the room meanwhile.
        """
        async with self._db.connection() as conn:
            row, member = await _left_member(conn, room_id, user_id)
            if row.membership == "leave":
                return member.event_id
            candidates = await find_candidates(conn, room_id, user_id, (), server_name=self._server_name)

        async def leave_via(server_name: ServerName) -> Pdu:
            template = await self._remote.make_leave(server_name, room_id, user_id)
            made = self._events.after_template(template, room_id=room_id, user_id=user_id, content=content)
            await self._remote.send_leave(server_name, made)
            return made

        try:
            async with asyncio.timeout(_LEAVE_SECONDS_MAX):
                leave = await ask_in_turn(candidates, leave_via, clock=self._clock)
        except (MatrixError, TimeoutError) as error:
            logger.info("no other server helped a user to leave: %s", error)
            leave = self._events.leave_after(member, content=content)
        await self._out_of_band.record(leave)
        return leave.event_id

    async def invite(self, change: MembershipChange, room_id: RoomId, target: UserId) -> EventId:
        """Invites a user of another server: that server has to agree before the invitation becomes a part of the room.

        Raises:
            Forbidden: the room does not allow it, or the other server refuses.
            InviteBlocked: the user does not want invitations.
            UnsupportedRoomVersion: the other server does not know the room's version.
            RemoteUnavailable: the other server cannot be asked, or has not signed.
        """
        invitation = await self._appender.prepare(room_id, change, slots=change.slots)
        if invitation is None:
            assert change.unchanged is not None, "Nothing is to be done only where it has been done"
            return change.unchanged
        async with self._db.connection() as conn:
            room_state = await _room_state(conn, invitation)
        try:
            returned = await self._remote.invite(target.server_name, invitation, invite_room_state=room_state)
        except MatrixError as error:
            told = for_client(error)
            if isinstance(told, IncompatibleRoomVersion):
                raise UnsupportedRoomVersion(told.message) from error
            raise told from error
        signed = await self._countersigned(invitation, returned, target.server_name)
        await self._incoming.add(self._server_name, signed)
        return invitation.event_id

    async def profile(self, user_id: UserId) -> Mapping[str, str]:
        """What stands in the member events of a user of another server: the name and the picture, as far as known."""
        try:
            async with asyncio.timeout(_PROFILE_SECONDS_MAX):
                profile = await self._profiles.query_profile(user_id)
        except (MatrixError, TimeoutError):
            return {}
        told = {name: profile.get(name) for name in ("displayname", "avatar_url")}
        return {
            name: value
            for name, value in told.items()
            if isinstance(value, str) and is_storable(value) and len(value.encode()) <= _PROFILE_FIELD_BYTES_MAX
        }

    async def _countersigned(self, invitation: Pdu, returned: EventJson, invited: ServerName) -> Pdu:
        """The invitation with the invited server's signature; of what that has returned, nothing else is used.

        Raises:
            RemoteUnavailable: it is not there, or not right.
        """
        signatures = returned.get("signatures")
        theirs = signatures.get(invited) if isinstance(signatures, Mapping) else None
        if not isinstance(theirs, Mapping):
            raise RemoteUnavailable("The invited user's server has not signed the invitation")
        version = invitation.room_version
        json = {**invitation.json, "signatures": {**invitation.json["signatures"], invited: dict(theirs)}}
        key_ids = signature_key_ids(json, invited)[:_SIGNATURES_MAX]
        valid_at_ts = invitation.origin_server_ts if version.key_validity_enforced else None
        keys = await self._keys.fetch([KeyWish(invited, key_id, valid_at_ts) for key_id in key_ids])
        good = {
            key_id: theirs[key_id]
            for key_id in key_ids
            if (found := keys.get((invited, key_id))) is not None
            and not found.is_retired
            and verify_event(json, invited, found.key, version)
        }
        if not good:
            raise RemoteUnavailable("The invited user's server has not signed the invitation as it must")
        json["signatures"][invited] = good
        assert reference_hash(json, version) == reference_hash(invitation.json, version), "Signatures are not hashed"
        return Pdu.trusted(json, invitation.event_id, version, invitation.room_id)


async def _left_member(conn: Connection, room_id: RoomId, user_id: UserId) -> tuple[MembershipRow, Pdu]:
    """A user's membership, and the event that made it.

    Raises:
        Forbidden: the user has none, or is banned.
    """
    row = await find_membership(conn, room_id=room_id, user_id=user_id)
    if row is None:
        raise Forbidden("You are not in the room")
    if row.membership == "ban":
        raise Forbidden("You are banned from the room")
    pdus = await list_pdus(conn, [row.event_nid])
    if row.event_nid not in pdus:
        raise Forbidden("You are not in the room")
    return row, pdus[row.event_nid]


async def _room_state(conn: Connection, invitation: Pdu) -> list[EventJson]:
    """What the invited user is told of the room: whole events, of which its server makes what it needs."""
    slots = [*TOLD, member_slot(invitation.sender)]
    head = await find_head(conn, invitation.room_id, slots)
    found = (None if head is None else head.find(slot) for slot in slots)
    return [pdu.json for pdu in found if pdu is not None]
