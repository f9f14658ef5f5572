"""Joining rooms through servers that are in them.

Of the users of this server who want to join the same unknown room at the same time, one does so; the others then find
the room here.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from homeserver.core.clock import Clock
from homeserver.core.errors import RemoteUnavailable
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.services.remote import RemoteRooms, SentJoin
from homeserver.services.rooms.gate import EventGate
from homeserver.services.rooms.incoming import IncomingEvents
from homeserver.services.rooms.join_answer import with_their_signatures
from homeserver.services.rooms.join_candidates import ask_in_turn, find_candidates
from homeserver.services.rooms.joins_under_way import lease_of_join
from homeserver.services.rooms.leased_work import Lease, LeasedWork
from homeserver.services.rooms.member_template import MemberEvents
from homeserver.services.rooms.room_import import RoomImport
from storage.database import Database
from storage.out_of_band import is_here

_WAIT_SECONDS_MAX: Final = 180.0


class RemoteJoins:
    """Joins for this server's users."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        server_name: ServerName,
        remote: RemoteRooms,
        events: MemberEvents,
        gate: EventGate,
        incoming: IncomingEvents,
        imports: RoomImport,
        work: LeasedWork,
        omit_members: bool,
        partial_due: asyncio.Event,
    ) -> None:
        """Takes its means.

        Args:
            omit_members: rooms are entered without most of their members, which are had later.
            partial_due: is set when that is so for a room.
        """
        self._db = db
        self._clock = clock
        self._server_name = server_name
        self._remote = remote
        self._events = events
        self._gate = gate
        self._incoming = incoming
        self._imports = imports
        self._work = work
        self._omit_members = omit_members
        self._partial_due = partial_due

    async def join(
        self, user_id: UserId, room_id: RoomId, *, via: Sequence[ServerName], content: Mapping[str, Any]
    ) -> EventId | None:
        """Joins a room that this server is not in.

        Args:
            user_id: who joins.
            room_id: the room.
            via: servers that may be in the room, beside those that are known otherwise.
            content: of the member event.

        Returns:
            The member event; None if this server has come into the room meanwhile, so that nobody needs to be asked.

        Raises:
            NotFound: no server is known to be in the room.
            Forbidden, IncompatibleRoomVersion, UnableToAuthoriseJoin, UnableToGrantJoin: the other servers refuse.
            RemoteUnavailable: none of them can be asked, or what they answer cannot be used.
            UnavailableForNow: somebody else has been joining the room for too long.
        """

        async def join_alone(lease: Lease) -> EventId | None:
            async with self._db.connection() as conn:
                if await is_here(conn, room_id):
                    return None
                candidates = await find_candidates(conn, room_id, user_id, via, server_name=self._server_name)

            async def join_via(server_name: ServerName) -> EventId:
                join, answer = await self._handshake(server_name, user_id, room_id, content)
                await self._imports.enter(lease, server_name, join, answer)
                if answer.members_omitted:
                    self._partial_due.set()
                return join.event_id

            return await ask_in_turn(candidates, join_via, clock=self._clock)

        return await self._work.run(lease_of_join(room_id), join_alone, wait_seconds_max=_WAIT_SECONDS_MAX)

    async def join_vouched(
        self, user_id: UserId, room_id: RoomId, *, via: Sequence[ServerName], content: Mapping[str, Any]
    ) -> EventId:
        """Joins a restricted room that this server is in, where only a user of another server can vouch; as `join`.

        Nothing of the answer's state is used, for this server has its own.
        """

        async def join_via(server_name: ServerName) -> EventId:
            join, answer = await self._handshake(server_name, user_id, room_id, content)
            signed = with_their_signatures(join, answer.event)
            result = await self._gate.check(join.room_version, [signed], room_id=room_id)
            if not result.passed:
                raise RemoteUnavailable("The other server has not signed our join as it must")
            await self._incoming.add(server_name, result.passed[0])
            return join.event_id

        async with self._db.connection() as conn:
            candidates = await find_candidates(conn, room_id, user_id, via, server_name=self._server_name)
        return await ask_in_turn(candidates, join_via, clock=self._clock)

    async def _handshake(
        self, via: ServerName, user_id: UserId, room_id: RoomId, content: Mapping[str, Any]
    ) -> tuple[Pdu, SentJoin]:
        template = await self._remote.make_join(via, room_id, user_id)
        join = self._events.after_template(template, room_id=room_id, user_id=user_id, content=content)
        return join, await self._remote.send_join(via, join, omit_members=self._omit_members)
