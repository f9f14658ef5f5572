"""Where people with encrypted devices meet: two servers, and people with accounts there."""

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Protocol

from tests.clients.javascript import JavaScript, JsDevice
from tests.federation.deployment import Deployment, Homeserver
from tests.real_client import Client, new_device

WAIT_SECONDS_MAX: Final = 40.0
"""How long a test waits for what devices and servers do by themselves; they may be slow together."""

_numbers = count(1)


class Place(Protocol):
    """A server."""

    @property
    def name(self) -> str:
        """Its server name."""

    def user(self, localpart: str) -> AbstractAsyncContextManager[Client]:
        """A client of a new user."""

    async def stop(self) -> None:
        """Stops it."""

    async def start(self) -> None:
        """Starts it again."""


@dataclass
class Deployed:
    """A server of a deployment."""

    homeserver: Homeserver
    deployment: Deployment

    @property
    def name(self) -> str:
        """Its server name."""
        return self.homeserver.name

    def user(self, localpart: str) -> AbstractAsyncContextManager[Client]:
        """A client of a new user."""
        return self.homeserver.user(localpart)

    async def stop(self) -> None:
        """Stops it."""
        await self.homeserver.stop()

    async def start(self) -> None:
        """Starts it again."""
        await self.deployment.restart(self.homeserver)


@dataclass
class Stage:
    """Two servers, `home` and `away`, and the people of one test, whose devices are closed at its end."""

    program: JavaScript
    home: Place
    away: Place
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def client(self, place: Place, name: str) -> Client:
        """A plain client of a new user; the localpart begins with the name."""
        return await self._stack.enter_async_context(place.user(f"{name}{next(_numbers)}"))

    async def person(self, place: Place, name: str) -> JsDevice:
        """A new user with a device."""
        return await self._open(await self.client(place, name))

    async def couple(self) -> tuple[JsDevice, JsDevice]:
        """Alice at home and Bob away."""
        return await self.person(self.home, "alice"), await self.person(self.away, "bob")

    async def another_device(self, device: JsDevice) -> JsDevice:
        """A new device of a user who has one."""
        return await self._open(await self.another_client(device.client))

    async def another_client(self, client: Client) -> Client:
        """A plain client with a new session of a user."""
        return await self._stack.enter_async_context(new_device(client))

    async def room_of(self, creator: JsDevice, *others: JsDevice, **options: object) -> str:
        """An encrypted room of which all of these are members, as all of them know."""
        room_id = await creator.create_room(*others, **options)
        for other in others:
            await other.call("untilInvited", room_id)
            await other.join(room_id, creator.user_id.partition(":")[2])
        for one in (creator, *others):
            await one.until_members(room_id, creator, *others)
        return room_id

    async def _open(self, client: Client) -> JsDevice:
        device = await self.program.open(client)
        self._stack.push_async_callback(device.close)
        return device

    async def close(self) -> None:
        """Closes all devices and connections."""
        await self._stack.aclose()
