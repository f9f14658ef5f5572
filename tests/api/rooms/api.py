"""The endpoints of rooms over ASGI, with users whose access token is their name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any
from urllib.parse import quote

from client_api.sections import (
    create_room,
    joined_rooms,
    room_membership,
    room_redaction,
    room_send,
    room_state,
    room_upgrade,
)
from homeserver.config.schema import DatabaseConfig, DirectoryConfig, RoomsConfig
from homeserver.core.ids import DeviceId, RoomId, ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.core.signing import SigningKey
from homeserver.services.rooms.access import RoomAccess
from homeserver.services.rooms.alias_lookup import AliasLookup, NoRemoteAliases
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.create import RoomCreation
from homeserver.services.rooms.heads import Heads
from homeserver.services.rooms.lanes import Lanes
from homeserver.services.rooms.membership import Memberships
from homeserver.services.rooms.redactions import Redactions
from homeserver.services.rooms.send import MessageEvents
from homeserver.services.rooms.state import RoomState
from homeserver.services.rooms.state_texts import StateTexts
from homeserver.services.rooms.succession import RoomSuccession
from homeserver.services.rooms.upgrade import RoomUpgrades
from homeserver.web.endpoint import Section
from storage.bus.memory import MemoryBus
from storage.database import Database
from storage.events import EventCache
from storage.state import StateStore
from storage.users import insert_user
from tests.rooms.workers import KEY, SERVER, NoPush, SteppingClock
from tests.web.harness import Accounts, Reply, Web, web

_CLIENT = "/_matrix/client/v3"


@dataclass
class User:
    """A user of the server under test."""

    api: "RoomsApi"
    requester: Requester
    token: str

    @property
    def user_id(self) -> UserId:
        """Its id."""
        return self.requester.user_id

    async def call(self, method: str, target: str, body: Any = None) -> Reply:
        """Sends a request; `target` begins below `/_matrix/client/v3`."""
        content = b"" if body is None and method == "GET" else {} if body is None else body
        return await self.api.web.call(method, f"{_CLIENT}{target}", body=content, token=self.token)

    async def create(self, **body: Any) -> str:
        """Creates a room."""
        reply = await self.call("POST", "/createRoom", body)
        assert reply.status == 200, reply.body
        room_id: str = reply.json["room_id"]
        return room_id

    async def post(self, room_id: str, action: str, **body: Any) -> Reply:
        """Does something to memberships in a room."""
        return await self.call("POST", f"/rooms/{quote(room_id)}/{action}", body)

    async def join(self, room_id: str) -> None:
        """Joins a room."""
        reply = await self.post(room_id, "join")
        assert reply.status == 200, reply.body

    async def send(self, room_id: str, body: str = "hello", *, relates_to: Any = None) -> str:
        """Sends a text message."""
        content: dict[str, Any] = {"msgtype": "m.text", "body": body}
        if relates_to is not None:
            content["m.relates_to"] = relates_to
        reply = await self.send_event(room_id, "m.room.message", content)
        assert reply.status == 200, reply.body
        event_id: str = reply.json["event_id"]
        return event_id

    async def send_event(self, room_id: str, event_type: str, content: Any, *, txn_id: str | None = None) -> Reply:
        """Sends an event."""
        txn_id = txn_id or f"txn{next(self.api.numbers)}"
        return await self.call("PUT", f"/rooms/{quote(room_id)}/send/{event_type}/{quote(txn_id, safe='')}", content)

    async def redact(self, room_id: str, event_id: str, **body: Any) -> Reply:
        """Redacts an event."""
        txn_id = f"txn{next(self.api.numbers)}"
        return await self.call("PUT", f"/rooms/{quote(room_id)}/redact/{quote(event_id, safe='')}/{txn_id}", body)

    async def set_state(self, room_id: str, event_type: str, content: Any, state_key: str = "") -> Reply:
        """Sets a state event."""
        path = f"/rooms/{quote(room_id)}/state/{event_type}/{quote(state_key, safe='')}"
        return await self.call("PUT", path, content)

    async def get_state(self, room_id: str, event_type: str, state_key: str = "", query: str = "") -> Reply:
        """Reads a state event."""
        path = f"/rooms/{quote(room_id)}/state/{event_type}/{quote(state_key, safe='')}"
        return await self.call("GET", f"{path}{query}")

    async def all_state(self, room_id: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Reads all state events, by type and state key."""
        reply = await self.call("GET", f"/rooms/{quote(room_id)}/state")
        assert reply.status == 200, reply.body
        return {(event["type"], event["state_key"]): event for event in reply.json}

    async def membership(self, room_id: str, user: "User") -> str:
        """Reads the membership of a user."""
        reply = await self.get_state(room_id, "m.room.member", user.user_id)
        assert reply.status == 200, reply.body
        membership: str = reply.json["membership"]
        return membership


