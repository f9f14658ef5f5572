"""Clients that keep what they asked and what was answered, so that two servers can be compared."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import aiohttp

PASSWORD: Final = "correct horse battery staple"
_PREFIX: Final = "/_matrix/client/v3"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer.

    Attributes:
        who: the name of the user who asked.
        request: method, path and query.
        status: of the answer.
        body: of the answer; None where it was no JSON.
    """

    who: str
    request: str
    status: int
    body: Any


@dataclass(slots=True)
class Recording:
    """What happened on one server in one scenario.

    Attributes:
        exchanges: all requests with their answers, in order.
        names: what an id is called in comparisons, for ids that the server has chosen.
        failure: why the scenario could not go on to its end.
    """

    exchanges: list[Exchange] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    failure: str | None = None

    def add(self, exchange: Exchange) -> None:
        """Keeps an exchange; ids that it makes known are called after its number, which is the same on both servers."""
        number = len(self.exchanges)
        self.exchanges.append(exchange)
        for member, value in _chosen_by_the_server(exchange.body):
            self.names.setdefault(value, f"<{member} of {number}>")
        for token in _tokens(exchange.body):
            self.names.setdefault(token, "<token>")


_CHOSEN: Final = (
    "access_token",
    "device_id",
    "event_id",
    "filter_id",
    "refresh_token",
    "replacement_room",
    "room_id",
    "session",
)


TOKENS: Final = frozenset({"end", "next_batch", "next_token", "prev_batch", "start"})
"""The members that hold tokens for paging and syncing."""


def _tokens(body: Any) -> Iterator[str]:
    if isinstance(body, dict):
        for name, child in body.items():
            if name in TOKENS and isinstance(child, str):
                yield child
            else:
                yield from _tokens(child)
    elif isinstance(body, list):
        for child in body:
            yield from _tokens(child)


def _chosen_by_the_server(body: Any) -> Iterator[tuple[str, str]]:
    if isinstance(body, dict):
        for member in _CHOSEN:
            value = body.get(member)
            if isinstance(value, str) and value:
                yield member, value
        # The names of others say which scenario they are of.
        user_id = body.get("user_id")
        if isinstance(user_id, str) and "." not in user_id:
            yield "user_id", user_id


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered."""

    status: int
    body: Any

    def __getitem__(self, member: str) -> Any:
        """A member of the body; a scenario that needs what is not there ends."""
        if not isinstance(self.body, dict) or member not in self.body:
            raise ScenarioEnded(f"{self.status} {self.body} has no {member}")
        return self.body[member]


class ScenarioEnded(Exception):
    """The scenario cannot go on, for the server has not answered what it needs."""


@dataclass(slots=True)
class Client:
    """A device of a user, or somebody without an account."""

    stage: "Stage"
    name: str
    user_id: str = ""
    device_id: str = ""
    token: str | None = None

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Answer:
        """Sends a request and records it; a path without a leading `/_` lies below `/_matrix/client/v3`.

        `body` may be bytes, which are sent as they are. The parameter `from` is written `from_`.
        """
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        texts = {name.removesuffix("_"): _text(value) for name, value in query.items() if value is not None}
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        url = self.stage.url + (path if path.startswith("/_") else _PREFIX + path)
        async with self.stage.http.request(method, url, data=content, params=texts, headers=headers) as response:
            try:
                parsed = json.loads(await response.read())
            except ValueError:
                parsed = None
        shown = f"{method} {path}" + ("?" + "&".join(f"{n}={v}" for n, v in texts.items()) if texts else "")
        self.stage.recording.add(Exchange(self.name, shown, response.status, parsed))
        return Answer(response.status, parsed)

    async def get(self, path: str, **query: Any) -> Answer:
        """Asks for something."""
        return await self.call("GET", path, **query)

    async def put(self, path: str, body: Any) -> Answer:
        """Puts something."""
        return await self.call("PUT", path, body)

    async def post(self, path: str, body: Any = None, **query: Any) -> Answer:
        """Posts something."""
        return await self.call("POST", path, {} if body is None else body, **query)

    async def delete(self, path: str, body: Any = None) -> Answer:
        """Deletes something."""
        return await self.call("DELETE", path, body)

    async def create_room(self, **members: Any) -> "Room":
        """Creates a room; an ordinary one, where nothing else is said."""
        answer = await self.post("/createRoom", members)
        return Room(answer["room_id"])

    async def act(self, room: "Room", action: str, **body: Any) -> Answer:
        """Joins, leaves, invites, kicks, bans ... in a room."""
        return await self.post(f"{room.path}/{action}", body)

    async def send(self, room: "Room", body: str = "hello", *, event_type: str = "m.room.message", **more: Any) -> str:
        """Sends a message, and returns its event id."""
        content = {"msgtype": "m.text", "body": body, **more}
        return str((await self.put(room.send_path(event_type, self.stage.new_txn_id()), content))["event_id"])

    async def set_state(self, room: "Room", event_type: str, content: Any, state_key: str = "") -> Answer:
        """Sets a state event."""
        return await self.put(room.state_path(event_type, state_key), content)

    async def sync(self, since: str | None = None, **query: Any) -> Answer:
        """Syncs without waiting; a filter may be given as an object."""
        return await self.get("/sync", since=since, timeout=0, **query)


@dataclass(frozen=True, slots=True)
class Room:
    """A room, and where its parts are found."""

    room_id: str

    @property
    def path(self) -> str:
        """Where the room is."""
        return f"/rooms/{quote(self.room_id, safe='')}"

    def send_path(self, event_type: str, txn_id: str) -> str:
        """Where a message is put."""
        return f"{self.path}/send/{event_type}/{txn_id}"

    def state_path(self, event_type: str, state_key: str = "") -> str:
        """Where a state event is."""
        return f"{self.path}/state/{event_type}/{quote(state_key, safe='')}"

    def event_path(self, event_id: str) -> str:
        """Where an event is."""
        return f"{self.path}/event/{quote(event_id, safe='')}"


@dataclass(slots=True)
class Stage:
    """One server on which a scenario is played."""

    url: str
    server_name: str
    scenario: str
    http: aiohttp.ClientSession
    recording: Recording = field(default_factory=Recording)
    _transactions: int = 0

    def anybody(self) -> Client:
        """Somebody without an account."""
        return Client(self, "anybody")

    def localpart(self, name: str) -> str:
        """The user name of somebody in this scenario; other scenarios have others."""
        return f"{name}.{self.scenario}"

    def user_id(self, name: str) -> str:
        """The id of somebody in this scenario."""
        return f"@{self.localpart(name)}:{self.server_name}"

    async def user(self, name: str) -> Client:
        """A new user with a device."""
        body = {
            "username": self.localpart(name),
            "password": PASSWORD,
            "device_id": name.upper(),
            "auth": {"type": "m.login.dummy"},
        }
        answer = await self.anybody().post("/register", body)
        return self.client(name, answer)

    async def users(self, *names: str) -> list[Client]:
        """Several new users."""
        return [await self.user(name) for name in names]

    def client(self, name: str, session: Answer) -> Client:
        """The client with the session that a login or a registration has answered."""
        return Client(self, name, session["user_id"], session["device_id"], session["access_token"])

    def new_txn_id(self) -> str:
        """A transaction id."""
        self._transactions += 1
        return f"txn{self._transactions}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return json.dumps(value)
    return str(value)
