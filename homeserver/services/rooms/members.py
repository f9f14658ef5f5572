"""Who is, or was, in a room.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden
from homeserver.core.ids import RoomId, UserId
from homeserver.core.requester import Requester
from homeserver.core.tokens import HistoryToken, SyncToken
from homeserver.services.rooms.access import ReadableRoom, RoomAccess
from homeserver.services.rooms.elsewhere import Completeness
from homeserver.services.rooms.history_reader import readable_span
from homeserver.services.rooms.state_at import state_after
from homeserver.services.rooms.state_texts import StateTexts
from homeserver.services.rooms.unsigned import with_age
from storage.database import Connection, Database
from storage.history import HistorySpan, find_last_event, history_token
from storage.rooms import find_room
from storage.state import StateStore
from storage.state_events import StateText, is_appservice_joined, list_joined_members, list_state_texts


@dataclass(frozen=True, slots=True)
class MemberProfile:
    """How a member calls itself in a room; None for what it does not say."""

    display_name: str | None
    avatar_url: str | None


class RoomMembers:
    """Lists the members of rooms; where they are not all known yet, it waits for them."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        access: RoomAccess,
        states: StateStore,
        texts: StateTexts,
        completeness: Completeness,
    ) -> None:
        self._db = db
        self._completeness = completeness
        self._access = access
        self._clock = clock
        self._states = states
        self._texts = texts

    async def members(
        self,
        requester: Requester,
        room_id: RoomId,
        *,
        at: HistoryToken | SyncToken | None,
        membership: str | None,
        not_membership: str | None,
    ) -> Sequence[str]:
        """The member events of a room's state, as JSON texts.

        Args:
            requester: who asks; who has left the room sees the members as they were then.
            room_id: the room.
            at: a point of time; None for now.
            membership: the wanted membership; None if it does not matter.
            not_membership: an unwanted one. If both are given, either suffices.

        Raises:
            Forbidden: the user may not read the room, or not at that point.
            UnavailableForNow: it takes too long until all members are known.
        """
        async with self._db.connection() as conn:
            readable = await self._access.require_readable(conn, requester.user_id, room_id)
            state = [] if readable.is_partial else await self._state(conn, requester.user_id, readable, at)
        if readable.is_partial:
            await self._completeness.wait_until_complete(room_id)
            async with self._db.connection() as conn:
                readable = await self._access.require_readable(conn, requester.user_id, room_id)
                state = await self._state(conn, requester.user_id, readable, at)
        now_ms = self._clock.now_ms()
        return [
            with_age(event.client_json, max(0, now_ms - event.origin_server_ts))
            for event in state
            if event.is_member and _is_wanted(event, membership, not_membership)
        ]

    async def _state(
        self, conn: Connection, user_id: UserId, readable: ReadableRoom, token: HistoryToken | SyncToken | None
    ) -> Sequence[StateText]:
        """The state that is asked for."""
        last = readable.departure
        if token is not None:
            span = readable_span(readable)
            point = min(span.upto, await history_token(conn, span.room_nid, token))
            last = await find_last_event(conn, HistorySpan(span.room_nid, upto=point))
            if last is None:
                return []
            if not await self._access.filter_visible(conn, user_id, [last]):
                raise Forbidden("You may not see the room as it was then")
        if last is None:
            return await self._texts.of_room(conn, readable.room)
        return await list_state_texts(conn, (await state_after(conn, self._states, last)).values())

    async def joined_members(self, requester: Requester, room_id: RoomId) -> Mapping[UserId, MemberProfile]:
        """The users who are joined to a room, for one of them, or for an application service that has one of them.

        Raises:
            Forbidden: the user is not in the room.
            UnavailableForNow: it takes too long until all members are known.
        """
        async with self._db.connection() as conn:
            await self._joined_room(conn, requester, room_id)
        await self._completeness.wait_until_complete(room_id)
        async with self._db.connection() as conn:
            room_nid = await self._joined_room(conn, requester, room_id)
            joined = await list_joined_members(conn, room_nid)
        return {user_id: _profile(orjson.loads(text)["content"]) for user_id, text in joined.items()}

    async def _joined_room(self, conn: Connection, requester: Requester, room_id: RoomId) -> int:
        """The number of a room that the requester, or its application service, is joined to."""
        if requester.appservice_id is not None:
            room = await find_room(conn, room_id)
            if room is not None and await is_appservice_joined(conn, requester.appservice_id, room.room_nid):
                return room.room_nid
        return (await self._access.require_joined(conn, requester.user_id, room_id)).room_nid


def _is_wanted(event: StateText, membership: str | None, not_membership: str | None) -> bool:
    if membership is None and not_membership is None:
        return True
    return (membership is not None and event.membership == membership) or (
        not_membership is not None and event.membership != not_membership
    )


def _profile(content: Mapping[str, Any]) -> MemberProfile:
    display_name, avatar_url = content.get("displayname"), content.get("avatar_url")
    return MemberProfile(
        display_name=display_name if isinstance(display_name, str) else None,
        avatar_url=avatar_url if isinstance(avatar_url, str) else None,
    )
