"""A fake homeserver on loopback TLS, for tests of ours: it can be well-behaved, and it can lie.

It answers what servers ask (`resident.py`), signs its requests and checks those of others (`signed_http.py`), keeps
rooms (`peer_room.py`), and notes what it was asked. Any answer can be replaced by a value, by a function of the
request, or by a response that never ends:

    peer.answers["GET /_matrix/federation/v1/event/{event_id}"] = lambda request: (404, {"errcode": "M_NOT_FOUND"})

https://spec.matrix.org/v1.19/server-server-api/
"""

import asyncio
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import web

from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import ROOM_VERSIONS, EventIdFormat
from homeserver.core.signing import SigningKey
from tests.federation.certificates import CertificateAuthority, IssuedCertificate
from tests.federation.peer_room import PeerRoom, now_ms
from tests.federation.resident import V1, V2, Resident
from tests.federation.signed_http import Answer, Received, Reply
from tests.waiting import wait_until

REQUEST_SECONDS_MAX = 20


@dataclass(kw_only=True)
class Peer(Resident):
    """A fake homeserver, and what it does by itself."""

    def user(self, localpart: str) -> UserId:
        """One of its users; it takes any name for one."""
        return UserId.parse(f"@{localpart}:{self.name}")

    def create_room(self, creator: UserId, **options: Any) -> PeerRoom:
        """A room of its own; options as for `PeerRoom.create`."""
        room = PeerRoom.create(name=self.name, key=self.key, creator=creator, **options)
        self.rooms[room.room_id] = room
        return room

    async def send(
        self, destination: str, pdus: Sequence[Any] = (), edus: Sequence[Any] = (), *, txn_id: str | None = None
    ) -> Mapping[str, Any]:
        """Sends a transaction, which must be taken; returns what became of each PDU."""
        reply = await self.try_send(destination, pdus, edus, txn_id=txn_id)
        assert reply.status == 200, reply
        outcomes: Mapping[str, Any] = reply.body["pdus"]
        return outcomes

    @asynccontextmanager
    async def sending(self, destination: str, pdus: Sequence[Any]) -> AsyncIterator[None]:
        """Sends a transaction in the background while the block runs; what becomes of it does not matter."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.try_send(destination, pdus))
            asked = len(self.received)
            await wait_until(lambda: len(self.received) > asked)
            yield
            task.cancel()

    async def silence(self, _: Received) -> Answer:
        """An answer that does not come; put it into `answers`."""
        await asyncio.Event().wait()

    async def try_send(
        self, destination: str, pdus: Sequence[Any] = (), edus: Sequence[Any] = (), *, txn_id: str | None = None
    ) -> Reply:
        """Sends a transaction of events (`Pdu` or JSON) and EDUs."""
        events = [pdu.json if isinstance(pdu, Pdu) else pdu for pdu in pdus]
        body = {"origin": self.name, "origin_server_ts": now_ms(), "pdus": events}
        body |= {"edus": list(edus)} if edus else {}
        return await self.ask(destination, "PUT", f"{V1}/send/{txn_id or secrets.token_hex(6)}", body)

    async def tell(self, room: PeerRoom, *pdus: Pdu) -> None:
        """Sends events to all other servers in a room."""
        for server in sorted(room.member_servers - {self.name}):
            await self.send(server, pdus)

    async def make_join(self, destination: str, room_id: RoomId, user_id: UserId) -> Reply:
        """Asks for a join to be signed, in any room version."""
        return await self.ask(destination, "GET", f"{V1}/make_join/{_path(room_id, user_id)}", ver=list(ROOM_VERSIONS))

    async def join(self, destination: str, room_id: RoomId, user_id: UserId) -> PeerRoom:
        """Joins a room of another server, which must let it; the room is one of `rooms` then."""
        made = await self.make_join(destination, room_id, user_id)
        assert made.status == 200, made
        version = ROOM_VERSIONS[made.body["room_version"]]
        scaffold = PeerRoom(name=self.name, key=self.key, version=version, room_id=room_id)
        event = {**made.body["event"], "origin_server_ts": now_ms()}
        if version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
            event["event_id"] = f"${secrets.token_hex(8)}:{self.name}"
        signed = scaffold.forge(event)
        path = f"{V2}/send_join/{_path(room_id, scaffold.id_of(signed))}"
        sent = await self.ask(destination, "PUT", path, signed)
        assert sent.status == 200, sent
        room = PeerRoom.adopt(
            name=self.name,
            key=self.key,
            version=version,
            room_id=room_id,
            state=sent.body["state"],
            auth_chain=sent.body["auth_chain"],
            join=sent.body.get("event", signed),
        )
        self.rooms[room_id] = room
        return room

    async def invite(self, destination: str, room: PeerRoom, sender: UserId, invited: UserId) -> Reply:
        """Invites a user of another server; if that signs, the room has the invitation."""
        pdu = room.draft(sender, "m.room.member", {"membership": "invite"}, state_key=invited)
        version, stripped = room.version.identifier, room.stripped_state()
        body = {"room_version": version, "event": pdu.json, "invite_room_state": stripped}
        reply = await self.ask(destination, "PUT", f"{V2}/invite/{_path(room.room_id, pdu.event_id)}", body)
        if reply.status == 200:
            room.receive(room.parse(reply.body["event"]))
        return reply


def _path(*segments: str) -> str:
    return "/".join(quote(segment, safe="") for segment in segments)


@asynccontextmanager
async def running_peer(authority: CertificateAuthority, certificate: IssuedCertificate) -> AsyncIterator[Peer]:
    """A peer that listens on a random port of this machine; its name is `localhost:PORT`."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    name = ServerName.parse(f"localhost:{listening.getsockname()[1]}")
    trust = ssl.create_default_context(cafile=str(authority.ca_file))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)) as http:
        key = SigningKey.from_seed("a_peer", secrets.token_bytes(32))
        peer = Peer(name=name, key=key, trust=trust, http=http)
        runner = web.ServerRunner(web.Server(peer.respond), shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listening, ssl_context=certificate.server_context()).start()
        try:
            yield peer
        finally:
            await runner.cleanup()
