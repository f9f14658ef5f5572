"""Invitations of our users that other servers send: they are looked at, signed, and shown to the user.

A server that is in the room itself only signs; the invitation reaches it once more with the room's other events. Else
nothing is known of the room but what the inviting server tells beside the invitation, and that may be anything.

https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from collections.abc import Sequence
from typing import Final

import structlog

from homeserver.core.errors import Forbidden, IncompatibleRoomVersion, InvalidParam, UnsupportedRoomVersion
from homeserver.core.event_auth.auth_events import CREATE
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import EventIdFormat, RoomVersion, room_version_named
from homeserver.core.signing import SigningKey, sign_event
from homeserver.services.remote import EventJson
from homeserver.services.rooms.gate import EventGate
from homeserver.services.rooms.member_content import check_invitable
from homeserver.services.rooms.out_of_band import OutOfBandMemberships, ServerIsInRoom
from homeserver.services.rooms.server_access import ServerAccess
from homeserver.services.rooms.submitted_memberships import NotOfOrigin, check_member_event, parse_own_event
from storage.database import Connection, Database
from storage.resident_rooms import find_resident_room
from storage.rooms import find_room
from storage.users import find_user

ROOM_STATE_EVENTS_MAX: Final = 100
"""How many events of the room's state may come with an invitation; the specification asks for seven."""

_OLDEST: Final = room_version_named("1")

_log = structlog.get_logger()


class ReceivedInvites:
    """Takes in invitations of local users."""

    def __init__(
        self,
        *,
        db: Database,
        gate: EventGate,
        access: ServerAccess,
        out_of_band: OutOfBandMemberships,
        server_name: ServerName,
        key: SigningKey,
    ) -> None:
        """Takes its means; `key` is what this server signs with."""
        self._db = db
        self._gate = gate
        self._access = access
        self._out_of_band = out_of_band
        self._server_name = server_name
        self._key = key

    async def receive(
        self,
        origin: ServerName,
        room_id: RoomId,
        event_id: EventId,
        event: EventJson,
        *,
        room_version: str | None,
        invite_room_state: Sequence[EventJson],
    ) -> EventJson:
        """Takes in an invitation; returns it with this server's signature. Sent again, it is only signed again.

        Args:
            origin: the inviting server.
            room_id: the room, as the path of the request says.
            event_id: the invitation, likewise.
            event: the invitation.
            room_version: the room's version; None if the request comes from the time of versions 1 and 2.
            invite_room_state: events of the room's state, which are to tell the user what room it is.

        Raises:
            IncompatibleRoomVersion: this server does not support the room's version.
            NotOfOrigin: the invitation is not the other server's own.
            InvalidParam: it is not what it must be, or (from room version 12 on) the room's state is not.
            BadJson, TooLarge: it is no event of the room's version.
            InviteBlocked: the user does not want invitations.
            Forbidden: the user is none that can be invited, or the room keeps the other server out.
        """
        if len(invite_room_state) > ROOM_STATE_EVENTS_MAX:
            raise InvalidParam("invite_room_state holds too many events")
        async with self._db.connection() as conn:
            version = await _version_of(conn, room_id, room_version, invite_room_state)
            pdu = parse_own_event(origin, event, version, room_id=room_id)
            check_member_event(pdu, event_id, "invite")
            target = self._local_target(pdu)
            is_resident = await find_resident_room(conn, room_id) is not None
            if is_resident:
                await self._access.require_allowed(conn, origin, room_id)
            await check_wanted(conn, target, must_exist=not is_resident)
        result = await self._gate.check(version, [event], room_id=room_id, signers=[origin])
        if not result.passed:
            raise NotOfOrigin("The event is not signed as it must be")
        await self._check_room_state(version, room_id, invite_room_state)
        signed = sign_event(result.passed[0].json, self._server_name, self._key, version)
        if not is_resident:
            await self._record(Pdu.trusted(signed, event_id, version, room_id), invite_room_state, origin)
        return {**event, "signatures": signed["signatures"]}

    def _local_target(self, pdu: Pdu) -> UserId:
        """The invited user.

        Raises:
            InvalidParam: it is no user of this server.
        """
        target = UserId.parse(pdu.state_key)
        if target.server_name != self._server_name:
            raise InvalidParam("The invited user is not one of this server")
        return target

    async def _check_room_state(
        self, version: RoomVersion, room_id: RoomId, invite_room_state: Sequence[EventJson]
    ) -> None:
        """Checks what is told of the room, as strictly as its version wants it.

        Up to version 11 servers may send stripped events, which nobody has signed and which cannot be checked.

        Raises:
            InvalidParam: there is no create event, or something is no signed event of the room.
        """
        if not version.room_id_is_create_hash:
            if not any(event.get("type") == CREATE[0] for event in invite_room_state):
                _log.info("an invitation came without the create event of its room", room_id=room_id)
            return
        result = await self._gate.check(version, invite_room_state, room_id=room_id)
        if result.dropped:
            raise InvalidParam(f"invite_room_state holds something else than events: {result.dropped[0].reason}")
        create = next((pdu for pdu in result.passed if pdu.state_slot == CREATE), None)
        if create is None:
            raise InvalidParam("The create event is not in invite_room_state")
        if create.content.get("room_version") != version.identifier:
            raise InvalidParam("The create event names another room version")
        if not all(pdu.is_state for pdu in result.passed):
            raise InvalidParam("invite_room_state holds something else than state events")

    async def _record(self, pdu: Pdu, invite_room_state: Sequence[EventJson], origin: ServerName) -> None:
        try:
            await self._out_of_band.record(pdu, stripped_state=invite_room_state, servers=[origin])
        except ServerIsInRoom:
            return  # somebody has just joined; the invitation will come with the room's other events


async def _version_of(
    conn: Connection, room_id: RoomId, named: str | None, invite_room_state: Sequence[EventJson]
) -> RoomVersion:
    """The version of the room of an invitation.

    Raises:
        IncompatibleRoomVersion: this server does not support it, or version 1 or 2 was presumed of a later room.
        InvalidParam: the room is known here to have another.
    """
    known = await find_room(conn, room_id)
    if named is None:
        version = _old_version(invite_room_state) if known is None else known.room_version
        if version.event_id_format is not EventIdFormat.SERVER_ASSIGNED:
            raise IncompatibleRoomVersion("The request is for older rooms", room_version=version.identifier)
        return version
    try:
        version = room_version_named(named)
    except UnsupportedRoomVersion as error:
        raise IncompatibleRoomVersion(error.message, room_version=named) from error
    if known is not None and known.room_version != version:
        raise InvalidParam("The room has another version")
    return version


def _old_version(invite_room_state: Sequence[EventJson]) -> RoomVersion:
    """Version 1 or 2, whose events look the same: which, only the room's create event can tell."""
    for event in invite_room_state:
        content = event.get("content")
        if event.get("type") == CREATE[0] and isinstance(content, dict) and content.get("room_version") == "2":
            return room_version_named("2")
    return _OLDEST


async def check_wanted(conn: Connection, target: UserId, *, must_exist: bool = True) -> None:
    """Checks that a local user can be invited. Who is not there is refused like who has closed its account.

    Args:
        conn: to read with.
        target: the user.
        must_exist: False for rooms that this server is in, where our own users may invite whoever they like, too.

    Raises:
        Forbidden: there is no such user, or its account is closed.
        InviteBlocked: it does not want invitations.
    """
    user = await find_user(conn, target)
    if (user is None and must_exist) or (user is not None and user.deactivated):
        raise Forbidden("The user cannot be invited")
    await check_invitable(conn, [target])
