"""The rooms that two users share.

https://spec.matrix.org/v1.19/client-server-api/#mutual-rooms
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.errors import InvalidParam
from homeserver.core.ids import RoomId, UserId
from homeserver.core.requester import Requester
from storage.database import Database
from storage.discovery import list_mutual_rooms

PAGE_SIZE: Final = 500
_TOKEN: Final = re.compile(r"m(\d{1,10})", re.ASCII)


@dataclass(frozen=True, slots=True)
class MutualRoomsPage:
    """A page of shared rooms.

    Attributes:
        count: how many they share in all.
        next_batch: where the next page starts; None if there is none.
    """

    joined: Sequence[RoomId]
    count: int
    next_batch: str | None


class MutualRooms:
    """Finds the rooms that a user shares with another."""

    def __init__(self, *, db: Database) -> None:
        self._db = db

    async def page(self, requester: Requester, user_id: UserId, *, from_token: str | None) -> MutualRoomsPage:
        """A page of the rooms that both are in; none if there is no such user.

        Raises:
            InvalidParam: the other user is the requester, or the token is none.
        """
        if user_id == requester.user_id:
            raise InvalidParam("You cannot ask for the rooms that you share with yourself")
        after = -1
        if from_token is not None:
            match = _TOKEN.fullmatch(from_token)
            if match is None:
                raise InvalidParam("Unknown pagination token")
            after = int(match[1])
        async with self._db.connection() as conn:
            rooms = await list_mutual_rooms(conn, user_id=requester.user_id, other_user_id=user_id)
        rest = [(room_nid, room_id) for room_nid, room_id in rooms if room_nid > after]
        shown = rest[:PAGE_SIZE]
        return MutualRoomsPage(
            joined=[room_id for _, room_id in shown],
            count=len(rooms),
            next_batch=f"m{shown[-1][0]}" if len(rest) > len(shown) else None,
        )
