"""A server with the endpoints of receipts, typing and presence, its background tasks, and listeners like syncs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from client_api.sections import presence as presence_section
from client_api.sections import read_markers as read_markers_section
from client_api.sections import receipts as receipts_section
from client_api.sections import typing as typing_section
from homeserver.config.schema import PresenceConfig
from homeserver.core.ids import RoomId, UserId
from homeserver.core.requester import Requester
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.ephemeral.receipts import Receipts
from homeserver.services.ephemeral.typing import Typing
from homeserver.services.stream.hub import Hub, StreamKeys
from storage import account_data, memberships
from storage.account_data import SELECT_ACCOUNT_DATA_KEYS
from storage.database import Database
from storage.positions import stream_position
from storage.presence import SELECT_PRESENCE_KEYS
from storage.receipts import SELECT_RECEIPT_KEYS, list_changed_receipts
from storage.typing import SELECT_TYPING_KEYS, typing_in
from tests.api.rooms.api import RoomsApi, User, rooms_api
from tests.fast_clock import FastClock
from tests.web.harness import Reply, Web, web

WAIT_SECONDS = 5.0
STREAMS = (
    StreamKeys("account_data", SELECT_ACCOUNT_DATA_KEYS),
    StreamKeys("presence", SELECT_PRESENCE_KEYS),
    StreamKeys("receipts", SELECT_RECEIPT_KEYS),
    StreamKeys("typing", SELECT_TYPING_KEYS),
)

Receipt = tuple[str, str, str | None, str]


@dataclass
class News:
    """What a sync would tell.

    Attributes:
        receipts: user, type, thread and event of each.
        typing: who types, by room; None for rooms where that has not changed.
        presence: the contents, by user.
        fully_read: the event of the fully read marker, by room.
    """

    receipts: set[Receipt] = field(default_factory=set)
    typing: dict[str, list[str]] = field(default_factory=dict)
    presence: dict[str, dict[str, Any]] = field(default_factory=dict)
    fully_read: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.receipts or self.typing or self.presence or self.fully_read)


class Listener:
    """A client that listens as `/sync` does: subscribe, ask for the bound, read between two positions, wait."""

    def __init__(self, api: "EphemeralApi", user_id: UserId) -> None:
        self._api = api
        self._user_id = user_id
        self._since = 0

    async def read(self) -> News:
        """All that is new by now; who reads earlier may have to wait for transactions that are open elsewhere."""
        async with self._api.db.transaction() as conn:
            now = await stream_position(conn)
        async with asyncio.timeout(WAIT_SECONDS):
            while (upto := await self._api.hub.bound()) <= now:
                await self._api.clock.sleep(0.1)
        return await self._read(upto)

    async def caught_up(self) -> "Listener":
        """The same listener, which has heard all that is new by now."""
        await self.read()
        return self

    async def expect(self, condition: Callable[[News], bool]) -> News:
        """Waits for news that are as they should be, with a limit."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                with self._api.hub.subscribe(await self._keys()) as waiter:
                    upto = await self._api.hub.bound()
                    news = await self._read(upto)
                    if condition(news):
                        return news
                    await waiter.wait(WAIT_SECONDS, upto=upto)

    async def _keys(self) -> Collection[str]:
        async with self._api.db.connection() as conn:
            rooms = await memberships.list_rooms_of_user(conn, self._user_id, ("join",))
        kinds = ("room", "presence")
        return {f"user:{self._user_id}"} | {f"{kind}:{room.room_id}" for room in rooms for kind in kinds}

    async def _read(self, upto: int) -> News:
        since, self._since = self._since, upto
        async with self._api.db.connection() as conn:
            joined = await memberships.list_rooms_of_user(conn, self._user_id, ("join",))
            rooms = {room.room_nid: room.room_id for room in joined}
            receipts = await list_changed_receipts(
                conn, rooms.keys(), since=since, upto=upto, user_id=self._user_id, limit_per_room=100
            )
            typing = await typing_in(conn, rooms.keys(), since=since, upto=upto)
            presence = await self._api.presence.changed(conn, self._user_id, since=since, upto=upto)
            data = await account_data.list_changed(conn, self._user_id, since=since, upto=upto)
        return News(
            receipts={(row.user_id, row.receipt_type, row.thread_id, row.event_id) for row in receipts},
            typing={rooms[room_nid]: list(user_ids) for room_nid, user_ids in typing.items()},
            presence={event["sender"]: event["content"] for event in presence},
            fully_read={
                row.room_id: orjson.loads(row.content)["event_id"]
                for row in data
                if row.room_id and row.type == "m.fully_read"
            },
        )


