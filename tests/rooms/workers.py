"""Rooms without the web: workers that add events to the rooms of one database."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import DEFAULT_ROOM_VERSION, RoomVersion
from homeserver.core.signing import SigningKey
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.drafts import AddedEvents, Draft, PushedRoom, PushEvaluator, PushOutcome
from homeserver.services.rooms.heads import Heads
from homeserver.services.rooms.lanes import Lanes
from storage.bus.memory import MemoryBus
from storage.database import Database

SERVER = ServerName("example.org")
ALICE = UserId("@alice:example.org")
BOB = UserId("@bob:example.org")
KEY = SigningKey.from_seed("a_test", bytes(32))


class SteppingClock:
    """A clock that moves on by a millisecond whenever it is asked."""

    def __init__(self) -> None:
        self._now_ms = 1_700_000_000_000

    def now_ms(self) -> int:
        self._now_ms += 1
        return self._now_ms

    def monotonic(self) -> float:
        return self.now_ms() / 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self._now_ms += int(seconds * 1000)


class NoPush:
    """Push rules that do nothing to anybody."""

    async def evaluate(self, room: PushedRoom, events: Sequence[Pdu]) -> Sequence[PushOutcome]:
        return [PushOutcome() for _ in events]


@dataclass
class Worker:
    """One process of a server, as far as rooms go: its own connections, lanes and memory."""

    db: Database
    clock: SteppingClock = field(default_factory=SteppingClock)
    bus: MemoryBus = field(default_factory=MemoryBus)
    heads: Heads = field(default_factory=Heads)
    push: PushEvaluator = field(default_factory=NoPush)
    appender: Appender = field(init=False)

    def __post_init__(self) -> None:
        self.appender = Appender(
            db=self.db,
            bus=self.bus,
            clock=self.clock,
            server_name=SERVER,
            key=KEY,
            heads=self.heads,
            lanes=Lanes(),
            push=self.push,
        )

    async def create_room(
        self, *state: Draft, creator: UserId = ALICE, room_version: RoomVersion = DEFAULT_ROOM_VERSION
    ) -> RoomId:
        """Makes a room that everybody may join, with further state."""
        content: dict[str, Any] = {"room_version": room_version.identifier}
        if not room_version.implicit_room_creator:
            content["creator"] = creator
        drafts = [
            Draft(type="m.room.create", sender=creator, state_key="", content=content),
            member(creator, "join"),
            Draft(
                type="m.room.power_levels", sender=creator, state_key="", content=power_levels(creator, room_version)
            ),
            Draft(type="m.room.join_rules", sender=creator, state_key="", content={"join_rule": "public"}),
        ]
        return await self.appender.create(room_version, [*drafts, *state])

    async def add(self, room_id: RoomId, *drafts: Draft) -> AddedEvents:
        """Adds events to a room, whatever its state is."""
        return await self.appender.append(room_id, lambda _: drafts)


def power_levels(creator: UserId, room_version: RoomVersion) -> dict[str, Any]:
    """The power levels that rooms start with: of creators that stand above all, none is named."""
    return {} if room_version.creators_in_control else {"users": {creator: 100}}


def member(user_id: UserId, membership: str, *, sender: UserId | None = None) -> Draft:
    """A change of membership, by the user unless somebody else is named."""
    return Draft(type="m.room.member", sender=sender or user_id, state_key=user_id, content={"membership": membership})


def message(body: str, *, sender: UserId = ALICE, transaction_id: str | None = None) -> Draft:
    """A text message."""
    device_id = None if transaction_id is None else "DEVICE"
    content = {"msgtype": "m.text", "body": body}
    return Draft(
        type="m.room.message", sender=sender, content=content, device_id=device_id, transaction_id=transaction_id
    )
