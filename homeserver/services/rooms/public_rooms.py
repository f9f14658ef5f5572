"""The directory of public rooms, page by page.

https://spec.matrix.org/v1.19/client-server-api/#published-room-directory
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from homeserver.core.errors import Forbidden, InvalidParam, NotFound, RemoteRefused, RemoteUnavailable
from homeserver.core.ids import ServerName
from homeserver.services.ports import PublicRoomsRequest, RemotePublicRooms
from homeserver.services.rooms.discovery import public_room_json
from homeserver.services.rooms.remote_summaries import parse_summary
from storage.database import Database
from storage.public_rooms import ListPoint, PublicRoomsFilter, count_public_rooms, list_public_rooms
from storage.room_summaries import RoomSummaryRow

LIMIT_MAX: Final = 100
_WORDS_MAX: Final = 20
_TOKEN: Final = re.compile(r"([np])(0|[1-9][0-9]{0,8})_(!.{1,254})", re.DOTALL)


class PublicRooms:
    """Lists public rooms of this and other servers."""

    def __init__(self, *, db: Database, server_name: ServerName, remote: RemotePublicRooms) -> None:
        self._db = db
        self._server_name = server_name
        self._remote = remote

    async def page(self, request: PublicRoomsRequest, *, server_name: str | None = None) -> Mapping[str, Any]:
        """A page of a server's list, in the form of the client-server API; this server's if none is named.

        Raises:
            InvalidParam: the token is none of this list, or the server's name is none.
            Forbidden, NotFound: the other server refuses.
            RemoteUnavailable: it cannot be asked.
        """
        if server_name is not None and server_name != self._server_name:
            return await self._page_elsewhere(ServerName.parse(server_name), request)
        return await self.local_page(request)

    async def _page_elsewhere(self, server_name: ServerName, request: PublicRoomsRequest) -> Mapping[str, Any]:
        """A page of another server's list; what is not well formed in it is left out."""
        limit = min(request.limit, LIMIT_MAX)
        try:
            answer = await self._remote.public_rooms(server_name, replace(request, limit=limit))
        except RemoteRefused as error:
            # What else it says, for example that it does not know this server's signature, is not the client's affair.
            if error.status not in (Forbidden.default_status, NotFound.default_status):
                raise RemoteUnavailable(f"The server {server_name} has not answered") from error
            raise
        chunk = answer.get("chunk")
        rooms = (parse_summary(each) for each in (chunk[:LIMIT_MAX] if isinstance(chunk, list) else ()))
        body: dict[str, Any] = {"chunk": [room.body for room in rooms if room is not None]}
        for name in ("next_batch", "prev_batch"):
            if isinstance(token := answer.get(name), str) and token:
                body[name] = token
        if type(total := answer.get("total_room_count_estimate")) is int:
            body["total_room_count_estimate"] = total
        return body

    async def local_page(self, request: PublicRoomsRequest) -> Mapping[str, Any]:
        """A page of this server's own list; as `page`."""
        point, backwards = _parse_token(request.since)
        room_filter = _room_filter(request)
        limit = min(request.limit, LIMIT_MAX)
        async with self._db.connection() as conn:
            rooms = await list_public_rooms(conn, room_filter, point=point, backwards=backwards, limit=limit + 1)
            total = await count_public_rooms(conn, room_filter)
        has_more = len(rooms) > limit
        rooms = rooms[:limit]
        if backwards:
            rooms.reverse()
        body: dict[str, Any] = {
            "chunk": [public_room_json(room) for room in rooms],
            "total_room_count_estimate": total,
        }
        if rooms and (backwards or has_more):
            body["next_batch"] = _token("n", rooms[-1])
        if rooms and (has_more if backwards else point is not None):
            body["prev_batch"] = _token("p", rooms[0])
        return body


def _token(way: str, room: RoomSummaryRow) -> str:
    """The point of the list where a room stands, and which way to go on from there: `n`ext or `p`revious."""
    return f"{way}{room.joined_members}_{room.room_id}"


def _parse_token(token: str | None) -> tuple[ListPoint | None, bool]:
    """The point in a token, and whether it leads backwards.

    Raises:
        InvalidParam: it is no token.
    """
    if token is None:
        return None, False
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise InvalidParam("Unknown pagination token")
    return ListPoint(joined_members=int(match[2]), room_id=match[3]), match[1] == "p"


def _room_filter(request: PublicRoomsRequest) -> PublicRoomsFilter:
    """What the database is asked for.

    Raises:
        InvalidParam: one network is wanted, and all at the same time.
    """
    network = request.third_party_instance_id
    if network is not None and request.all_networks:
        raise InvalidParam("third_party_instance_id cannot be combined with include_all_networks")
    appservice_id, _, network_id = (network or "").partition("|")
    return PublicRoomsFilter(
        words=_words(request.search_term),
        room_types=request.room_types,
        all_networks=request.all_networks,
        appservice_id=appservice_id,
        network_id=network_id,
    )


def _words(search_term: str | None) -> Sequence[str]:
    return (search_term or "").split()[:_WORDS_MAX]
