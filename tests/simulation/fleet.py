"""A room on several whole servers, which by one seed talk, change it and fall out, over a network that fails them.

The servers are real (`tests.federation.deployment`), with a database each; lines between them are cut and mended, lose,
delay and repeat requests. Whatever happens meanwhile: once the network is well again and everybody has said something,
all servers that are in the room agree about its state and its ends, and their members see the same events.

The same seed makes the same wishes in the same order; what comes of them also depends on how fast the machine is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from urllib.parse import quote

import asyncpg

from tests.federation.deployment import Deployment, Homeserver
from tests.federation.servers.rooms import (
    extremities,
    membership,
    set_state,
    shared_room,
    state,
    try_join,
    visible,
)
from tests.real_client import Answer, Client
from tests.waiting import wait_until

VERSIONS: Final = ("8", "10", "11", "12")
TALK: Final = ("say", "say", "say", "say", "topic", "name", "levels", "redact")
QUARREL: Final = (*TALK, "join", "join", "join", "join", "leave", "kick", "ban", "unban", "unban", "invite")
REST_ROUNDS_MAX: Final = 6
REST_REPEATS_MAX: Final = 15
COMPLETION_SECONDS: Final = 60
REST_SECONDS: Final = 2.0
# What a wish may be answered with: granted, not allowed, senseless, or a server that cannot be reached now.
STATUSES: Final = frozenset((200, 400, 403, 404, 502, 503, 504))


@dataclass(frozen=True, slots=True)
class Inhabitant:
    """A user, and the server it belongs to."""

    server: Homeserver
    client: Client

    @property
    def user_id(self) -> str:
        """Its id."""
        return self.client.user_id


@dataclass
class Fleet:
    """The servers, their users, and the room.

    Attributes:
        before: events that are not compared any more; see `forget_the_past`.
        log: what has happened, for who looks for the reason of a disagreement.
    """

    deployment: Deployment
    users: list[Inhabitant]
    random: Random
    room_id: str = ""
    before: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    _said: int = 0

    @property
    def founder(self) -> Inhabitant:
        """Who has made the room, and never leaves it."""
        return self.users[0]

    async def open_room(self) -> None:
        """Makes the room, and lets one user of each server in."""
        version = self.random.choice(VERSIONS)
        first = {user.server.name: user for user in reversed(self.users)}
        places = [(user.server, user.client) for user in reversed(first.values())]
        self.room_id = await shared_room(places, room_version=version)
        levels = {user.user_id: 50 for user in first.values() if user is not self.founder}
        levels |= {} if version == "12" else {self.founder.user_id: 100}
        await set_state(
            self.founder.client, self.room_id, "m.room.power_levels", {"users": levels, "state_default": 50, "ban": 50}
        )

    async def run(self, steps: int, actions: Sequence[str]) -> None:
        """Lets things happen."""
        for _ in range(steps):
            if self.random.random() < 0.2:
                self._disturb()
            else:
                await self._act(self.random.choice(self.users), self.random.choice(actions))

    def _disturb(self) -> None:
        """Changes a line, or all of them."""
        network, names = self.deployment.network, [server.name for server in self.deployment.servers]
        near = self.random.choice(names)
        far = [name for name in names if name != near]
        kind = self.random.choice(("cut", "cut", "mend", "mend", "one way", "bad", "good"))
        self.log.append(f"network: {kind} {near}")
        match kind:
            case "cut":
                network.cut([near], far)
            case "mend":
                network.mend([near], far)
            case "one way":
                network.line(near, self.random.choice(far)).is_cut = True
            case "bad":
                network.set(names, delay_seconds_max=0.05, lose_requests=0.1, lose_answers=0.1, repeat=0.2)
            case _:
                network.set(names, delay_seconds_max=0.0, lose_requests=0.0, lose_answers=0.0, repeat=0.0)

    async def forget_the_past(self) -> None:
        """Compares only what will be sent from now on.

        What was before they came in servers fetch from each other, but not at once when that has failed before.
        """
        self.before = {
            event_id for user in await self._members() for event_id in await visible(user.client, self.room_id)
        }

    async def _act(self, user: Inhabitant, action: str) -> None:
        """Lets a user wish for something, which may be refused."""
        room, target = f"/rooms/{quote(self.room_id)}", self.random.choice(self.users[1:]).user_id
        self._said += 1
        number = self._said
        path, body = f"{room}/{action}", {"user_id": target}
        match action:
            case "say":
                answer = await user.client.call(
                    "PUT", f"{room}/send/m.room.message/t{number}", {"msgtype": "m.text", "body": f"said {number}"}
                )
            case "topic" | "name":
                answer = await user.client.call("PUT", f"{room}/state/m.room.{action}", {action: f"{action} {number}"})
            case "join":
                via = self.random.choice(self.deployment.servers)
                answer = await try_join(user.client, self.room_id, via.name)
            case "leave" if user is self.founder:
                return
            case "leave":
                answer = await user.client.call("POST", path, {})
            case "levels":
                answer = await self._promote(user, target)
            case "redact":
                answer = await self._redact(user, number)
            case _:
                answer = await user.client.call("POST", path, body)
        self.log.append(f"{user.user_id}: {action} {target}: {answer.status}")
        assert answer.status in STATUSES, (self.log[-1], answer.body)

    async def _promote(self, user: Inhabitant, target: str) -> Answer:
        path = f"/rooms/{quote(self.room_id)}/state/m.room.power_levels"
        current = await user.client.call("GET", path)
        if current.status != 200:
            return current
        users = {**current.body.get("users", {}), target: self.random.choice((0, 25, 50))}
        return await user.client.call("PUT", path, {**current.body, "users": users})

    async def _redact(self, user: Inhabitant, number: int) -> Answer:
        room = f"/rooms/{quote(self.room_id)}"
        page = await user.client.call("GET", f"{room}/messages", dir="b", limit=10)
        if page.status != 200:
            return page
        messages = [event for event in page.body["chunk"] if event["type"] == "m.room.message"]
        if not messages:
            return page
        event_id = self.random.choice(messages)["event_id"]
        return await user.client.call("PUT", f"{room}/redact/{quote(event_id, safe='')}/r{number}", {})

    async def come_to_rest(self, *, compare_timelines: bool = True) -> None:
        """Mends the network, and lets everybody talk until all servers agree.

        Raises:
            AssertionError: they do not come to agree; the message is how they differ.
        """
        self.deployment.network.lines.clear()
        views: list[Any] = []
        for _ in range(REST_ROUNDS_MAX):
            for user in await self._members():
                await self._say_to_all(user)
            # Whoever has only just come in may be fetching the members still.
            await wait_until(self._all_is_known, seconds_max=COMPLETION_SECONDS)
            views = [await self._view(user) for user in await self._members()]
            compared = [view if compare_timelines else view[:2] for view in views]
            if all(view == compared[0] for view in compared):
                return
        raise AssertionError("The servers do not agree:\n" + "\n".join(map(str, [*differences(views), *self.log])))

    async def _all_is_known(self) -> bool:
        """Whether each server knows the whole state of the room."""
        return not any([await is_partial(server, self.room_id) for server in self.deployment.servers])

    async def _members(self) -> list[Inhabitant]:
        """One user of each server that is in the room, as the founder sees it."""
        found: dict[str, Inhabitant] = {}
        for user in self.users:
            if await membership(self.founder.client, self.room_id, user.user_id) == "join":
                found.setdefault(user.server.name, user)
        return list(found.values())

    async def _say_to_all(self, user: Inhabitant) -> None:
        """Says something until everybody has heard it; who has been removed meanwhile need not.

        Once may not be enough: a server that does not know yet who has come in does not send to them. They get what
        they lack with the next event that refers to it.
        """
        deaf: list[str] = []
        for _ in range(REST_REPEATS_MAX):
            self._said += 1
            room = f"/rooms/{quote(self.room_id)}"
            answer = await user.client.call("PUT", f"{room}/send/m.room.message/rest{self._said}", {"body": "?"})
            if answer.status != 200:
                # Its own server knows by now that it was removed, or has yet to hear that it was not.
                await self._until_told(user)
                return
            event_path = f"{room}/event/{quote(answer.body['event_id'], safe='')}"

            async def heard(event_path: str = event_path) -> bool:
                members = await self._members()
                others = [other for other in members if other is not user]
                deaf[:] = [each.user_id for each in others if (await each.client.call("GET", event_path)).status != 200]
                return not deaf or user not in members

            try:
                await wait_until(heard, seconds_max=REST_SECONDS)
            except TimeoutError:
                continue
            return
        raise AssertionError("\n".join([f"{deaf} do not hear {user.user_id}", *self.log]))

    async def _until_told(self, user: Inhabitant) -> None:
        async def agreed() -> bool:
            own = await membership(user.client, self.room_id, user.user_id)
            return (own == "join") == (user in await self._members())

        for _ in range(REST_REPEATS_MAX):
            await self.founder.client.send(self.room_id, "is anybody there?")
            try:
                await wait_until(agreed, seconds_max=REST_SECONDS)
            except TimeoutError:
                continue
            return
        raise AssertionError("\n".join([f"It is not clear whether {user.user_id} is in the room", *self.log]))

    async def _view(self, user: Inhabitant) -> tuple[Any, set[str], set[str]]:
        """What a server believes: the state, the ends, and what its member sees.

        An event that a server has soft-failed is not shown there, and may be elsewhere: it came in another order.
        """
        entries = {slot: event["event_id"] for slot, event in (await state(user.client, self.room_id)).items()}
        hidden = {
            event_id for server in self.deployment.servers for event_id in await soft_failed(server, self.room_id)
        }
        timeline = await visible(user.client, self.room_id) - hidden - self.before
        return entries, await extremities(user.server, self.room_id), timeline


async def is_partial(server: Homeserver, room_id: str) -> bool:
    """Whether a server does not know all members of a room yet."""
    connection = await asyncpg.connect(server.config.database.url)
    try:
        statement = "SELECT EXISTS (SELECT FROM partial_rooms JOIN rooms USING (room_nid) WHERE room_id = $1)"
        return bool(await connection.fetchval(statement, room_id))
    finally:
        await connection.close()


async def soft_failed(server: Homeserver, room_id: str) -> list[str]:
    """The events of a room that a server has soft-failed."""
    connection = await asyncpg.connect(server.config.database.url)
    try:
        rows = await connection.fetch(
            "SELECT event_id FROM events JOIN rooms USING (room_nid) WHERE room_id = $1 AND soft_failed", room_id
        )
        return [row["event_id"] for row in rows]
    finally:
        await connection.close()


def differences(views: list[Any]) -> list[str]:
    """How the views of servers differ from the first."""
    found = []
    for number, view in enumerate(views[1:], 1):
        for name, own, other in zip(("state", "ends", "timeline"), views[0], view, strict=True):
            one, two = (set(each.items()) if isinstance(each, dict) else each for each in (own, other))
            found.append(f"{name} of 0 and {number}: only 0: {one - two}, only {number}: {two - one}")
    return found
