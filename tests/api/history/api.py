"""A server with the endpoints that read rooms, and with those that fill them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any
from urllib.parse import quote, urlencode

from client_api.sections import account_data, old_sync, receipts, typing
from client_api.sections import presence as presence_section
from homeserver.config.schema import Config, DatabaseConfig, LimitsConfig
from homeserver.core.ids import DeviceId, RoomId, ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.core.signing import SigningKey
from homeserver.runtime.accounts import Means
from homeserver.runtime.incoming import compose_incoming
from homeserver.runtime.memberships_elsewhere import compose_memberships_elsewhere
from homeserver.runtime.other_servers import Remotes
from homeserver.runtime.reading import compose_reading
from homeserver.runtime.room_writing import compose_room_writing
from homeserver.runtime.rooms import Rooms, compose_rooms
from homeserver.services.accounts.account_data import AccountData
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.ephemeral.receipts import Receipts
from homeserver.services.ephemeral.typing import Typing
from homeserver.services.rooms.event_stream import EventStream
from homeserver.services.rooms.initial_sync import InitialSync
from homeserver.services.stream.hub import Hub, StreamKeys
from storage.bus.memory import MemoryBus
from storage.database import Database, DatabaseUsage, measure_database
from storage.presence import SELECT_PRESENCE_KEYS
from storage.users import insert_user
from tests.fast_clock import FastClock
from tests.rooms.workers import NoPush
from tests.web.harness import Reply, Web, web

SERVER = ServerName("example.org")
KEY = SigningKey.from_seed("a_test", bytes(32))
CONFIG = Config(server_name=SERVER)


class NoRoomRules:
    """Push rules of rooms that nobody has."""

    async def copy_room_rules(self, user_id: UserId, *, old_room_id: RoomId, new_room_id: RoomId) -> None:
        """Copies none."""


@dataclass
class User:
    """A user of the server under test."""

    server: "ReadingServer"
    requester: Requester
    token: str

    @property
    def user_id(self) -> UserId:
        """Its id."""
        return self.requester.user_id

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Reply:
        """Sends a request. A path that does not begin with `/_` lies below `/_matrix/client/v3`."""
        content = b"" if body is None and method == "GET" else body or {}
        return await self.server.call(method, path, content, token=self.token, **query)

    async def get(self, path: str, **query: Any) -> Any:
        """The answer to a GET that must succeed."""
        return succeeded(await self.call("GET", path, **query))

    async def post(self, path: str, **body: Any) -> Any:
        """The answer to a POST that must succeed."""
        return succeeded(await self.call("POST", path, body))

    async def put(self, path: str, body: Any) -> Any:
        """The answer to a PUT that must succeed."""
        return succeeded(await self.call("PUT", path, body))

    async def create(self, **body: Any) -> RoomId:
        """Creates a room, of a version that names its domain."""
        return RoomId((await self.post("/createRoom", **body))["room_id"])

    async def join(self, room_id: str) -> None:
        """Joins a room."""
        await self.post(f"/rooms/{quote(room_id)}/join")

    async def leave(self, room_id: str) -> None:
        """Leaves a room."""
        await self.post(f"/rooms/{quote(room_id)}/leave")

    async def invite(self, room_id: str, other: "User") -> None:
        """Invites somebody."""
        await self.post(f"/rooms/{quote(room_id)}/invite", user_id=other.user_id)

    async def send(self, room_id: str, body: str = "hello", *, relates_to: Any = None, **more: Any) -> str:
        """Sends a text message; the event's id."""
        content: dict[str, Any] = {"msgtype": "m.text", "body": body, **more}
        if relates_to is not None:
            content["m.relates_to"] = relates_to
        return await self.send_event(room_id, "m.room.message", content)

    async def send_event(self, room_id: str, event_type: str, content: Any) -> str:
        """Sends an event that is no state; its id."""
        path = f"/rooms/{quote(room_id)}/send/{event_type}/txn{next(self.server.numbers)}"
        return str((await self.put(path, content))["event_id"])

    async def set_state(self, room_id: str, event_type: str, content: Any, state_key: str = "") -> str:
        """Sets a state event; its id."""
        path = f"/rooms/{quote(room_id)}/state/{event_type}/{quote(state_key, safe='')}"
        return str((await self.put(path, content))["event_id"])

    async def redact(self, room_id: str, event_id: str) -> None:
        """Redacts an event."""
        await self.put(f"/rooms/{quote(room_id)}/redact/{quote(event_id)}/txn{next(self.server.numbers)}", {})

    async def ignore(self, *others: "User") -> None:
        """Ignores these users and nobody else."""
        content = {"ignored_users": {str(other.user_id): {} for other in others}}
        await self.put(f"/user/{self.user_id}/account_data/m.ignored_user_list", content)

    async def messages(self, room_id: str, **query: Any) -> Any:
        """A page of a room's history, backwards unless it is said."""
        return await self.get(f"/rooms/{quote(room_id)}/messages", **{"dir": "b", **query})


