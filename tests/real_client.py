"""A plain client over real HTTP, for servers that run as processes: it hides nothing and retries nothing."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import aiohttp

REQUEST_SECONDS_MAX: Final = 45.0
PASSWORD: Final = "correct horse battery staple"
# A sync that leaves no event out, as far as a test goes.
WHOLE_TIMELINES: Final = json.dumps({"room": {"timeline": {"limit": 10_000}}})

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered; the body is None where it was no JSON."""

    status: int
    body: Any
    headers: Mapping[str, str]


class Refused(Exception):
    """A request that had to succeed did not."""

    def __init__(self, request: str, answer: Answer) -> None:
        super().__init__(f"{request} was answered with {answer.status} {answer.body}")
        self.answer = answer


@dataclass
class Client:
    """A device of a user, with connections of its own."""

    url: str
    http: aiohttp.ClientSession
    user_id: str = ""
    device_id: str = ""
    token: str | None = None

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Answer:
        """Sends a request; a path without a leading `/_` lies below `/_matrix/client/v3`.

        Raises:
            aiohttp.ClientError, ConnectionError: the connection ended before the answer.
            TimeoutError: there is no answer in time.
        """
        if not path.startswith("/_"):
            path = f"/_matrix/client/v3{path}"
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in query.items()}
        async with self.http.request(method, self.url + path, json=body, params=texts, headers=headers) as response:
            content = await response.read()
            try:
                parsed = json.loads(content)
            except ValueError:
                parsed = None
            return Answer(response.status, parsed, response.headers)

    async def get(self, path: str, **query: Any) -> Any:
        """The body of the answer to a GET that must succeed."""
        return await self._succeed("GET", path, None, query)

    async def put(self, path: str, body: Any) -> Any:
        """The body of the answer to a PUT that must succeed."""
        return await self._succeed("PUT", path, body, {})

    async def post(self, path: str, body: Any = None) -> Any:
        """The body of the answer to a POST that must succeed."""
        return await self._succeed("POST", path, {} if body is None else body, {})

    async def create_room(self, **members: Any) -> str:
        """A new room."""
        room_id: str = (await self.post("/createRoom", members))["room_id"]
        return room_id

    async def send(self, room_id: str, body: str, *, txn_id: str | None = None) -> str:
        """Sends a text message, and returns its event id."""
        content = {"msgtype": "m.text", "body": body}
        event_id: str = (await self.put(send_path(room_id, txn_id or f"t{next(_numbers)}"), content))["event_id"]
        return event_id

    async def sync(self, since: str | None = None, *, timeout_ms: int = 0, **query: Any) -> Any:
        """The answer to a sync with whole timelines."""
        more = {} if since is None else {"since": since}
        return await self.get("/sync", **{"filter": WHOLE_TIMELINES, "timeout": timeout_ms, **more, **query})

    async def history(self, room_id: str) -> list[dict[str, Any]]:
        """All events of a room, the oldest first, read page by page from its end."""
        events: list[dict[str, Any]] = []
        page = {"from": ""}
        while "from" in page:
            start = {"from": page["from"]} if page["from"] else {}
            answer = await self.get(f"/rooms/{quote(room_id)}/messages", dir="b", limit=100, **start)
            events += answer["chunk"]
            page = {"from": answer["end"]} if answer.get("end") else {}
        return events[::-1]

    async def _succeed(self, method: str, path: str, body: Any, query: Mapping[str, Any]) -> Any:
        answer = await self.call(method, path, body, **query)
        if answer.status != 200:
            raise Refused(f"{method} {path}", answer)
        return answer.body


def send_path(room_id: str, txn_id: str) -> str:
    """Where a text message is put."""
    return f"/rooms/{quote(room_id)}/send/m.room.message/{quote(txn_id, safe='')}"


@asynccontextmanager
async def anonymous_client(url: str) -> AsyncIterator[Client]:
    """A client without a session."""
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
    # One connection, which is kept: where several workers listen, one of them serves the client.
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=1)) as http:
        yield Client(url, http)


@asynccontextmanager
async def new_user(url: str, localpart: str) -> AsyncIterator[Client]:
    """A client of a user that is registered now."""
    async with anonymous_client(url) as client:
        auth = {"type": "m.login.dummy"}
        registered = await client.post("/register", {"username": localpart, "password": PASSWORD, "auth": auth})
        _take_session(client, registered)
        yield client


@asynccontextmanager
async def new_device(user: Client) -> AsyncIterator[Client]:
    """Another client of a user, with a session and connections of its own."""
    async with anonymous_client(user.url) as client:
        identifier = {"type": "m.id.user", "user": user.user_id}
        login = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
        _take_session(client, await client.post("/login", login))
        yield client


def _take_session(client: Client, answer: Mapping[str, Any]) -> None:
    client.user_id, client.device_id = answer["user_id"], answer["device_id"]
    client.token = answer["access_token"]


@dataclass
class Follower:
    """Follows a user's syncs as a client does, and keeps the messages of each room in the order of their arrival."""

    client: Client
    messages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    since: str | None = None
    failures: int = 0

    async def step(self, *, timeout_ms: int = 0) -> None:
        """One sync.

        Raises:
            Refused: the server refused it.
        """
        answer = await self.client.sync(self.since, timeout_ms=timeout_ms)
        for room_id, room in answer.get("rooms", {}).get("join", {}).items():
            timeline = room["timeline"]
            assert self.since is None or not timeline.get("limited"), "the server left events out"
            sent = [event for event in timeline["events"] if event["type"] == "m.room.message"]
            self.messages.setdefault(room_id, []).extend(sent)
        self.since = answer["next_batch"]

    async def run(self) -> None:
        """Syncs until it is cancelled; after an outage it goes on from where it was."""
        while True:
            try:
                await self.step(timeout_ms=10_000)
            except (Refused, aiohttp.ClientError, ConnectionError) as error:
                if isinstance(error, Refused) and error.answer.status < 500:
                    raise
                self.failures += 1
                await asyncio.sleep(0.1)

    def bodies(self, room_id: str) -> list[str]:
        """The texts of the messages of a room, as they came."""
        return [event["content"]["body"] for event in self.messages.get(room_id, [])]

    def event_ids(self, room_id: str) -> list[str]:
        """The event ids of the messages of a room, as they came."""
        return [event["event_id"] for event in self.messages.get(room_id, [])]
