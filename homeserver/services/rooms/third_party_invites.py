"""Invitations by e-mail address that become invitations of users, once an identity server knows whose address it is.

The room holds an `m.room.third_party_invite` with a token and keys of the identity server; whoever that server then
confirms to have the address is invited in the name of who invited the address. A server that is in the room can make
that invitation by itself, another one has to ask the inviting server for it. The signature of the identity server is
checked by the authorization rules.

https://spec.matrix.org/v1.19/server-server-api/#third-party-invites
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, InvalidParam, MatrixError, RemoteUnavailable, UnavailableForNow
from homeserver.core.event_auth.auth_events import member_slot, third_party_invite_token
from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.core.pdu import StateKey
from homeserver.core.requester import Requester
from homeserver.core.signing import SigningKey
from homeserver.services.remote import EventJson, RemoteRooms
from homeserver.services.rooms.incoming import IncomingEvents
from homeserver.services.rooms.member_content import member_content, read_profiles
from homeserver.services.rooms.member_events import begin_member_event, read_member_head
from homeserver.services.rooms.membership import Memberships
from homeserver.services.rooms.received_invites import check_wanted
from homeserver.services.rooms.residence import require_resident
from homeserver.services.rooms.server_access import ServerAccess
from storage.database import Connection, Database
from storage.resident_rooms import find_resident_room

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BoundInvite:
    """An invitation that waited for an address to become known.

    Attributes:
        sender: who invited the address.
        signed: what the identity server confirms: the user, the token, its signature.
    """

    room_id: RoomId
    sender: UserId
    signed: Mapping[str, Any]


class ThirdPartyInvites:
    """Makes invitations of users out of invitations of addresses."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        memberships: Memberships,
        incoming: IncomingEvents,
        remote: RemoteRooms,
        access: ServerAccess,
        server_name: ServerName,
        key: SigningKey,
    ) -> None:
        """Takes its means; `key` is what this server signs with."""
        self._db = db
        self._clock = clock
        self._memberships = memberships
        self._incoming = incoming
        self._remote = remote
        self._access = access
        self._server_name = server_name
        self._key = key

    async def exchange(self, origin: ServerName, room_id: RoomId, event: EventJson) -> None:
        """Invites a user of another server, in the name of a local user who has invited its address.

        Args:
            origin: the server of the user.
            room_id: the room, as the path of the request says.
            event: the part of the invitation that the other server can know. Only what the identity server has
                confirmed is taken from it.

        Raises:
            NotFound: this server is not in the room.
            InvalidParam: the event is not such a part of an invitation.
            Forbidden: the user is not of that server, the sender is not of this one, the room does not hold the
                invitation of the address, or the identity server has not confirmed it.
            RemoteUnavailable, RemoteRefused: the other server does not take the invitation.
        """
        content = event.get("content")
        if event.get("type") != "m.room.member" or event.get("room_id") != room_id or not isinstance(content, dict):
            raise InvalidParam("The event is no m.room.member of the room")
        if content.get("membership") != "invite":
            raise InvalidParam("The membership is not invite")
        sender, target = UserId.parse(event.get("sender")), UserId.parse(event.get("state_key"))
        if target.server_name != origin:
            raise Forbidden("The invited user is not one of your server")
        if sender.server_name != self._server_name:
            raise Forbidden("The sender is not one of this server")
        signed = _signed_of(content, target)
        async with self._db.connection() as conn:
            await require_resident(conn, self._access, origin, room_id)
            invite = await _read_invite(conn, room_id, signed)
        further = {"third_party_invite": invite}
        await self._memberships.invite(Requester(sender), room_id, target, content=further)

    async def bind(self, user_id: UserId, invites: Sequence[BoundInvite]) -> None:
        """Sees to it that a local user is invited wherever an address was that is now known to be the user's.

        What cannot be is passed over: what an identity server says need not be true.

        Raises:
            InvalidParam: the user is not one of this server, or an invitation is for somebody else.
            Forbidden: there is no such user.
            InviteBlocked: the user does not want invitations.
            UnavailableForNow, RemoteUnavailable: not everything could be done now; it may be asked for again.
        """
        if user_id.server_name != self._server_name:
            raise InvalidParam("The user is not one of this server")
        for invite in invites:
            _check_signed(invite.signed, user_id)
        async with self._db.connection() as conn:
            await check_wanted(conn, user_id)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._try(user_id, invite)) for invite in invites]
        failures = [failure for task in tasks if (failure := task.result()) is not None]
        if failures:
            raise failures[0]

    async def _try(self, user_id: UserId, invite: BoundInvite) -> MatrixError | None:
        """Has a user invited; returns why that must be tried again."""
        try:
            await self._invite(user_id, invite)
        except (UnavailableForNow, RemoteUnavailable) as error:
            return error
        except MatrixError as error:
            _log.info("an invitation of an address came to nothing", room_id=invite.room_id, reason=error.message)
        return None

    async def _invite(self, user_id: UserId, invite: BoundInvite) -> None:
        room_id, sender = invite.room_id, invite.sender
        async with self._db.connection() as conn:
            is_resident = await find_resident_room(conn, room_id) is not None
            content = await _read_invite(conn, room_id, invite.signed) if is_resident else {}
        if is_resident and sender.server_name == self._server_name:
            further = {"third_party_invite": content}
            await self._memberships.invite(Requester(sender), room_id, user_id, content=further)
        elif is_resident:
            await self._invite_for_another(user_id, invite, content)
        elif sender.server_name == self._server_name:
            raise Forbidden("The inviting user has left the room, and all others of this server")
        else:
            await self._remote.exchange_third_party_invite(
                sender.server_name, room_id, _exchanged_event(user_id, invite)
            )

    async def _invite_for_another(self, user_id: UserId, invite: BoundInvite, content: Mapping[str, Any]) -> None:
        """Invites a local user in the name of a user of another server.

        Of all events only these need no signature of the sender's server: that of the identity server does for it.
        """
        slots = [
            member_slot(user_id),
            member_slot(invite.sender),
            _offer_slot(invite.signed),
        ]
        async with self._db.connection() as conn:
            profile = (await read_profiles(conn, [user_id]))[user_id]
            head = await read_member_head(conn, invite.room_id, slots)
            builder = await begin_member_event(
                conn,
                head,
                invite.room_id,
                sender=invite.sender,
                target=user_id,
                content={**member_content("invite", profile=profile), "third_party_invite": content},
                now_ms=self._clock.now_ms(),
            )
        pdu = builder.build(server_name=self._server_name, key=self._key)
        await self._incoming.add(self._server_name, pdu, relay=True)


