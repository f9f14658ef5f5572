"""Other servers, as far as what reads rooms asks them: by value, and counting how often."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from homeserver.core.errors import MatrixError, NotFound, RemoteRefused, RemoteUnavailable
from homeserver.core.ids import EventId, RoomAlias, RoomId, ServerName, UserId
from homeserver.core.tokens import HistoryToken
from homeserver.services.no_remotes import NoRemoteEvents
from homeserver.services.ports import PublicRoomsRequest
from homeserver.services.remote import HierarchyAnswer
from storage.rooms import RoomRow

OTHER = ServerName("other.example")
THIRD = ServerName("third.example")


def refusal(status: int, errcode: str) -> RemoteRefused:
    """An error that a server has answered with."""
    return RemoteRefused("It said no", remote_errcode=errcode, status=status)


def summary(room_id: str, **members: Any) -> dict[str, Any]:
    """What a server says of a room."""
    return {
        "room_id": room_id,
        "num_joined_members": 3,
        "world_readable": False,
        "guest_can_join": False,
        "join_rule": "public",
        **members,
    }


def child(room_id: str, *, via: Sequence[str] = (OTHER,), **content: Any) -> dict[str, Any]:
    """A stripped `m.space.child` event."""
    return {
        "type": "m.space.child",
        "state_key": room_id,
        "sender": "@bob:other.example",
        "origin_server_ts": 1,
        "content": {"via": list(via), **content},
    }


def space(room_id: str, *children: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    """What a server says of a space."""
    return summary(room_id, room_type="m.space", children_state=list(children), **members)


@dataclass
class Directories:
    """The directories of other servers.

    Attributes:
        aliases: where aliases point to.
        rooms: what servers answer about rooms, or the error that they answer with.
        lists: their public rooms, or the error.
        asked: all questions, in order.
    """

    aliases: dict[str, tuple[str, Sequence[str]]] = field(default_factory=dict)
    rooms: dict[tuple[str, str], HierarchyAnswer | MatrixError] = field(default_factory=dict)
    lists: dict[str, Mapping[str, Any] | MatrixError] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def tell(self, server: str, room: dict[str, Any], *children: dict[str, Any], hidden: Sequence[str] = ()) -> None:
        """Lets a server know of a room."""
        self.rooms[server, room["room_id"]] = HierarchyAnswer(
            room=room, children=children, inaccessible_children=[RoomId(each) for each in hidden]
        )

    async def find_room(self, alias: RoomAlias) -> tuple[RoomId, Sequence[ServerName]] | None:
        """Where an alias points to."""
        self.asked.append(("alias", alias))
        if alias not in self.aliases:
            return None
        room_id, servers = self.aliases[alias]
        return RoomId(room_id), [ServerName(each) for each in servers]

    async def hierarchy(self, via: ServerName, room_id: RoomId, *, suggested_only: bool) -> HierarchyAnswer:
        """A room and its children."""
        self.asked.append(("hierarchy", via, room_id))
        answer = self.rooms.get((via, room_id), refusal(404, "M_NOT_FOUND"))
        if isinstance(answer, MatrixError):
            raise answer
        return answer

    async def public_rooms(self, server_name: ServerName, request: PublicRoomsRequest) -> Mapping[str, Any]:
        """A page of a server's list."""
        self.asked.append(("list", server_name, str(request.limit), str(request.search_term)))
        answer = self.lists.get(server_name, RemoteUnavailable("It is away"))
        if isinstance(answer, MatrixError):
            raise answer
        return answer


@dataclass
class Profiles:
    """The profiles of other servers' users."""

    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def query_profile(self, user_id: UserId, *, field: str | None = None) -> Mapping[str, Any]:
        """A profile, or a field of it."""
        profile = self.known.get(user_id)
        if profile is None or (field is not None and field not in profile):
            raise NotFound("There is no such profile or field")
        return profile if field is None else {field: profile[field]}


@dataclass
class Times(NoRemoteEvents):
    """Servers that know events by their time."""

    answers: dict[str, tuple[str, int] | MatrixError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def timestamp_to_event(
        self, via: ServerName, room_id: RoomId, *, ts: int, direction: Literal["f", "b"]
    ) -> tuple[EventId, int]:
        """The event that a server knows."""
        self.asked.append(via)
        answer = self.answers.get(via, RemoteUnavailable("It is away"))
        if isinstance(answer, MatrixError):
            raise answer
        return EventId(answer[0]), answer[1]


@dataclass
class Past:
    """What fetches history: it tells whether there is more, and what it was asked for."""

    outcomes: list[bool] = field(default_factory=list)
    reached: list[tuple[RoomId, HistoryToken, int]] = field(default_factory=list)
    fetched: list[tuple[str, str]] = field(default_factory=list)
    on_fetch: Any = None

    async def reach(self, room: RoomRow, at: HistoryToken, *, limit: int) -> bool:
        """Fetches what precedes a point."""
        self.reached.append((room.room_id, at, limit))
        if self.on_fetch is not None:
            await self.on_fetch()
        return self.outcomes.pop(0) if self.outcomes else False

    async def fetch_event(self, room: RoomRow, via: ServerName, event_id: EventId) -> bool:
        """Fetches one event."""
        self.fetched.append((via, event_id))
        if self.on_fetch is not None:
            await self.on_fetch()
        return self.outcomes.pop(0) if self.outcomes else False
