"""A whole sync response: each section reads the same window, on one connection.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from typing import Any

from homeserver.services.sync.account import AccountSections
from homeserver.services.sync.membership import synced_rooms
from homeserver.services.sync.request import SyncRequest, SyncWindow
from homeserver.services.sync.rooms import RoomSections
from homeserver.services.sync.to_device import read_to_device
from storage.account_data import ignored_users
from storage.database import Database


class SyncResponses:
    """Builds the response for one window."""

    def __init__(self, *, db: Database, rooms: RoomSections, account: AccountSections) -> None:
        self._db = db
        self._rooms = rooms
        self._account = account

    async def build(self, request: SyncRequest, window: SyncWindow) -> tuple[dict[str, Any], int]:
        """The response without `next_batch`, empty if there is nothing to tell; and the position that it goes up to."""
        user_id = request.requester.user_id
        async with self._db.connection() as conn:
            to_device, window = await read_to_device(conn, request.requester, window)
            ignored = await ignored_users(conn, user_id)
            rooms = await synced_rooms(
                conn,
                user_id,
                window,
                request.filter.room,
                ignored_users=ignored,
                keep_fresh=request.full_state,
            )
            sections = await self._rooms.build(conn, request, window, rooms, ignored_users=ignored)
            body = await self._account.build(conn, request, window, rooms, ignored_users=ignored)
        if sections:
            body["rooms"] = sections
        if to_device:
            body["to_device"] = {"events": to_device}
        return body, window.upto
