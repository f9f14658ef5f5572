"""Fills the database of a server that does not run yet, by the server's own means: many events in each statement."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.client import PASSWORD
from bench.server import Place
from homeserver.config.load import parse_config
from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.core.room_versions import DEFAULT_ROOM_VERSION
from homeserver.runtime.administration import administration
from homeserver.runtime.clock import SystemClock
from homeserver.runtime.signing_key import load_own_keys
from homeserver.services.accounts.administration import Administration, NewAccount
from homeserver.services.push.rule_sets import RuleSets
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.drafts import Draft
from homeserver.services.rooms.heads import Head, Heads
from homeserver.services.rooms.lanes import Lanes
from homeserver.services.rooms.push_evaluation import PushEvaluation
from storage.bus.memory import MemoryBus
from storage.database import Database
from storage.users import insert_user

EVENTS_AT_ONCE: Final = 200
_ROOMS_AT_ONCE: Final = 4


class Filling:
    """Makes accounts and rooms."""

    def __init__(self, *, db: Database, appender: Appender, server_name: ServerName, accounts: Administration) -> None:
        self._db = db
        self._appender = appender
        self._server_name = server_name
        self._accounts = accounts
        self._numbers = itertools.count(1)

    def user_id(self, username: str) -> UserId:
        """The id of an account."""
        return UserId(f"@{username}:{self._server_name}")

    async def make_user(self, username: str) -> None:
        """Makes an account that can log in."""
        await self._accounts.create_user(NewAccount(username=username, password=PASSWORD))

    async def make_members(self, usernames: Sequence[str]) -> None:
        """Makes accounts that nobody logs in to."""
        async with self._db.transaction() as conn:
            for username in usernames:
                await insert_user(conn, self.user_id(username), password_hash=None, created_ts=1)

    async def make_room(self, creator: str, members: Sequence[str] = ()) -> RoomId:
        """Makes a public room with some members."""
        sender = self.user_id(creator)
        # A room's id is the hash of this event, and many are made within a millisecond.
        number = next(self._numbers)
        create = {"room_version": DEFAULT_ROOM_VERSION.identifier, "org.heliograph.number": number}
        drafts = [
            _state("m.room.create", sender, "", create),
            _state("m.room.member", sender, sender, {"membership": "join"}),
            _state("m.room.power_levels", sender, "", {"events_default": 0}),
            _state("m.room.join_rules", sender, "", {"join_rule": "public"}),
            _state("m.room.history_visibility", sender, "", {"history_visibility": "shared"}),
            _state("m.room.name", sender, "", {"name": f"Room {number}"}),
        ]
        room_id = await self._appender.create(DEFAULT_ROOM_VERSION, drafts)
        user_ids = [self.user_id(username) for username in members]
        joins = [_state("m.room.member", user_id, user_id, {"membership": "join"}) for user_id in user_ids]
        await self._add(room_id, joins)
        return room_id

    async def make_rooms(self, count: int, creator: str, members: Sequence[str]) -> list[RoomId]:
        """Makes rooms with the same members."""
        places = asyncio.Semaphore(_ROOMS_AT_ONCE)

        async def make() -> RoomId:
            async with places:
                return await self.make_room(creator, members)

        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(make()) for _ in range(count)]
        return [task.result() for task in made]

    async def add_messages(self, room_id: RoomId, sender: str, count: int) -> None:
        """Adds messages to a room."""
        await self._add(room_id, [_message(self.user_id(sender), number) for number in range(count)])

    async def _add(self, room_id: RoomId, drafts: Sequence[Draft]) -> None:
        for start in range(0, len(drafts), EVENTS_AT_ONCE):
            part = drafts[start : start + EVENTS_AT_ONCE]
            await self._appender.append(room_id, partial(_same, part))


@asynccontextmanager
async def filling(place: Place) -> AsyncIterator[Filling]:
    """The means to fill a place; when the block has ended, nothing is left to do for its database."""
    config = parse_config(json.dumps(place.config), folder=place.folder, environment={})
    clock = SystemClock()
    async with administration(config, clock) as accounts, Database(place.database_url, config.database) as db:
        appender = Appender(
            db=db,
            bus=MemoryBus(),
            clock=clock,
            server_name=config.server_name,
            key=load_own_keys(Path(config.data_dir)).signing,
            heads=Heads(),
            lanes=Lanes(),
            push=PushEvaluation(db=db, server_name=config.server_name, rule_sets=RuleSets(db=db)),
        )
        yield Filling(db=db, appender=appender, server_name=config.server_name, accounts=accounts)
        async with db.connection() as conn:
            await conn.execute("VACUUM ANALYZE")
            await conn.execute("CHECKPOINT")


def _same(drafts: Sequence[Draft], _: Head) -> Sequence[Draft]:
    return drafts


def _state(event_type: str, sender: UserId, state_key: str, content: dict[str, Any]) -> Draft:
    return Draft(type=event_type, sender=sender, state_key=state_key, content=content)


def _message(sender: UserId, number: int) -> Draft:
    return Draft(type="m.room.message", sender=sender, content={"msgtype": "m.text", "body": f"Message {number}"})
