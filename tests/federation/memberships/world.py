"""A whole server without sockets, and other servers as plain values: they ask it in their own name and sign events."""

import secrets
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import asyncpg

from homeserver.config.schema import Config
from homeserver.core.errors import MatrixError
from homeserver.core.hashing import content_hash, event_id_of
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import ROOM_VERSIONS, EventIdFormat, RoomVersion
from homeserver.core.signing import SigningKey, VerifyKey, sign_event, verify_event
from homeserver.core.unpadded_base64 import encode_base64
from homeserver.runtime.other_servers import Remotes
from homeserver.runtime.signing_key import load_signing_key
from homeserver.services.no_remotes import NoRemoteRooms
from homeserver.services.remote import EventJson, KeyWish, ServerKey
from tests.api.server import CONFIG, Client, Site, composed_server
from tests.fast_clock import FastClock
from tests.web.harness import Reply

V1 = "/_matrix/federation/v1"
V2 = "/_matrix/federation/v2"
HERE = CONFIG.server_name
VALID_UNTIL_TS = 4_000_000_000_000


class KnownKeys:
    """The keys of servers that a test knows."""

    def __init__(self) -> None:
        self._keys: dict[tuple[ServerName, str], ServerKey] = {}

    def add(self, server_name: ServerName, key: VerifyKey) -> None:
        """Publishes a key."""
        self._keys[(server_name, key.key_id)] = ServerKey(key, VALID_UNTIL_TS)

    async def fetch(self, wishes: Collection[KeyWish]) -> Mapping[tuple[ServerName, str], ServerKey]:
        """Finds those that are published."""
        wanted = {(wish.server_name, wish.key_id) for wish in wishes}
        return {name: key for name, key in self._keys.items() if name in wanted}


class RealClock(FastClock):
    """Its events are of the same time as those of other servers in tests."""

    def now_ms(self) -> int:
        """The time."""
        return time.time_ns() // 1_000_000


@dataclass
class OtherRooms(NoRemoteRooms):
    """What this server asks of others about memberships.

    Attributes:
        invited: the invitations that others have signed, each with the room's state that came with it.
        exchanged: the third-party invites that others were asked to exchange, each with the server that was asked.
        failure: what every question ends with.
    """

    world: "World"
    invited: list[tuple[Pdu, Sequence[EventJson]]] = field(default_factory=list)
    exchanged: list[tuple[ServerName, EventJson]] = field(default_factory=list)
    failure: MatrixError | None = None

    async def invite(self, invited: ServerName, pdu: Pdu, *, invite_room_state: Sequence[EventJson]) -> EventJson:
        """Signs in the name of the invited server."""
        self.invited.append((pdu, invite_room_state))
        server = self.world.servers[invited]
        return sign_event(pdu.json, str(server.name), server.key, pdu.room_version)

    async def exchange_third_party_invite(self, via: ServerName, room_id: RoomId, event: EventJson) -> None:
        """Notes it."""
        if self.failure is not None:
            raise self.failure
        assert event["room_id"] == room_id
        self.exchanged.append((via, event))


