"""Devices with matrix-js-sdk and its Rust crypto, as Element has them: many in one Node process, driven by JSON lines.

    async with javascript(folder) as program:
        alice = await program.open(client)
        await alice.send(room_id, "Hello")
        await alice.close()

What each method does is told in `js/device.mjs`; those that wait have a limit there.
"""

import asyncio
import itertools
import json
import shutil
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.real_client import PASSWORD, Client

PROGRAM: Final = Path(__file__).parent / "js"
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
END_SECONDS_MAX: Final = 10.0


def missing() -> str | None:
    """What is not there for such devices, as a reason to skip; None if all is."""
    if shutil.which("node") is None:
        return "There is no Node to run matrix-js-sdk with"
    if not (PROGRAM / "node_modules" / ".made").exists():
        return "matrix-js-sdk is not installed: `make js-client` installs it, with npm"
    return None


class Failed(Exception):
    """What a device was asked to do has failed; the message is its own."""


@dataclass
class JavaScript:
    """The Node process, and the calls that it has not answered yet."""

    process: Process
    calls: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    _numbers: Iterable[int] = field(default_factory=lambda: itertools.count(1))

    async def open(self, client: Client) -> "JsDevice":
        """A device that uses a client's session, and has synced once."""
        device = JsDevice(self, client)
        await device.open()
        return device

    async def pass_time(self, seconds: float) -> None:
        """Lets as much time pass for the encryption of all devices: for a while it does not ask servers that fail."""
        await self.call("", "passTime", seconds * 1000)

    async def call(self, device: str, method: str, *args: Any) -> Any:
        """What a method of a device gives.

        Raises:
            Failed: it has failed, or the process has ended.
        """
        number = next(iter(self._numbers))
        call = self.calls[number] = asyncio.get_running_loop().create_future()
        request = {"id": number, "device": device, "method": method, "args": args}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        try:
            return await call
        finally:
            del self.calls[number]

    async def read(self) -> None:
        """Hands out what the process answers, until it ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            answer = json.loads(line)
            call = self.calls.get(answer["id"])
            if call is None or call.done():
                continue
            if "error" in answer:
                call.set_exception(Failed(answer["error"]))
            else:
                call.set_result(answer["result"])
        for call in self.calls.values():
            call.set_exception(Failed("The process has ended"))


@asynccontextmanager
async def javascript(folder: Path) -> AsyncIterator[JavaScript]:
    """A Node process that runs until the block ends; what it says besides is in `javascript.log`."""
    with (folder / "javascript.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *("node", str(PROGRAM / "driver.mjs")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=LINE_BYTES_MAX,
        )
    try:
        async with asyncio.TaskGroup() as group:
            program = JavaScript(process)
            reading = group.create_task(program.read())
            try:
                yield program
            finally:
                reading.cancel()
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    """Ends the process as the end of its input does, or by force."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(END_SECONDS_MAX):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@dataclass
class JsDevice:
    """A device; `client` has the same session, for what the test does or looks at by itself."""

    program: JavaScript
    client: Client

    @property
    def user_id(self) -> str:
        """Whose it is."""
        return self.client.user_id

    @property
    def device_id(self) -> str:
        """Which it is."""
        return self.client.device_id

    async def call(self, method: str, *args: Any) -> Any:
        """What a method of the device gives; raises `Failed`."""
        return await self.program.call(f"{self.user_id} {self.device_id}", method, *args)

    async def open(self) -> None:
        """Begins, or goes on with the keys that it had when it was closed."""
        session = {"url": self.client.url, "userId": self.user_id, "deviceId": self.device_id}
        await self.call("open", {**session, "token": self.client.token, "password": PASSWORD})

    async def close(self) -> None:
        """Stops; the session goes on."""
        await self.call("close")

    async def create_room(self, *invited: "JsDevice", **options: Any) -> str:
        """An encrypted room, which others are invited to."""
        invite = [other.user_id for other in invited]
        room_id: str = await self.call("createRoom", {"invite": invite, **options})
        return room_id

    async def join(self, room_id: str, *via: str, **options: Any) -> None:
        """Joins a room by way of servers."""
        await self.call("join", room_id, via, options)

    async def until_members(self, room_id: str, *others: "JsDevice") -> None:
        """Waits until it knows that all of these are members."""
        await self.call("untilMembers", room_id, [other.user_id for other in others])

    async def send(self, room_id: str, body: str) -> str:
        """Sends an encrypted message; its id."""
        event_id: str = await self.call("send", room_id, body)
        return event_id

    async def until_read(self, room_id: str, *bodies: str | None) -> Sequence[Mapping[str, Any]]:
        """Waits until it reads just these messages; None stands for one that it cannot read."""
        messages: Sequence[Mapping[str, Any]] = await self.call("untilRead", room_id, bodies)
        return messages

    async def until_devices(self, user_id: str, *device_ids: str) -> None:
        """Waits until it knows just these devices of a user."""
        await self.call("untilDevices", user_id, device_ids)