@dataclass
class Person:
    """A user of the server under test, in its rooms and beyond."""

    api: "EphemeralApi"
    rooms: User

    @property
    def user_id(self) -> UserId:
        """Its id."""
        return self.rooms.user_id

    @property
    def requester(self) -> Requester:
        """What its requests come with."""
        return self.rooms.requester

    def listener(self) -> Listener:
        """A client of its own that has not heard anything."""
        return Listener(self.api, self.user_id)

    async def call(self, method: str, target: str, body: Any = None) -> Reply:
        """Sends a request; `target` begins below `/_matrix/client/v3`."""
        content = b"" if body is None and method == "GET" else {} if body is None else body
        return await self.api.web.call(method, f"/_matrix/client/v3{target}", body=content, token=self.rooms.token)

    async def read(self, room_id: str, event_id: str, *, receipt_type: str = "m.read", **body: Any) -> Reply:
        """Puts a receipt."""
        return await self.call("POST", f"/rooms/{quote(room_id)}/receipt/{receipt_type}/{quote(event_id)}", body)

    async def mark(self, room_id: str, **markers: str) -> Reply:
        """Moves markers: `fully_read`, `read`, `read_private`."""
        body = {"m." + name.replace("read_private", "read.private"): event_id for name, event_id in markers.items()}
        return await self.call("POST", f"/rooms/{quote(room_id)}/read_markers", body)

    async def type(self, room_id: str, *, user_id: str | None = None, **body: Any) -> Reply:
        """Begins or stops typing."""
        return await self.call("PUT", f"/rooms/{quote(room_id)}/typing/{quote(user_id or self.user_id)}", body)

    async def set_presence(self, *, user_id: str | None = None, **body: Any) -> Reply:
        """Sets presence."""
        return await self.call("PUT", f"/presence/{quote(user_id or self.user_id)}/status", body)

    async def get_presence(self, user_id: str) -> Reply:
        """Reads presence."""
        return await self.call("GET", f"/presence/{quote(user_id)}/status")


@dataclass
class EphemeralApi:
    """The server."""

    rooms: RoomsApi
    web: Web
    hub: Hub
    db: Database
    clock: FastClock
    presence: Presence
    typing: Typing
    receipts: Receipts

    async def person(self, name: str) -> Person:
        """Makes a user."""
        user = await self.rooms.user(name)
        self.web.accounts.sessions[name] = user.requester
        return Person(self, user)

    async def room(self, *people: Person) -> RoomId:
        """A room of these users, made by the first."""
        room_id = await people[0].rooms.create(preset="public_chat")
        for person in people[1:]:
            await person.rooms.join(room_id)
        return RoomId(room_id)

    async def remote_member(self, room_id: str, user_id: str) -> None:
        """Puts a user of another server into a room, as far as memberships go."""
        async with self.db.connection() as conn:
            await conn.execute(
                "INSERT INTO memberships (user_id, room_nid, membership, event_nid, sender)"
                " SELECT $2, room_nid, 'join', 1, $2 FROM rooms WHERE room_id = $1",
                room_id,
                user_id,
            )


@asynccontextmanager
async def ephemeral_api(
    database_url: str, *, presence_config: PresenceConfig | None = None
) -> AsyncIterator[EphemeralApi]:
    """A server with the endpoints of this folder on a database, and its background tasks."""
    clock = FastClock()
    async with rooms_api(database_url) as rooms:
        db, bus = rooms.db, rooms.bus
        hub = Hub(db=db, bus=bus, clock=clock, streams=STREAMS)
        presence = Presence(db=db, clock=clock, config=presence_config or PresenceConfig())
        typing = Typing(db=db, bus=bus, clock=clock, presence=presence)
        receipts = Receipts(db=db, bus=bus, clock=clock, presence=presence)
        sections = (
            receipts_section.section(receipts),
            read_markers_section.section(receipts),
            typing_section.section(typing),
            presence_section.section(presence),
        )
        async with web(*sections) as served, asyncio.TaskGroup() as tasks:
            served.accounts.sessions.clear()
            running = [tasks.create_task(run()) for run in (hub.run, presence.run, typing.run)]
            yield EphemeralApi(rooms, served, hub, db, clock, presence, typing, receipts)
            for task in running:
                task.cancel()
