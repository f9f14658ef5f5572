"""Joining, inviting, knocking, leaving, kicking, banning.

https://spec.matrix.org/v1.19/client-server-api/#room-membership
"""

from collections.abc import Mapping
from typing import Any, Final

from homeserver.core.errors import BadJson, Forbidden, NotFound, Unknown, UserSuspended
from homeserver.core.event_auth.auth_events import CREATE, JOIN_RULES, POWER_LEVELS, member_slot
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.member_content import check_invitable, member_content, read_profiles
from homeserver.services.rooms.membership_changes import Action, MembershipChange
from homeserver.services.rooms.restricted_joins import find_authorising_user
from homeserver.services.rooms.succession import RoomSuccession
from storage.database import Database
from storage.memberships import find_membership, forget_room, list_rooms_of_user
from storage.room_heads import find_head

_AUTHORISED_VIA: Final = "join_authorised_via_users_server"


class Memberships:
    """The memberships of this server's users, and of whom they invite and remove."""

    def __init__(
        self, *, db: Database, appender: Appender, server_name: ServerName, succession: RoomSuccession
    ) -> None:
        self._db = db
        self._succession = succession
        self._appender = appender
        self._server_name = server_name

    async def join(
        self,
        requester: Requester,
        room_id: RoomId,
        *,
        reason: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> EventId:
        """Joins a room; if the user is in it already, only changes of its profile are told.

        Args:
            requester: who joins.
            room_id: the room.
            reason: why.
            content: further members of the content of the member event.

        Returns:
            The member event.

        Raises:
            NotFound: there is no such room here.
            Forbidden: the user is banned or not invited, or meets none of the conditions.
            GuestAccessForbidden: the room is closed to guests.
        """
        user_id = requester.user_id
        async with self._db.connection() as conn:
            head = await find_head(conn, room_id, (CREATE, JOIN_RULES, POWER_LEVELS, member_slot(user_id)))
            if head is None or head.state_id is None:
                raise NotFound("No known server is in the room")
            profile = (await read_profiles(conn, [user_id]))[user_id]
            vouching = await find_authorising_user(conn, head, user_id, server_name=self._server_name)
        full = {**profile, **(content or {}), **member_content("join", reason=reason)}
        full.pop(_AUTHORISED_VIA, None)
        if vouching is not None:
            full[_AUTHORISED_VIA] = vouching
        event_id = await self._change(Action.JOIN, requester, room_id, target=user_id, content=full)
        create, member = head.find(CREATE), head.find(member_slot(user_id))
        if create is not None and (member is None or member.membership != "join"):
            await self._succession.follow(user_id, create)
        return event_id

    async def invite(
        self,
        requester: Requester,
        room_id: RoomId,
        target: UserId,
        *,
        reason: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> EventId:
        """Invites a user.

        Raises:
            Forbidden: the requester may not invite, or the user is banned or in the room.
            InviteBlocked: the user does not want invitations.
        """
        async with self._db.connection() as conn:
            await check_invitable(conn, [target])
            profile = (await read_profiles(conn, [target]))[target]
        full = {**profile, **(content or {}), **member_content("invite", reason=reason)}
        return await self._change(Action.INVITE, requester, room_id, target=target, content=full)

    async def knock(
        self,
        requester: Requester,
        room_id: RoomId,
        *,
        reason: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> EventId:
        """Asks for an invitation.

        Raises:
            NotFound: there is no such room here.
            Forbidden: the room does not take knocks, or the user is banned, invited or in it.
        """
        async with self._db.connection() as conn:
            head = await find_head(conn, room_id, ())
            if head is None or head.state_id is None:
                raise NotFound("No known server is in the room")
            profile = (await read_profiles(conn, [requester.user_id]))[requester.user_id]
        full = {**profile, **(content or {}), **member_content("knock", reason=reason)}
        return await self._change(Action.KNOCK, requester, room_id, target=requester.user_id, content=full)

    async def act(
        self,
        action: Action,
        requester: Requester,
        room_id: RoomId,
        target: UserId,
        *,
        reason: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> EventId:
        """Leaves (also: rejects an invitation, takes back a knock), kicks, bans or unbans.

        Args:
            action: one of these; users leave for themselves. Who has left already may do so again.
            requester: who does it.
            room_id: the room.
            target: to whom; for bans it need not be in the room.
            reason: why.
            content: further members of the content of the member event.

        Raises:
            Forbidden: the requester may not, or the target's membership is none to which this can be done.
        """
        membership = "ban" if action is Action.BAN else "leave"
        full = {**(content or {}), **member_content(membership, reason=reason)}
        return await self._change(action, requester, room_id, target=target, content=full)

    async def set(self, requester: Requester, room_id: RoomId, target: UserId, content: Mapping[str, Any]) -> EventId:
        """Does what the content of a member event that a client has written says.

        Raises:
            BadJson: it names no membership that there is.
            Forbidden: it may not be.
        """
        own = target == requester.user_id
        match content.get("membership"):
            case "join" if own:
                return await self.join(requester, room_id, content=content)
            case "knock" if own:
                return await self.knock(requester, room_id, content=content)
            case "join" | "knock":
                raise Forbidden("Only users themselves can join or knock")
            case "invite":
                return await self.invite(requester, room_id, target, content=content)
            case "ban":
                action = Action.BAN
            case "leave" if own:
                action = Action.LEAVE
            case "leave":
                action = Action.UNBAN if await self._is_banned(room_id, target) else Action.KICK
            case _:
                raise BadJson("The membership is unknown")
        return await self.act(action, requester, room_id, target, content=content)

    async def forget(self, requester: Requester, room_id: RoomId) -> None:
        """Forgets a room that the user has left.

        Raises:
            Unknown: the user is in the room, invited to it, or knocks.
        """
        async with self._db.transaction() as conn:
            row = await find_membership(conn, room_id=room_id, user_id=requester.user_id)
            if row is not None and row.membership not in ("leave", "ban"):
                raise Unknown("You have to leave the room before you can forget it")
            if row is not None:
                await forget_room(conn, room_nid=row.room_nid, user_id=requester.user_id)

    async def list_joined(self, requester: Requester) -> list[RoomId]:
        """The rooms that the user is joined to."""
        async with self._db.connection() as conn:
            return [row.room_id for row in await list_rooms_of_user(conn, requester.user_id, ("join",))]

    async def leave_all(self, user_id: UserId, *, reason: str | None = None) -> None:
        """Leaves all rooms and rejects all invitations, for an account that is being closed.

        What cannot be left is passed over: the user has been banned or removed meanwhile.
        """
        async with self._db.connection() as conn:
            rows = await list_rooms_of_user(conn, user_id, ("join", "invite", "knock"))
        for row in rows:
            try:
                await self.act(Action.LEAVE, Requester(user_id=user_id), row.room_id, user_id, reason=reason)
            except Forbidden:
                continue

    async def _is_banned(self, room_id: RoomId, user_id: UserId) -> bool:
        async with self._db.connection() as conn:
            row = await find_membership(conn, room_id=room_id, user_id=user_id)
        return row is not None and row.membership == "ban"

    async def _change(
        self, action: Action, requester: Requester, room_id: RoomId, *, target: UserId, content: Mapping[str, Any]
    ) -> EventId:
        if requester.is_suspended and action is not Action.LEAVE:
            raise UserSuspended("You cannot do this while your account is suspended")
        change = MembershipChange(
            action, sender=requester.user_id, target=target, content=content, is_guest=requester.is_guest
        )
        added = await self._appender.append(room_id, change, slots=change.slots)
        if change.unchanged is not None:
            return change.unchanged
        return added.events[-1].event_id
