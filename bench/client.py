"""A user's client, over HTTP and over the WebSocket."""

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

REQUEST_SECONDS_MAX: Final = 120
PASSWORD: Final = "a long password"
"""Of everybody who registers."""
LAZY: Final = json.dumps({"room": {"state": {"lazy_load_members": True}}})
"""A filter that loads members lazily, as most clients do."""

_SOCKET_PATH: Final = "/_matrix/client/unstable/org.heliograph.ws"
_numbers = itertools.count(1)


def http_session() -> aiohttp.ClientSession:
    """Connections for any number of clients."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX), connector=aiohttp.TCPConnector(limit=0)
    )


class Client:
    """A user's client."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self._token: str | None = None
        self.user_id = ""
        self.since: str | None = None

    async def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """One request; anything but a success ends the measurement."""
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        url = f"{self._url}/_matrix/client/v3/{path}"
        async with self._http.request(method, url, json=body, params=query, headers=headers) as response:
            answer = await response.json()
            if response.status != 200:
                raise RuntimeError(f"{method} {path} answered {response.status}: {answer}")
            return answer

    async def register(self, number: int) -> None:
        """Makes the account `user<number>`."""
        body = {"username": f"user{number}", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        self._log_in(await self.call("POST", "register", body))

    async def log_in(self, username: str, password: str) -> None:
        """Gets a device of its own."""
        identifier = {"type": "m.id.user", "user": username}
        body = {"type": "m.login.password", "identifier": identifier, "password": password}
        self._log_in(await self.call("POST", "login", body))

    def _log_in(self, answer: Any) -> None:
        self._token, self.user_id = answer["access_token"], answer["user_id"]

    async def create_room(self) -> str:
        """Makes a public room, and returns its id."""
        return str((await self.call("POST", "createRoom", {"preset": "public_chat"}))["room_id"])

    async def join(self, room_id: str) -> None:
        """Joins a room."""
        await self.call("POST", f"rooms/{room_id}/join", {})

    async def leave(self, room_id: str) -> None:
        """Leaves a room."""
        await self.call("POST", f"rooms/{room_id}/leave", {})

    async def send(self, room_id: str) -> str:
        """Sends a message; its event id."""
        number = next(_numbers)
        content = {"msgtype": "m.text", "body": f"Message number {number}"}
        return str((await self.call("PUT", f"rooms/{room_id}/send/m.room.message/t{number}", content))["event_id"])

    async def sync(self, *, timeout_ms: int = 0, **query: str) -> set[str]:
        """Reads what is new; the ids of the events that came."""
        return event_ids(await self.sync_answer(timeout_ms=timeout_ms, **query))

    async def sync_answer(self, *, timeout_ms: int = 0, **query: str) -> Any:
        """Reads what is new; all of it."""
        since = {} if self.since is None else {"since": self.since}
        answer = await self.call("GET", "sync", None, timeout=str(timeout_ms), **since, **query)
        self.since = answer["next_batch"]
        return answer

    @asynccontextmanager
    async def pushed_syncs(self, **query: str) -> AsyncIterator[AsyncIterator[Any]]:
        """Syncs that are pushed over a WebSocket, from where the client is."""
        headers = {"Authorization": f"Bearer {self._token}"}
        async with self._http.ws_connect(self._url + _SOCKET_PATH, headers=headers, max_msg_size=2**27) as socket:
            wish = {"timeout": 60_000, "since": self.since, **query}
            await socket.send_json({"id": "s", "operation": "subscribe_sync", "query": wish, "window": 1})

            async def syncs() -> AsyncIterator[Any]:
                async for message in socket:
                    frame = message.json()
                    if "ping" in frame:
                        await socket.send_json({"pong": frame["ping"]})
                        continue
                    if "sync" not in frame:
                        raise RuntimeError(f"The subscription was answered with {frame}")
                    self.since = frame["sync"]["next_batch"]
                    await socket.send_json({"id": "s", "ack": self.since})
                    yield frame["sync"]

            yield syncs()


def event_ids(sync: Any) -> set[str]:
    """The ids of the events in the timelines of a sync."""
    rooms = sync.get("rooms", {}).get("join", {}).values()
    return {event["event_id"] for room in rooms for event in room.get("timeline", {}).get("events", ())}
