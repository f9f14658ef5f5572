"""Whatever happens in a room, the counts are those that counting one event after the other gives."""

import random
from dataclasses import dataclass, field

import pytest

from tests.api.push.api import Counts, User, encoded, in_thread, register
from tests.api.server import Site

MAIN = "main"


@dataclass
class Message:
    """A message, and whom it notified and highlighted when it was sent."""

    event_id: str
    thread: str
    sender: str
    notified: frozenset[str]
    highlighted: frozenset[str]
    redacted: bool = False


@dataclass
class Member:
    """A user and what it has done, by places in the list of messages."""

    user: User
    joined: int | None = 0
    muted: bool = False
    ignored: set[str] = field(default_factory=set)
    unthreaded: int = 0
    threaded: dict[str, int] = field(default_factory=dict)


class Room:
    """A room of three users, and a model of it that counts naively."""

    def __init__(self, room_id: str, users: list[User], chance: random.Random) -> None:
        self.room_id = room_id
        self.members = [Member(user) for user in users]
        self.messages: list[Message] = []
        self.chance = chance

    async def step(self) -> None:
        """Does something."""
        member = self.chance.choice(self.members)
        steps = [self.send, self.send, self.send, self.send, self.read, self.redact, self.mute, self.ignore, self.come]
        await self.chance.choice(steps)(member)

    async def send(self, member: Member) -> None:
        """Sends a message, into the main timeline or a thread, with or without mentions."""
        if member.joined is None:
            return
        roots = [each.event_id for each in self.messages if each.thread == MAIN and not each.redacted]
        thread = self.chance.choice(roots) if roots and self.chance.random() < 0.4 else MAIN
        mentioned = {each.user.user_id for each in self.members if self.chance.random() < 0.2}
        mentions_room = self.chance.random() < 0.2
        mentions = {"user_ids": sorted(mentioned), **({"room": True} if mentions_room else {})}
        relation = {} if thread == MAIN else in_thread(thread)
        event_id = await member.user.send(self.room_id, **{"m.mentions": mentions}, **relation)
        has_power = member is self.members[0]
        highlights = {
            each.user.user_id
            for each in self.members
            if each.user.user_id in mentioned or (mentions_room and has_power)
        }
        hearing = {
            each.user.user_id
            for each in self.members
            if each is not member and each.joined is not None and member.user.user_id not in each.ignored
        }
        notified = {
            each.user.user_id for each in self.members if not each.muted or each.user.user_id in highlights
        } & hearing
        self.messages.append(
            Message(event_id, thread, member.user.user_id, frozenset(notified), frozenset(notified & highlights))
        )

    async def read(self, member: Member) -> None:
        """Puts a receipt of some kind on a message."""
        if member.joined is None or not self.messages:
            return
        place = self.chance.randrange(len(self.messages))
        message = self.messages[place]
        receipt_type = self.chance.choice(["m.read", "m.read.private"])
        if message.redacted or self.chance.random() < 0.5:
            await member.user.read(self.room_id, message.event_id, receipt_type=receipt_type)
            member.unthreaded = max(member.unthreaded, place + 1)
        else:
            await member.user.read(self.room_id, message.event_id, receipt_type=receipt_type, thread_id=message.thread)
            member.threaded[message.thread] = max(member.threaded.get(message.thread, 0), place + 1)

    async def redact(self, _: Member) -> None:
        """The most powerful member redacts a message."""
        alive = [each for each in self.messages if not each.redacted]
        if not alive or self.chance.random() < 0.5:
            return
        message = self.chance.choice(alive)
        await self.members[0].user.redact(self.room_id, message.event_id)
        message.redacted = True

    async def mute(self, member: Member) -> None:
        """Mutes the room, or hears it again."""
        member.muted = not member.muted
        path = f"/pushrules/global/room/{encoded(self.room_id)}"
        if member.muted:
            await member.user.ok("PUT", path, {"actions": []})
        else:
            await member.user.ok("DELETE", path)

    async def ignore(self, member: Member) -> None:
        """Ignores somebody, or does not any more."""
        others = [each.user for each in self.members if each is not member]
        member.ignored ^= {self.chance.choice(others).user_id}
        await member.user.ignore(*(other for other in others if other.user_id in member.ignored))

    async def come(self, member: Member) -> None:
        """Leaves, or comes back."""
        if member is self.members[0] or self.chance.random() < 0.5:
            return
        if member.joined is None:
            await member.user.join(self.room_id)
            member.joined = len(self.messages)
        else:
            await member.user.ok("POST", f"/rooms/{encoded(self.room_id)}/leave", {})
            member.joined = None

    def expected(self, member: Member) -> dict[str, Counts]:
        """What should be unread of each thread."""
        user_id = member.user.user_id
        unread: dict[str, Counts] = {MAIN: (0, 0)}
        for thread in {each.thread for each in self.messages} | {MAIN}:
            sent = (
                place + 1
                for place, each in enumerate(self.messages)
                if each.sender == user_id and each.thread == thread and not each.redacted
            )
            read = max(member.joined or 0, member.unthreaded, member.threaded.get(thread, 0), *sent, 0)
            rest = [each for each in self.messages[read:] if each.thread == thread and not each.redacted]
            counts = sum(user_id in each.notified for each in rest), sum(user_id in each.highlighted for each in rest)
            if thread == MAIN or counts != (0, 0):
                unread[thread] = counts
        return unread


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.seconds_max(120)
async def test_counts_are_those_of_a_naive_model(site: Site, seed: int) -> None:
    users = [await register(site, name) for name in ("alice", "bob", "carol")]
    room = Room(await users[0].create_room(*users[1:]), users, random.Random(seed))
    for number in range(90):
        await room.step()
        if number % 3 == 0:
            for member in room.members:
                if member.joined is not None:
                    told = await member.user.unread_by_thread(room.room_id)
                    assert told == room.expected(member), f"seed {seed}, step {number}, {member.user.user_id}"