def _exchanged_event(user_id: UserId, invite: BoundInvite) -> EventJson:
    """What the inviting server is asked to make an invitation of; it knows better what to call the user."""
    third_party_invite = {"display_name": user_id.localpart, "signed": invite.signed}
    return {
        "type": "m.room.member",
        "room_id": invite.room_id,
        "sender": invite.sender,
        "state_key": user_id,
        "content": {"membership": "invite", "third_party_invite": third_party_invite},
    }


def _signed_of(content: Mapping[str, Any], target: UserId) -> Mapping[str, Any]:
    """What the identity server has confirmed, as it stands in the content of a member event.

    Raises:
        InvalidParam: nothing that makes sense, or it is about another user.
    """
    invite = content.get("third_party_invite")
    signed = invite.get("signed") if isinstance(invite, dict) else None
    if not isinstance(signed, dict):
        raise InvalidParam("The event is no third-party invite")
    _check_signed(signed, target)
    return signed


def _check_signed(signed: Mapping[str, Any], target: UserId) -> None:
    if signed.get("mxid") != target:
        raise InvalidParam("The third-party invite is for another user")
    if not isinstance(signed.get("token"), str) or not isinstance(signed.get("signatures"), dict):
        raise InvalidParam("The third-party invite has no token or no signatures")


def _offer_slot(signed: Mapping[str, Any]) -> StateKey:
    """Where the invitation of the address stands in the room's state."""
    token = third_party_invite_token({"third_party_invite": {"signed": signed}})
    return ("m.room.third_party_invite", token or "")


async def _read_invite(conn: Connection, room_id: RoomId, signed: Mapping[str, Any]) -> dict[str, Any]:
    """`third_party_invite` of a member event: what to call the user stands in the invitation of the address.

    Raises:
        Forbidden: the room holds no such invitation.
    """
    slot = _offer_slot(signed)
    offer = (await read_member_head(conn, room_id, [slot])).find(slot)
    if offer is None:
        raise Forbidden("The room knows no third-party invite with this token")
    return {"display_name": offer.content.get("display_name", ""), "signed": signed}
