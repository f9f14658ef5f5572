"""Another server in a room, in memory: it makes and signs events, and answers what other servers are asked.

It is honest as long as nobody changes its answers: it does not give `withheld` events, and `lies` in place of others.
It judges what it sees with the same functions as the simulation of rooms.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from homeserver.core.errors import RemoteRefused, RemoteUnavailable
from homeserver.core.event_auth.auth_events import create_event_id
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu, StateMap
from homeserver.core.room_versions import RoomVersion
from homeserver.core.signing import SigningKey
from homeserver.services.remote import EventJson, KeyWish, ServerKey, StateEvents, StateIds
from tests.simulation.room import Server

FAR_FUTURE = 2**53


def key_of(server_name: str) -> SigningKey:
    """The signing key of a server in tests."""
    return SigningKey.from_seed("a_test", server_name.encode().ljust(32, b"-")[:32])


@dataclass
class KnownKeys:
    """Keys that can be had, by server and key id; it satisfies `ServerKeys`."""

    keys: dict[tuple[ServerName, str], ServerKey] = field(default_factory=dict)
    wishes: list[KeyWish] = field(default_factory=list)

    def add(self, server_name: ServerName, key: SigningKey, *, valid_until_ts: int = FAR_FUTURE) -> None:
        self.keys[(server_name, key.key_id)] = ServerKey(key.verify_key, valid_until_ts)

    async def fetch(self, wishes: Collection[KeyWish]) -> Mapping[tuple[ServerName, str], ServerKey]:
        self.wishes += wishes
        names = {(wish.server_name, wish.key_id) for wish in wishes}
        return {name: key for name, key in self.keys.items() if name in names}


@dataclass
class RemoteRoom:
    """A room as another server has it; it satisfies `RemoteEvents`.

    Attributes:
        now: the time of its next event.
        withheld: events that it does not give to others.
        lies: what it gives in place of an event.
        asked: the names of the requests that it was sent.
        gives_missing_events: whether it answers to `get_missing_events`.
        is_away: it cannot be reached.
    """

    name: ServerName
    room_id: RoomId
    room_version: RoomVersion
    now: int = 1_700_000_000_000
    server: Server = field(init=False)
    withheld: set[EventId] = field(default_factory=set)
    lies: dict[EventId, EventJson] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    gives_missing_events: bool = True
    is_away: bool = False

    def __post_init__(self) -> None:
        self.server = Server(self.name, self.room_version, key_of(self.name), [])

    def user(self, localpart: str) -> UserId:
        return UserId(f"@{localpart}:{self.name}")

    def make(
        self, event_type: str, content: Mapping[str, Any], *, sender: UserId, state_key: str | None = None, **place: Any
    ) -> Pdu:
        """An event that it does not take into its room yet; see `Server.make`."""
        self.now += 1
        return self.server.make(
            sender, event_type, content, state_key=state_key, room_id=self.room_id, now=self.now, **place
        )

    def send(
        self, event_type: str, content: Mapping[str, Any], *, sender: UserId, state_key: str | None = None, **place: Any
    ) -> Pdu:
        """An event that it takes into its room."""
        pdu = self.make(event_type, content, sender=sender, state_key=state_key, **place)
        self.server.receive(pdu)
        return pdu

    def join(self, user_id: UserId, **place: Any) -> Pdu:
        return self.send("m.room.member", {"membership": "join"}, sender=user_id, state_key=user_id, **place)

    def say(self, body: str, *, sender: UserId, **place: Any) -> Pdu:
        return self.send("m.room.message", {"msgtype": "m.text", "body": body}, sender=sender, **place)

    def auth_chain(self, event_ids: Collection[EventId]) -> list[EventId]:
        found: dict[EventId, None] = {}
        waiting = list(event_ids)
        while waiting:
            event_id = waiting.pop()
            cited = list(self.server.events[event_id].auth_events)
            if self.room_version.room_id_is_create_hash and self.server.events[event_id].type != "m.room.create":
                cited.append(create_event_id(self.room_id))
            waiting += [each for each in cited if each not in found]
            found |= dict.fromkeys(cited)
        return list(found)

    def _given(self, event_ids: Collection[EventId]) -> list[EventJson]:
        return [
            self.lies.get(event_id, self.server.events[event_id].json)
            for event_id in event_ids
            if event_id not in self.withheld
        ]

    def _require(self, event_id: EventId) -> None:
        if event_id not in self.server.events or event_id in self.withheld:
            raise RemoteRefused("Unknown event", remote_errcode="M_NOT_FOUND", status=404)

    def _state_before(self, event_id: EventId) -> StateMap:
        self._require(event_id)
        return self.server.states_before[event_id]

    async def event(self, via: ServerName, event_id: EventId) -> EventJson:
        self.asked.append("event")
        self._require(event_id)
        return self._given([event_id])[0]

    async def get_missing_events(
        self,
        via: ServerName,
        room_id: RoomId,
        *,
        earliest: Collection[EventId],
        latest: Collection[EventId],
        limit: int,
        min_depth: int = 0,
    ) -> Sequence[EventJson]:
        self.asked.append("get_missing_events")
        if not self.gives_missing_events:
            raise RemoteRefused("No", remote_errcode="M_FORBIDDEN", status=403)
        found: dict[EventId, None] = {}
        waiting = [each for event_id in latest if event_id in self.server.events for each in self._before(event_id)]
        while waiting and len(found) < min(limit, 20):
            event_id = waiting.pop(0)
            if event_id not in found and event_id not in earliest:
                found[event_id] = None
                waiting += self._before(event_id)
        return self._given(list(reversed(found)))

    def _before(self, event_id: EventId) -> tuple[EventId, ...]:
        return self.server.events[event_id].prev_events

    async def backfill(
        self, via: ServerName, room_id: RoomId, event_ids: Collection[EventId], *, limit: int
    ) -> Sequence[EventJson]:
        self.asked.append("backfill")
        found: dict[EventId, None] = {}
        waiting = [event_id for event_id in event_ids if event_id in self.server.events]
        while waiting and len(found) < limit:
            event_id = waiting.pop(0)
            if event_id not in found:
                found[event_id] = None
                waiting += self._before(event_id)
        return self._given(list(found))

    async def event_auth(self, via: ServerName, room_id: RoomId, event_id: EventId) -> Sequence[EventJson]:
        self.asked.append("event_auth")
        self._require(event_id)
        return self._given(self.auth_chain([event_id]))

    async def state_ids(self, via: ServerName, room_id: RoomId, event_id: EventId) -> StateIds:
        self.asked.append("state_ids")
        state = list(self._state_before(event_id).values())
        return StateIds(state, self.auth_chain(state))

    async def state(self, via: ServerName, room_id: RoomId, event_id: EventId) -> StateEvents:
        self.asked.append("state")
        state = list(self._state_before(event_id).values())
        return StateEvents(self._given(state), self._given(self.auth_chain(state)))

    async def timestamp_to_event(
        self, via: ServerName, room_id: RoomId, *, ts: int, direction: Literal["f", "b"]
    ) -> tuple[EventId, int]:
        raise RemoteRefused("Unknown", remote_errcode="M_NOT_FOUND", status=404)


@dataclass
class ByServer:
    """Answers for several servers by their names; it satisfies `RemoteEvents`."""

    rooms: dict[ServerName, RemoteRoom] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        async def ask(via: ServerName, *args: Any, **options: Any) -> Any:
            if self.rooms[via].is_away:
                raise RemoteUnavailable(f"{via} is away")
            return await getattr(self.rooms[via], name)(via, *args, **options)

        return ask
