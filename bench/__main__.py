"""Measures a server of its own on this machine: how fast people register, write, and read what others wrote.

It runs `homeserver run` with an embedded PostgreSQL in a temporary folder, and speaks to it as clients do. The numbers
are for comparing one commit with another on one machine.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

START_SECONDS_MAX = 60
REQUEST_SECONDS_MAX = 60


@dataclass(frozen=True, slots=True)
class Options:
    """How large the measurement is.

    Attributes:
        users: how many users there are, all in one room.
        messages: how many messages they send together.
        senders: how many of them send at the same time.
    """

    users: int
    messages: int
    senders: int


class Client:
    """A user's client."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self._token: str | None = None
        self._since: str | None = None

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
        """Makes the account."""
        body = {"username": f"user{number}", "password": "a long password", "auth": {"type": "m.login.dummy"}}
        self._token = (await self.call("POST", "register", body))["access_token"]

    async def create_room(self) -> str:
        """Makes a public room, and returns its id."""
        return str((await self.call("POST", "createRoom", {"preset": "public_chat"}))["room_id"])

    async def join(self, room_id: str) -> None:
        """Joins a room."""
        await self.call("POST", f"rooms/{room_id}/join", {})

    async def send(self, room_id: str, number: int) -> None:
        """Sends a message."""
        content = {"msgtype": "m.text", "body": f"Message number {number}"}
        await self.call("PUT", f"rooms/{room_id}/send/m.room.message/t{number}", content)

    async def sync(self) -> None:
        """Reads what is new, without waiting."""
        query = {"timeout": "0"} if self._since is None else {"timeout": "0", "since": self._since}
        self._since = (await self.call("GET", "sync", **query))["next_batch"]


@asynccontextmanager
async def running_server() -> AsyncIterator[tuple[str, psutil.Process]]:
    """The URL and the process of a server that is healthy."""
    with tempfile.TemporaryDirectory(prefix="heliograph-bench-") as folder:
        config = Path(folder) / "config.yaml"
        settings = {
            "server_name": "bench.localhost",
            "listeners": [{"port": 0, "resources": ["client", "health"]}],
            "registration": {"enabled": True, "require_verification": False},
            "rate_limits": {"enabled": False},
            "logging": {"level": "info", "format": "json"},
        }
        config.write_text(json.dumps(settings))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "homeserver", "run", "-c", str(config)), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                url = await _listening_url(process.stdout)
            async with asyncio.TaskGroup() as group:
                drain = group.create_task(_drain(process.stdout))
                yield url, psutil.Process(process.pid)
                process.terminate()
                await process.wait()
                drain.cancel()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


async def _listening_url(lines: asyncio.StreamReader) -> str:
    async for line in lines:
        event = json.loads(line)
        if event["event"] == "listening":
            return str(event["url"])
    raise RuntimeError("The server did not start")


async def _drain(lines: asyncio.StreamReader) -> None:
    while await lines.read(65536):
        pass


async def measure(
    name: str, works: Iterable[Callable[[], Awaitable[Any]]], *, at_once: int, server: psutil.Process
) -> None:
    """Does some work, so much of it at once, and prints how fast it went and what it cost the server."""
    queue = iter(works)
    took: list[float] = []

    async def work_off() -> None:
        for work in queue:
            started = time.perf_counter()
            await work()
            took.append(time.perf_counter() - started)

    cpu, started = _cpu_seconds(server), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work_off())
    seconds = time.perf_counter() - started
    took.sort()
    cpu_ms = (_cpu_seconds(server) - cpu) / len(took) * 1000
    p50, p99 = took[len(took) // 2] * 1000, took[int(len(took) * 0.99)] * 1000
    print(f"{name:<20} {len(took) / seconds:>9.1f}/s   p50 {p50:>8.1f} ms   p99 {p99:>8.1f} ms   CPU {cpu_ms:>7.2f} ms")


def _cpu_seconds(server: psutil.Process) -> float:
    times = server.cpu_times()
    return float(times.user + times.system)


async def main(options: Options) -> None:
    """Runs all measurements."""
    print("CPU is that of the server's own process for one operation; PostgreSQL comes on top.")
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
    async with running_server() as (url, server), aiohttp.ClientSession(timeout=timeout) as http:
        users = [Client(http, url) for _ in range(options.users)]

        def register(number: int) -> Callable[[], Awaitable[None]]:
            return lambda: users[number].register(number)

        await measure("register", (register(n) for n in range(len(users))), at_once=4, server=server)
        room_id = await users[0].create_room()

        def join(user: Client) -> Callable[[], Awaitable[None]]:
            return lambda: user.join(room_id)

        def send(number: int) -> Callable[[], Awaitable[None]]:
            return lambda: users[number % len(users)].send(room_id, number)

        await measure("join", (join(user) for user in users[1:]), at_once=4, server=server)
        await measure("first sync", (user.sync for user in users), at_once=4, server=server)
        sends = (send(number) for number in range(options.messages))
        await measure("send a message", sends, at_once=options.senders, server=server)
        await measure("incremental sync", (user.sync for user in users), at_once=4, server=server)
        await measure("sync without news", (user.sync for user in users * 5), at_once=4, server=server)


def parse_options() -> Options:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--users", type=int, default=50, help="users in the room (default 50)")
    parser.add_argument("--messages", type=int, default=1000, help="messages that are sent (default 1000)")
    parser.add_argument("--senders", type=int, default=10, help="messages on their way at once (default 10)")
    found = parser.parse_args()
    return Options(users=max(2, found.users), messages=max(1, found.messages), senders=max(1, found.senders))


if __name__ == "__main__":
    asyncio.run(main(parse_options()))