@dataclass
class World:
    """The server under test and all others."""

    database_url: str
    site: Site = field(init=False)
    key: SigningKey = field(init=False)
    keys: KnownKeys = field(default_factory=KnownKeys)
    rooms: OtherRooms = field(init=False)
    servers: dict[ServerName, "Elsewhere"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rooms = OtherRooms(self)

    def server(self, name: str = "elsewhere.example", *, is_known: bool = True) -> "Elsewhere":
        """Another server; nobody can have the key of one that is not known."""
        server = Elsewhere(self, ServerName(name), SigningKey.from_seed("a_key", secrets.token_bytes(32)))
        self.servers[server.name] = server
        if is_known:
            self.keys.add(server.name, server.key.verify_key)
        return server

    async def create_room(self, creator: Client, version: str = "11", **options: Any) -> RoomId:
        """A room that everybody may join, unless the options say otherwise."""
        body = {"preset": "public_chat", "room_version": version, **options}
        return RoomId((await creator.post("/createRoom", body))["room_id"])

    async def set_state(self, user: Client, room_id: str, event_type: str, content: Any, state_key: str = "") -> str:
        """Sets a state event; returns its id."""
        path = f"/rooms/{quote(room_id)}/state/{event_type}/{quote(state_key, safe='')}"
        event_id: str = (await user.put(path, content))["event_id"]
        return event_id

    async def membership(self, user: Client, room_id: str, of_user: str) -> str | None:
        """The membership of somebody, as a member sees it."""
        reply = await user.call("GET", f"/rooms/{quote(room_id)}/state/m.room.member/{quote(of_user)}")
        return reply.json["membership"] if reply.status == 200 else None

    async def relayed(self) -> set[str]:
        """The events that the server under test passes on to the other servers in their rooms."""
        conn = await asyncpg.connect(self.database_url)
        try:
            rows = await conn.fetch("SELECT event_id FROM relayed_events JOIN events USING (event_nid)")
        finally:
            await conn.close()
        return {row["event_id"] for row in rows}

    def is_signed_here(self, event: Mapping[str, Any], version: str) -> bool:
        """Whether an event bears the signature of the server under test, and it is right."""
        return verify_event(event, HERE, self.key.verify_key, ROOM_VERSIONS[version])


@dataclass
class Elsewhere:
    """Another server."""

    world: World
    name: ServerName
    key: SigningKey

    def user(self, localpart: str = "uma") -> UserId:
        """One of its users."""
        return UserId.parse(f"@{localpart}:{self.name}")

    async def ask(self, method: str, path: str, json: Any = None, **query: Any) -> Reply:
        """Asks the server under test."""
        return await self.world.site.ask_as(self.name, method, path, json, **query)

    async def make(self, membership: str, room_id: str, user_id: str, **query: Any) -> Reply:
        """Asks for a template."""
        query = {"ver": list(ROOM_VERSIONS)} | query
        return await self.ask("GET", f"{V1}/make_{membership}/{path_of(room_id, user_id)}", **query)

    def sign(self, event: Mapping[str, Any], version: str, *, now_ms: int | None = None) -> dict[str, Any]:
        """Makes an event of a template: with an id of its own in the old versions, hashed and signed."""
        traits = ROOM_VERSIONS[version]
        bare = {name: value for name, value in event.items() if name not in ("hashes", "signatures", "origin")}
        if now_ms is not None:
            bare["origin_server_ts"] = now_ms
        if traits.event_id_format is EventIdFormat.SERVER_ASSIGNED:
            bare.setdefault("event_id", f"${secrets.token_hex(8)}:{self.name}")
        hashed = {**bare, "hashes": {"sha256": encode_base64(content_hash(bare))}}
        return sign_event(hashed, str(self.name), self.key, traits)

    async def made(self, membership: str, room_id: str, user_id: str) -> tuple[dict[str, Any], str]:
        """A signed event of a template that must be given, and the room's version."""
        reply = await self.make(membership, room_id, user_id)
        assert reply.status == 200, reply.body
        version: str = reply.json["room_version"]
        return self.sign(reply.json["event"], version), version

    async def hand_in(
        self,
        membership: str,
        event: Mapping[str, Any],
        version: str,
        *,
        room_id: str | None = None,
        event_id: str | None = None,
        api: str = V2,
        **query: Any,
    ) -> Reply:
        """Hands an event in, under its own path unless another is given."""
        path = path_of(room_id or event["room_id"], event_id or id_of(event, version))
        return await self.ask("PUT", f"{V1 if membership == 'knock' else api}/send_{membership}/{path}", event, **query)

    async def enter(self, membership: str, room_id: str, user_id: str, **query: Any) -> Any:
        """Does all that it takes to join, knock or leave; returns the answer, which must be the good one."""
        event, version = await self.made(membership, room_id, user_id)
        reply = await self.hand_in(membership, event, version, **query)
        assert reply.status == 200, reply.body
        return reply.json


def id_of(event: Mapping[str, Any], version: str | RoomVersion) -> EventId:
    """The id of an event."""
    return event_id_of(event, ROOM_VERSIONS[version] if isinstance(version, str) else version)


def path_of(*segments: str) -> str:
    """Identifiers as they stand in a path."""
    return "/".join(quote(segment, safe="") for segment in segments)


@asynccontextmanager
async def running_world(database_url: str, config: Config = CONFIG) -> AsyncIterator[World]:
    """A world."""
    world = World(database_url)
    remotes = Remotes(keys=world.keys, rooms=world.rooms)
    async with composed_server(database_url, config, clock=RealClock(speed=1), remotes=remotes) as site:
        world.site, world.key = site, load_signing_key(site.config.data_dir)
        world.keys.add(site.config.server_name, world.key.verify_key)
        yield world
