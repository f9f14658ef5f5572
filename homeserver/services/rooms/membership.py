"""Joining, inviting, knocking, leaving, kicking, banning.

https://spec.matrix.org/v1.19/client-server-api/#room-membership
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from homeserver.core.errors import (
    BadJson,
    Forbidden,
    GuestAccessForbidden,
    NotFound,
    RemoteUnavailable,
    UnableToGrantJoin,
    Unknown,
    UserSuspended,
)
from homeserver.core.event_auth.auth_events import CREATE, member_slot
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.elsewhere import NO_OTHER_SERVERS, Completeness, JoinsElsewhere, MembershipsElsewhere
from homeserver.services.rooms.member_content import check_invitable, member_content, read_profiles
from homeserver.services.rooms.membership_changes import Action, MembershipChange
from homeserver.services.rooms.out_of_band import ServerIsInRoom
from homeserver.services.rooms.restricted_joins import authorise_join, list_inviting_servers
from homeserver.services.rooms.succession import RoomSuccession
from storage.database import Connection, Database
from storage.memberships import find_membership, forget_room, list_rooms_of_user
from storage.out_of_band import is_here
from storage.room_heads import RoomHead, find_head

_AUTHORISED_VIA: Final = "join_authorised_via_users_server"


class Memberships:
    """The memberships of this server's users, and of whom they invite and remove.

    In rooms that this server is in it decides itself; elsewhere, servers that are in the room have to help.
    """

    def __init__(
        self,
        *,
        db: Database,
        appender: Appender,
        server_name: ServerName,
        succession: RoomSuccession,
        joins_elsewhere: JoinsElsewhere = NO_OTHER_SERVERS,
        elsewhere: MembershipsElsewhere = NO_OTHER_SERVERS,
        completeness: Completeness = NO_OTHER_SERVERS,
    ) -> None:
        self._db = db
        self._succession = succession
        self._appender = appender
        self._server_name = server_name
        self._joins_elsewhere = joins_elsewhere
        self._elsewhere = elsewhere
        self._completeness = completeness

    async def join(
        self,
        requester: Requester,
        room_id: RoomId,
        *,
        via: Sequence[ServerName] = (),
        reason: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> EventId:
        """Joins a room; if the user is in it already, only changes of its profile are told.

        Args:
            requester: who joins.
            room_id: the room.
            via: servers that may be in the room, should this one not be.
            reason: why.
            content: further members of the content of the member event.

        Returns:
            The member event.

        Raises:
            NotFound: no server is known to be in the room.
            Forbidden: the user is banned or not invited, or meets none of the conditions.
            GuestAccessForbidden: the room is closed to guests.
            IncompatibleRoomVersion, UnableToAuthoriseJoin, UnableToGrantJoin: the servers in the room refuse.
            RemoteUnavailable: none of them can be asked.
        """
        user_id = requester.user_id
        self._check_suspended(requester)
        async with self._db.connection() as conn:
            head = await self._look(conn, requester, room_id)
            profile = (await read_profiles(conn, [user_id]))[user_id]
        full = {**profile, **(content or {}), **member_content("join", reason=reason)}
        full.pop(_AUTHORISED_VIA, None)
        if head is None or not head.is_here:
            event_id = await self._join_elsewhere(requester, room_id, via=via, content=full)
            if event_id is not None:
                return event_id
            async with self._db.connection() as conn:
                head = await self._look(conn, requester, room_id)
            if head is None or head.state_id is None:
                raise NotFound("No known server is in the room")
        return await self._join_here(requester, room_id, head, via=via, content=full)

    async def _look(self, conn: Connection, requester: Requester, room_id: RoomId) -> RoomHead | None:
        """The room that somebody wants to join, with all that is looked at then."""
        change = MembershipChange(Action.JOIN, sender=requester.user_id, target=requester.user_id, content={})
        return await self._appender.look(conn, room_id, change.slots)

    async def _join_elsewhere(
        self, requester: Requester, room_id: RoomId, *, via: Sequence[ServerName], content: Mapping[str, Any]
    ) -> EventId | None:
        """Joins a room that this server is not in; None if by now it is."""
        user_id = requester.user_id
        if requester.is_guest:
            raise GuestAccessForbidden("Guests may only join rooms that this server is in")
        event_id = await self._joins_elsewhere.join(user_id, room_id, via=via, content=content)
        async with self._db.connection() as conn:
            head = await find_head(conn, room_id, (CREATE,))
        create = None if head is None or event_id is None else head.find(CREATE)
        if create is not None:
            await self._succession.follow(user_id, create)
            await self._succession.move_pointers(create)
        return event_id

    async def _join_here(
        self,
        requester: Requester,
        room_id: RoomId,
        head: RoomHead,
        *,
        via: Sequence[ServerName],
        content: Mapping[str, Any],
    ) -> EventId:
        """Joins a room that this server is in, and that is as `head` says."""
        user_id = requester.user_id
        vouching: UserId | None = None
        refusal: UnableToGrantJoin | None = None
        async with self._db.connection_if_needed() as conn:
            try:
                vouching = await authorise_join(conn, head, user_id, server_name=self._server_name)
            except UnableToGrantJoin as error:
                refusal = error
        create, member = head.find(CREATE), head.find(member_slot(user_id))
        if refusal is not None:
            servers = [*via, *list_inviting_servers(head)]
            event_id = await self._join_vouched(requester, room_id, via=servers, content=content, refusal=refusal)
        else:
            full = content if vouching is None else {**content, _AUTHORISED_VIA: vouching}
            event_id = await self._change(Action.JOIN, requester, room_id, target=user_id, content=full)
        if create is not None and (member is None or member.membership != "join"):
            await self._succession.follow(user_id, create)
        return event_id

    async def _join_vouched(
        self,
        requester: Requester,
        room_id: RoomId,
        *,
        via: Sequence[ServerName],
        content: Mapping[str, Any],
        refusal: UnableToGrantJoin,
    ) -> EventId:
        """Joins a restricted room for which nobody of this server can vouch."""
        if requester.is_guest:
            raise GuestAccessForbidden("Guests may not join this room")
        try:
            return await self._joins_elsewhere.join_vouched(requester.user_id, room_id, via=via, content=content)
        except (NotFound, RemoteUnavailable) as error:
            raise Forbidden(refusal.message) from error

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
            UnsupportedRoomVersion: the user's server does not know the room's version.
            RemoteUnavailable: the user's server cannot be asked.
        """
        async with self._db.connection() as conn:
            await check_invitable(conn, [target])
            profile = (await read_profiles(conn, [target]))[target]
        full = {**profile, **(content or {}), **member_content("invite", reason=reason)}
        if target.server_name == self._server_name:
            return await self._change(Action.INVITE, requester, room_id, target=target, content=full)
        self._check_suspended(requester)
        await self._completeness.wait_until_complete(room_id)
        full = {**await self._elsewhere.profile(target), **full}
        change = MembershipChange(Action.INVITE, sender=requester.user_id, target=target, content=full)
        return await self._elsewhere.invite(change, room_id, target)

    async def knock(
        self,
        requester: Requester,
        room_id: RoomId,
        *,
        via: Sequence[ServerName] = (),
        reason: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> EventId:
        """Asks for an invitation; `via` as for `join`.

        Raises:
            NotFound: no server is known to be in the room.
            Forbidden: the room does not take knocks, or the user is banned, invited or in it.
            IncompatibleRoomVersion: the servers in the room refuse.
            RemoteUnavailable: none of them can be asked.
        """
        user_id = requester.user_id
        self._check_suspended(requester)
        async with self._db.connection() as conn:
            here = await is_here(conn, room_id)
            profile = (await read_profiles(conn, [user_id]))[user_id]
        full = {**profile, **(content or {}), **member_content("knock", reason=reason)}
        if not here:
            try:
                return await self._elsewhere.knock(user_id, room_id, via=via, content=full)
            except ServerIsInRoom:
                pass  # somebody else of this server has just joined
        return await self._change(Action.KNOCK, requester, room_id, target=user_id, content=full)

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
        if action is Action.LEAVE and not await self._is_here(room_id):
            try:
                return await self._elsewhere.leave(target, room_id, content=full)
            except ServerIsInRoom:
                pass  # somebody else of this server has just joined
        if action is not Action.LEAVE and target.server_name != self._server_name:
            await self._completeness.wait_until_complete(room_id)
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

    async def _is_here(self, room_id: RoomId) -> bool:
        async with self._db.connection() as conn:
            return await is_here(conn, room_id)

    def _check_suspended(self, requester: Requester) -> None:
        if requester.is_suspended:
            raise UserSuspended("You cannot do this while your account is suspended")

    async def _is_banned(self, room_id: RoomId, user_id: UserId) -> bool:
        async with self._db.connection() as conn:
            row = await find_membership(conn, room_id=room_id, user_id=user_id)
        return row is not None and row.membership == "ban"

    async def _change(
        self, action: Action, requester: Requester, room_id: RoomId, *, target: UserId, content: Mapping[str, Any]
    ) -> EventId:
        if action is not Action.LEAVE:
            self._check_suspended(requester)
        change = MembershipChange(
            action, sender=requester.user_id, target=target, content=content, is_guest=requester.is_guest
        )
        added = await self._appender.append(room_id, change, slots=change.slots)
        if change.unchanged is not None:
            return change.unchanged
        return added.events[-1].event_id
