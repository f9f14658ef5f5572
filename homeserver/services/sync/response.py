"""A whole sync response: each section reads the same window, on one connection.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from homeserver.core.ids import UserId
from homeserver.services.sync.account import AccountSections
from homeserver.services.sync.interests import Interests, InterestsOfUsers
from homeserver.services.sync.key_counts import KeyCountsOfDevices
from homeserver.services.sync.membership import SyncedRooms, changed_rooms, initial_rooms
from homeserver.services.sync.recent import Changes, RecentChanges
from homeserver.services.sync.request import SyncRequest, SyncWindow
from homeserver.services.sync.rooms import BuiltRooms, RoomSections
from homeserver.services.sync.sent_members import SentMembers
from homeserver.services.sync.to_device import ToDeviceMessages
from storage import account_data, timelines
from storage.account_data import AccountDataRow
from storage.database import Connection, Database


@dataclass(frozen=True, slots=True)
class SyncResponse:
    """A response.

    Attributes:
        body: its members but `next_batch`; empty if there is nothing to tell.
        beside: members that come with every response, and are no reason to send one.
        upto: the position that it goes up to.
        interests: what concerned the user there.
    """

    body: Mapping[str, Any]
    beside: Mapping[str, Any]
    upto: int
    interests: Interests


class SyncResponses:
    """Builds the response for one window."""

    def __init__(
        self,
        *,
        db: Database,
        recent: RecentChanges,
        interests: InterestsOfUsers,
        to_device: ToDeviceMessages,
        key_counts: KeyCountsOfDevices,
        rooms: RoomSections,
        account: AccountSections,
        sent_members: SentMembers,
    ) -> None:
        self._db = db
        self._recent = recent
        self._interests = interests
        self._to_device = to_device
        self._key_counts = key_counts
        self._rooms = rooms
        self._account = account
        self._sent_members = sent_members

    async def build(self, request: SyncRequest, window: SyncWindow) -> SyncResponse:
        """The response for a window, or for the first part of it where there is very much to tell."""
        quiet = self._find_quiet(request, window)
        if quiet is not None:
            return quiet
        user_id = request.requester.user_id
        async with self._db.connection_if_needed() as conn:
            await self._recent.catch_up(conn, window.upto)
            if not window.is_initial:
                await self._to_device.confirm(conn, request.requester, window.since)
            to_device, window = await self._to_device.read(conn, request.requester, window)
            counts = await self._key_counts.read(conn, request.requester, window)
            interests = await self._interests.at(conn, user_id, window.upto)
            changes = Changes()
            if not window.is_initial:
                changes = await self._recent.read(
                    conn, user_id, interests.joined.keys(), since=window.since, upto=window.upto
                )
            data = []
            if changes.user:
                data = await account_data.list_changed(conn, user_id, since=window.since, upto=window.upto)
            rooms = await _rooms(conn, request, window, interests, changes, data)
            built = await self._rooms.build(
                conn, request, window, rooms, changes, data, ignored_users=interests.ignored
            )
            body = await self._account.build(
                conn,
                request,
                window,
                changes,
                data,
                newcomers=await self._newcomers(conn, request, window, rooms, built),
                ignored_users=interests.ignored,
            )
        if built.sections:
            body["rooms"] = built.sections
        if to_device:
            body["to_device"] = {"events": to_device}
        if counts.is_news:
            body |= counts.body
        return SyncResponse(body, counts.body, window.upto, interests)

    def _find_quiet(self, request: SyncRequest, window: SyncWindow) -> SyncResponse | None:
        """The empty response, where memory alone tells that there is nothing; it costs next to nothing."""
        requester = request.requester
        known = self._interests.find_remembered(requester.user_id)
        if window.is_initial or request.full_state or known is None or not self._recent.reaches(window.upto):
            return None
        since = min(window.since, known.position)
        changes = self._recent.find_remembered(requester.user_id, known.joined.keys(), since=since)
        counts = self._key_counts.find_remembered(requester)
        if changes is None or changes.is_any or counts is None:
            return None
        if not self._to_device.is_confirmed(requester, window.since):
            return None
        if request.filter.room.state.lazy_load_members:
            device = (requester.user_id, requester.device_id)
            self._sent_members.note(device, {}, since=window.since, upto=window.upto)
        return SyncResponse({}, counts, window.upto, known)

    async def _newcomers(
        self, conn: Connection, request: SyncRequest, window: SyncWindow, rooms: SyncedRooms, built: BuiltRooms
    ) -> Collection[UserId]:
        """Those with whom the user has begun to share a room: of a first sync nobody, for that tells of all."""
        if window.is_initial or not self._account.tells_presence(request):
            return ()
        entered = [room.room_nid for room in rooms.joined if room.is_new]
        return await timelines.list_newcomers(
            conn, request.requester.user_id, entered=entered, changed=built.changed_members, since=window.since
        )


async def _rooms(
    conn: Connection,
    request: SyncRequest,
    window: SyncWindow,
    interests: Interests,
    changes: Changes,
    data: Collection[AccountDataRow],
) -> SyncedRooms:
    """The rooms of the response: all of them in a first sync, then those where something happened."""
    user_id, room_filter = request.requester.user_id, request.filter.room
    if window.is_initial:
        return await initial_rooms(conn, user_id, window, room_filter, interests)
    tagged = {row.room_id for row in data}
    active = changes.rooms
    if tagged:
        active |= {room_nid for room_nid, room_id in interests.joined.items() if room_id in tagged}
    return await changed_rooms(
        conn,
        user_id,
        window,
        room_filter,
        interests,
        active=active,
        has_moved=changes.user,
        is_full=request.full_state,
    )
