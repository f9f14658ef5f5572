"""Through which servers a user may get into a room that this server is not in, and what becomes of asking them in turn.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeVar

from homeserver.core.clock import Clock
from homeserver.core.errors import (
    Forbidden,
    IncompatibleRoomVersion,
    InviteBlocked,
    MatrixError,
    NotFound,
    RemoteRefused,
    RemoteUnavailable,
    UnableToAuthoriseJoin,
    UnableToGrantJoin,
    UnsupportedRoomVersion,
)
from homeserver.core.ids import RoomId, ServerName, UserId
from storage.database import Connection
from storage.invited_states import list_invited_states
from storage.memberships import find_membership
from storage.resident_rooms import list_joined_servers
from storage.rooms import find_room

CANDIDATES_MAX: Final = 20
_REFUSALS_MAX: Final = 3
"""So many servers that know the room and say no are not all mistaken."""
_SECONDS_MAX: Final = 150.0
"""After so long no further server is asked."""

T = TypeVar("T")


async def find_candidates(
    conn: Connection, room_id: RoomId, user_id: UserId, via: Sequence[ServerName], *, server_name: ServerName
) -> list[ServerName]:
    """Servers that may be in a room, the most promising first, without ourselves.

    Args:
        conn: to read with.
        room_id: the room.
        user_id: the local user, whose invitation or knock may tell of servers.
        via: those that the client or an alias has named.
        server_name: ours.
    """
    found = [*via, *await servers_of_membership(conn, room_id, user_id)]
    if room_id.server_name is not None:
        found.append(room_id.server_name)
    room = await find_room(conn, room_id)
    if room is not None:
        # Those who were there when this server left.
        found += await list_joined_servers(conn, room.room_nid, without=user_id)
    return [name for name in dict.fromkeys(found) if name != server_name][:CANDIDATES_MAX]


async def servers_of_membership(conn: Connection, room_id: RoomId, user_id: UserId) -> list[ServerName]:
    """The servers that an outstanding invitation came from, or through which the user has knocked."""
    row = await find_membership(conn, room_id=room_id, user_id=user_id)
    if row is None or row.membership not in ("invite", "knock"):
        return []
    states = await list_invited_states(conn, [row.event_nid])
    named = states[row.event_nid].servers if row.event_nid in states else ()
    return [*([row.sender.server_name] if row.membership == "invite" else []), *named]


async def ask_in_turn(
    candidates: Sequence[ServerName], ask: Callable[[ServerName], Awaitable[T]], *, clock: Clock
) -> T:
    """Asks one server after the other until one does what is wanted.

    Raises:
        NotFound: there is nobody to ask.
        MatrixError: nobody did it; the most telling of their answers, fit for a client.
    """
    errors: list[MatrixError] = []
    started = clock.monotonic()
    for server_name in candidates:
        try:
            return await ask(server_name)
        except (RemoteUnavailable, RemoteRefused, UnsupportedRoomVersion) as error:
            errors.append(for_client(error))
        refusals = sum(_rank(error) < _RANK_NOT_THERE for error in errors)
        if refusals >= _REFUSALS_MAX or clock.monotonic() - started > _SECONDS_MAX:
            break
    if not errors:
        raise NotFound("No known server is in the room")
    raise min(errors, key=_rank)


def for_client(error: MatrixError) -> MatrixError:
    """What a client is told when another server has failed or refused.

    Only codes that mean the same to a client are passed on: what was wrong between the two servers (or that the other
    one does not know ours) is no fault of the client, and must not end its session.
    """
    if not isinstance(error, RemoteRefused):
        return error
    match error.remote_errcode:
        case "M_FORBIDDEN":
            return Forbidden(error.message)
        case "M_INVITE_BLOCKED":
            return InviteBlocked(error.message)
        case "M_NOT_FOUND":
            return NotFound(error.message)
        case "M_UNABLE_TO_AUTHORISE_JOIN":
            return UnableToAuthoriseJoin(error.message)
        case "M_UNABLE_TO_GRANT_JOIN":
            return UnableToGrantJoin(error.message)
        case "M_INCOMPATIBLE_ROOM_VERSION":
            return IncompatibleRoomVersion(error.message, room_version=str(error.extra.get("room_version", "")))
        case "M_UNSUPPORTED_ROOM_VERSION":
            return UnsupportedRoomVersion(error.message)
        case _:
            return RemoteUnavailable(f"The other server has refused: {error.message}")


_RANKS: Final[Sequence[type[MatrixError]]] = (
    IncompatibleRoomVersion,
    UnsupportedRoomVersion,
    Forbidden,
    InviteBlocked,
    UnableToAuthoriseJoin,
    UnableToGrantJoin,
    NotFound,
)
_RANK_NOT_THERE: Final = _RANKS.index(UnableToAuthoriseJoin)


def _rank(error: MatrixError) -> int:
    """How much an error tells; less is more."""
    return next(_matching_ranks(error), len(_RANKS))


def _matching_ranks(error: MatrixError) -> Iterator[int]:
    return (rank for rank, kind in enumerate(_RANKS) if isinstance(error, kind))