@dataclass
class ReadingServer:
    """The server."""

    web: Web
    db: Database
    bus: MemoryBus
    hub: Hub
    rooms: Rooms
    numbers: "count[int]" = field(default_factory=lambda: count(1))

    async def user(self, name: str, **traits: Any) -> User:
        """Makes a user, whose token is its name."""
        user_id = UserId.make(name, SERVER)
        requester = Requester(user_id, DeviceId(f"{name}-device"), **traits)
        async with self.db.connection() as conn:
            await insert_user(
                conn,
                user_id,
                password_hash=None,
                created_ts=0,
                is_guest=requester.is_guest,
                appservice_id=requester.appservice_id,
            )
        self.web.accounts.sessions[name] = requester
        return User(self, requester, name)

    def other_device(self, user: User) -> User:
        """The same user at another device."""
        token = f"{user.token}-other"
        requester = replace(user.requester, device_id=DeviceId(token))
        self.web.accounts.sessions[token] = requester
        return User(self, requester, token)

    async def call(self, method: str, path: str, body: Any = b"", *, token: str | None = None, **query: Any) -> Reply:
        """Sends a request, without a session unless a token is given."""
        if not path.startswith("/_"):
            path = f"/_matrix/client/v3{path}"
        target = f"{quote(path, safe='/%')}?{urlencode(query, doseq=True)}" if query else quote(path, safe="/%")
        return await self.web.call(method, target, body=body, token=token)

    async def statements_of(self, user: User, path: str, **query: Any) -> DatabaseUsage:
        """How much of the database a GET uses that must succeed."""
        with measure_database() as usage:
            await user.get(path, **query)
        return usage


def succeeded(reply: Reply) -> Any:
    """The body of an answer that must be a success."""
    assert reply.status == 200, reply.body
    return reply.json


def refused(reply: Reply, status: int, errcode: str) -> None:
    """Checks that a request was refused in this way."""
    assert (reply.status, reply.json["errcode"]) == (status, errcode), reply.body


def event_ids(events: Any) -> list[str]:
    """The ids of events."""
    return [event["event_id"] for event in events]


def bodies(events: Any) -> list[str]:
    """The texts of those events that are messages and have one."""
    return [event["content"]["body"] for event in events if "body" in event["content"]]


@asynccontextmanager
async def reading_server(
    database_url: str, *, config: Config = CONFIG, remotes: Remotes | None = None, **missing: Any
) -> AsyncIterator[ReadingServer]:
    """A server on a database; `remotes` are the other servers, `missing` is what fetches history of theirs."""
    clock, bus = FastClock(speed=1), MemoryBus()
    async with Database(database_url, DatabaseConfig(pool_size_max=12)) as db:
        hub = Hub(db=db, bus=bus, clock=clock, streams=(StreamKeys("presence", SELECT_PRESENCE_KEYS),))
        means = Means(config=config, db=db, bus=bus, clock=clock)
        remotes = remotes or Remotes()
        writing = compose_room_writing(means, key=KEY, push=NoPush(), remotes=remotes)
        incoming = compose_incoming(means, writing=writing, remotes=remotes, push=NoPush())
        elsewhere = compose_memberships_elsewhere(means, key=KEY, writing=writing, incoming=incoming, remotes=remotes)
        rooms = compose_rooms(
            means,
            writing=writing,
            incoming=incoming,
            elsewhere=elsewhere,
            remotes=remotes,
            room_rules=NoRoomRules(),
        )
        presence = Presence(db=db, clock=clock, config=config.presence)
        reading = compose_reading(means, rooms, remotes=remotes, **missing)
        means_of_old: Any = {
            "db": db,
            "hub": hub,
            "access": rooms.access,
            "renderer": rooms.renderer,
            "presence": presence,
        }
        stream = EventStream(clock=clock, **means_of_old)
        initial = InitialSync(states=rooms.states, **means_of_old)
        sections = [
            *rooms.sections,
            *reading.sections,
            old_sync.section(stream, initial, reading.contexts, presence, LimitsConfig()),
            account_data.section(AccountData(db=db, bus=bus)),
            receipts.section(Receipts(db=db, bus=bus, clock=clock, presence=presence)),
            typing.section(Typing(db=db, bus=bus, clock=clock, presence=presence)),
            presence_section.section(presence),
        ]
        async with web(*sections, clock=clock) as served, asyncio.TaskGroup() as background:
            served.accounts.sessions.clear()
            running = [background.create_task(run()) for run in (hub.run, bus.run, presence.run)]
            yield ReadingServer(served, db, bus, hub, rooms)
            for task in running:
                task.cancel()
