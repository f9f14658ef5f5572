"""A whole server with users of other servers in its rooms, and those servers asking it.

The other servers' events are added by a second worker of this server, so that a test needs no other server: signed by
this one, but authorised, stored and served like theirs.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from homeserver.config.schema import Config, DatabaseConfig
from homeserver.core.ids import RoomId, UserId
from homeserver.runtime.other_servers import Remotes
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.drafts import Draft
from homeserver.services.rooms.heads import Heads
from homeserver.services.rooms.lanes import Lanes
from storage.bus.memory import MemoryBus
from storage.database import Database
from tests.api.server import CONFIG, SERVER_NAME, Client, Site, composed_server
from tests.rooms.workers import KEY, NoPush
from tests.web.harness import Reply

OTHER = "other.example"
THIRD = "third.example"
BOB = UserId(f"@bob:{OTHER}")
BEN = UserId(f"@ben:{OTHER}")
CARA = UserId(f"@cara:{THIRD}")
V1 = "/_matrix/federation/v1"


@dataclass
class World:
    """A server, and what other servers do in its rooms."""

    site: Site
    db: Database
    appender: Appender
    alice: Client

    @property
    def alice_id(self) -> UserId:
        """Alice's user id."""
        return UserId(self.alice.user_id)

    async def create_room(self, **wish: Any) -> RoomId:
        """A room that Alice makes and everybody may join."""
        body = {"preset": "public_chat", **wish}
        return RoomId((await self.alice.post("/createRoom", body))["room_id"])

    async def send(self, room_id: str, body: str) -> str:
        """A message of Alice; its event id."""
        sent = await self.alice.put(
            f"/rooms/{room_id}/send/m.room.message/t-{body}", {"msgtype": "m.text", "body": body}
        )
        event_id: str = sent["event_id"]
        return event_id

    async def set_state(self, room_id: str, event_type: str, content: Any, *, state_key: str = "") -> str:
        """A state event of Alice; its event id."""
        path = f"/rooms/{room_id}/state/{event_type}" + (f"/{state_key}" if state_key else "")
        event_id: str = (await self.alice.put(path, content))["event_id"]
        return event_id

    async def membership(
        self, room_id: RoomId, user_id: UserId, membership: str, *, sender: UserId | None = None
    ) -> str:
        """A change of a user's membership, of whatever server it is, by itself unless somebody else is named."""
        return await self.add(
            room_id,
            Draft(
                type="m.room.member", sender=sender or user_id, state_key=user_id, content={"membership": membership}
            ),
        )

    async def add(self, room_id: RoomId, draft: Draft) -> str:
        """An event of a user of whatever server; its event id."""
        added = await self.appender.append(room_id, lambda _: [draft])
        return added.events[0].event_id

    async def ask(self, path: str, *, origin: str = OTHER, **query: Any) -> Reply:
        """A GET of another server, below `/_matrix/federation/v1`."""
        return await self.site.ask_as(origin, "GET", f"{V1}{path}", **query)

    async def post(self, path: str, body: Any, *, origin: str = OTHER) -> Reply:
        """A POST of another server."""
        return await self.site.ask_as(origin, "POST", f"{V1}{path}", json=body)

    async def answer(self, path: str, *, origin: str = OTHER, **query: Any) -> Any:
        """The answer to a GET of another server that must succeed."""
        reply = await self.ask(path, origin=origin, **query)
        assert reply.status == 200, reply.body
        return reply.json

    async def execute(self, statement: str, *values: Any) -> None:
        """Changes the database behind the server's back."""
        async with self.db.connection() as conn:
            await conn.execute(statement, *values)


def bodies(events: Sequence[Any]) -> list[str]:
    """The texts of messages; `-` for those without, which have been redacted."""
    return [event["content"].get("body", "-") for event in events if event["type"] == "m.room.message"]


@asynccontextmanager
async def running_world(
    database_url: str, *, config: Config = CONFIG, remotes: Remotes | None = None
) -> AsyncIterator[World]:
    """A server on a database, with its user Alice."""
    async with (
        composed_server(database_url, config, remotes=remotes) as site,
        Database(database_url, DatabaseConfig(pool_size_max=5)) as db,
    ):
        appender = Appender(
            db=db,
            bus=MemoryBus(),
            clock=site.clock,
            server_name=SERVER_NAME,
            key=KEY,
            heads=Heads(),
            lanes=Lanes(),
            push=NoPush(),
        )
        yield World(site, db, appender, await site.register("alice"))