@dataclass
class CopiedRules:
    """Notes whose rules about rooms were to be copied."""

    copied: list[tuple[str, str, str]] = field(default_factory=list)

    async def copy_room_rules(self, user_id: UserId, *, old_room_id: RoomId, new_room_id: RoomId) -> None:
        """Notes it."""
        self.copied.append((user_id, old_room_id, new_room_id))


@dataclass
class RoomsApi:
    """A server with the endpoints of rooms."""

    web: Web
    db: Database
    bus: MemoryBus
    memberships: Memberships
    appender: Appender
    access: RoomAccess
    rules: "CopiedRules"
    numbers: "count[int]"

    async def user(self, name: str, **traits: Any) -> User:
        """Makes a user."""
        user_id = UserId.make(name, SERVER)
        requester = Requester(user_id, DeviceId(f"{name}-device"), **traits)
        async with self.db.connection() as conn:
            await insert_user(conn, user_id, password_hash=None, created_ts=0, is_guest=requester.is_guest)
        self.web.accounts.sessions[name] = requester
        return User(self, requester, name)

    def other_device(self, user: User) -> User:
        """The same user at another device."""
        token = f"{user.token}-other"
        requester = replace(user.requester, device_id=DeviceId(token))
        self.web.accounts.sessions[token] = requester
        return User(self, requester, token)


@asynccontextmanager
async def rooms_api(
    database_url: str,
    *,
    rooms_config: RoomsConfig | None = None,
    directory_config: DirectoryConfig | None = None,
    server_name: ServerName = SERVER,
    key: SigningKey = KEY,
) -> AsyncIterator[RoomsApi]:
    """A server with the endpoints of rooms on a database."""
    rooms_config = rooms_config or RoomsConfig()
    clock, bus, states = SteppingClock(), MemoryBus(), StateStore()
    async with Database(database_url, DatabaseConfig(pool_size_max=12)) as db:
        appender = Appender(
            db=db,
            bus=bus,
            clock=clock,
            server_name=server_name,
            key=key,
            heads=Heads(),
            lanes=Lanes(),
            push=NoPush(),
        )
        rules = CopiedRules()
        succession = RoomSuccession(db=db, bus=bus, room_rules=rules)
        memberships = Memberships(db=db, appender=appender, server_name=server_name, succession=succession)
        upgrades = RoomUpgrades(db=db, appender=appender, succession=succession)
        aliases = AliasLookup(db=db, clock=clock, server_name=server_name, remote=NoRemoteAliases())
        redactions = Redactions(db=db, appender=appender, server_name=server_name)
        messages = MessageEvents(db=db, appender=appender, redactions=redactions)
        access = RoomAccess(states=states)
        state = RoomState(
            db=db,
            appender=appender,
            memberships=memberships,
            access=access,
            aliases=aliases,
            states=states,
            texts=StateTexts(states=states),
            events=EventCache(),
            server_name=server_name,
        )
        creation = RoomCreation(
            db=db,
            appender=appender,
            clock=clock,
            server_name=server_name,
            rooms_config=rooms_config,
            directory_config=directory_config or DirectoryConfig(),
            invitations=memberships,
        )
        sections: list[Section] = [
            create_room.section(creation),
            joined_rooms.section(memberships),
            room_membership.section(memberships, aliases),
            room_send.section(messages),
            room_redaction.section(messages),
            room_state.section(state),
            room_upgrade.section(upgrades),
        ]
        async with web(*sections) as served:
            served.accounts.sessions.clear()
            yield RoomsApi(served, db, bus, memberships, appender, access, rules, count(1))


__all__ = ["Accounts", "RoomsApi", "User", "rooms_api"]
