"""Devices with matrix-nio and its encryption, which follow their syncs by themselves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nio import (
    AsyncClient,
    AsyncClientConfig,
    JoinResponse,
    MegolmEvent,
    RoomMessageText,
    RoomSendResponse,
    ToDeviceResponse,
)
from nio.crypto import OlmDevice, Sas

from tests.clients.encryption.stage import WAIT_SECONDS_MAX
from tests.clients.nio_clients import good
from tests.real_client import Client
from tests.waiting import wait_until

CONFIG = AsyncClientConfig(max_timeouts=0, max_limit_exceeded=0, request_timeout=30, encryption_enabled=True)


@dataclass
class NioDevice:
    """A device; `messages` are those of all its rooms: what they say, or None for what it cannot read."""

    client: AsyncClient
    messages: list[str | None] = field(default_factory=list)

    @property
    def user_id(self) -> str:
        """Whose it is."""
        return str(self.client.user_id)

    @property
    def device_id(self) -> str:
        """Which it is."""
        return str(self.client.device_id)

    async def join(self, room_id: str) -> None:
        """Takes an invitation."""
        await wait_until(lambda: room_id in self.client.invited_rooms, seconds_max=WAIT_SECONDS_MAX)
        good(await self.client.join(room_id), JoinResponse)

    async def until_members(self, room_id: str, *user_ids: str) -> None:
        """Waits until it knows that all of these are members of an encrypted room."""

        def holds() -> bool:
            room = self.client.rooms.get(room_id)
            return room is not None and room.encrypted and set(user_ids) <= set(room.users)

        await wait_until(holds, seconds_max=WAIT_SECONDS_MAX)

    async def send(self, room_id: str, body: str) -> None:
        """Sends an encrypted message to all devices of the room."""
        content = {"msgtype": "m.text", "body": body}
        sending = self.client.room_send(room_id, "m.room.message", content, ignore_unverified_devices=True)
        good(await sending, RoomSendResponse)

    async def until_read(self, *bodies: str | None) -> None:
        """Waits until it has read just these messages."""
        try:
            await wait_until(lambda: self.messages == list(bodies), seconds_max=WAIT_SECONDS_MAX)
        except TimeoutError:
            raise AssertionError(f"{self.user_id} reads {self.messages} in place of {list(bodies)}") from None

    async def known_device(self, other: "NioDevice") -> OlmDevice:
        """Another device as this one knows it, waited for."""
        store = self.client.device_store
        await wait_until(lambda: other.device_id in store[other.user_id], seconds_max=WAIT_SECONDS_MAX)
        return store[other.user_id][other.device_id]

    async def start_sas(self, other: "NioDevice") -> Sas:
        """Begins to verify another device."""
        good(await self.client.start_key_verification(await self.known_device(other)), ToDeviceResponse)
        return await self.sas()

    async def accept_sas(self) -> Sas:
        """Waits until another device begins to verify, and accepts."""
        sas = await self.sas()
        good(await self.client.accept_key_verification(sas.transaction_id), ToDeviceResponse)
        return sas

    async def sas(self) -> Sas:
        """The verification that goes on, waited for."""
        await wait_until(lambda: bool(self.client.key_verifications), seconds_max=WAIT_SECONDS_MAX)
        (sas,) = self.client.key_verifications.values()
        return sas

    async def emoji(self, sas: Sas) -> list[str]:
        """What is shown when both have told their keys."""
        await wait_until(lambda: sas.established_sas is not None, seconds_max=WAIT_SECONDS_MAX)
        return [symbol for symbol, _ in sas.get_emoji()]

    async def confirm(self, sas: Sas) -> None:
        """Says that the other device shows the same."""
        good(await self.client.confirm_short_auth_string(sas.transaction_id), ToDeviceResponse)


@asynccontextmanager
async def nio_device(client: Client, folder: Path) -> AsyncIterator[NioDevice]:
    """A device that uses a client's session, until the block ends; the folder is for its keys."""
    nio = AsyncClient(client.url, client.user_id, client.device_id, store_path=str(folder), config=CONFIG)
    nio.restore_login(client.user_id, client.device_id, str(client.token))
    device = NioDevice(nio)
    nio.add_event_callback(lambda _, event: device.messages.append(event.body), RoomMessageText)
    nio.add_event_callback(lambda _, event: device.messages.append(None), MegolmEvent)
    try:
        async with asyncio.TaskGroup() as group:
            following = group.create_task(nio.sync_forever(timeout=10_000, full_state=True))
            try:
                await wait_until(
                    lambda: bool(nio.next_batch) and not nio.should_upload_keys, seconds_max=WAIT_SECONDS_MAX
                )
                yield device
            finally:
                following.cancel()
    finally:
        await nio.close()
