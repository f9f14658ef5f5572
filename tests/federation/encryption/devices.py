"""Devices of this server's users, without the web, and what tells other servers of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from federation.outbound import device_list_sender
from federation.outbound.device_list_recovery import DeviceListRecovery
from federation.outbound.device_list_sender import DeviceListSender
from federation.outbound.edu_audience import EduAudience
from federation.outbound.room_servers import RoomServers
from federation.wire.allowed_servers import AllowedServers
from homeserver.core.ids import DeviceId, UserId
from homeserver.core.requester import Requester
from homeserver.services.e2ee.cross_signing import CrossSigning, parse_cross_signing_keys
from homeserver.services.e2ee.key_queries import KeyQueries
from homeserver.services.e2ee.key_uploads import KeyUploads
from homeserver.services.e2ee.keys_of_devices import KeysOfDevices
from homeserver.services.stream.follower import Batch, Follower
from homeserver.services.stream.hub import Hub
from storage import devices
from storage.devices import DeviceSeen
from storage.events import EventCache
from storage.followers import get_follower_position
from storage.positions import stream_bound
from storage.state import StateStore
from tests.api.e2ee.keys import CrossSigner
from tests.fast_clock import FastClock
from tests.federation.encryption.world import Keeping, identity_keys
from tests.rooms.workers import ALICE, SERVER, Worker


class Telling:
    """A worker whose users have devices, and which tells other servers of them when it is asked to."""

    def __init__(self, worker: Worker, *, clock: FastClock | None = None) -> None:
        self.worker = worker
        self.db = worker.db
        self.bus = worker.bus
        self.clock = clock or FastClock(speed=50)
        self._queries = KeyQueries(db=self.db, server_name=SERVER, remote=Keeping(worker).keys)
        self._uploads = KeyUploads(db=self.db, bus=self.bus)
        self._cross_signing = CrossSigning(db=self.db, bus=self.bus)
        room_servers = RoomServers(server_name=SERVER, states=StateStore(), events=EventCache())
        allowed = AllowedServers(allowed=None, denied=())
        audience = EduAudience(server_name=SERVER, room_servers=room_servers, allowed=allowed)
        means: dict[str, Any] = {"db": self.db, "bus": self.bus, "clock": self.clock, "queries": self._queries}
        self.sender = DeviceListSender(**means, audience=audience)
        self.recovery = DeviceListRecovery(**means, audience=audience)

    async def add_user(self, user_id: UserId = ALICE) -> None:
        """Makes an account, if there is none."""
        async with self.db.connection() as conn:
            await conn.execute(
                "INSERT INTO users (user_id, created_ts) VALUES ($1, 0) ON CONFLICT (user_id) DO NOTHING", user_id
            )

    async def upload(self, *device_ids: str, user_id: UserId = ALICE, name: str | None = None) -> list[dict[str, Any]]:
        """Makes devices, or finds them, and uploads new keys for each; returns these."""
        await self.add_user(user_id)
        uploaded = []
        for device_id in device_ids:
            seen = DeviceSeen(user_id, DeviceId(device_id), 0, "", "")
            async with self.db.connection() as conn:
                await devices.upsert_device(conn, seen, display_name=name)
            keys = identity_keys(user_id, device_id)
            await self._uploads.upload(Requester(user_id, seen.device_id), identity=keys)
            uploaded.append(keys)
        return uploaded

    async def delete(self, *device_ids: str, user_id: UserId = ALICE) -> None:
        """Removes devices."""
        ids = [DeviceId(device_id) for device_id in device_ids]
        async with self.db.transaction() as conn:
            deleted = await devices.delete_devices(conn, user_id=user_id, device_ids=ids)
            await KeysOfDevices().devices_deleted(conn, user_id=user_id, device_ids=ids)
        await self.bus.wake({f"user:{user_id}"}, deleted.position)

    async def sign_across(self, user_id: UserId = ALICE) -> CrossSigner:
        """Uploads cross-signing keys, new ones each time."""
        await self.add_user(user_id)
        signer = CrossSigner(user_id)
        given = parse_cross_signing_keys(user_id, signer.body())
        await self._cross_signing.upload(user_id, given, is_authenticated=True)
        return signer

    async def tell(self) -> None:
        """Lets the follower handle what is new."""
        name = device_list_sender.NAME
        async with self.db.connection() as conn:
            since, upto = await get_follower_position(conn, name, start=0), await stream_bound(conn)
        reached = since
        while reached < upto:
            batch = Batch(follower=name, since=reached, upto=upto, saved_upto=reached)
            reached = await self.sender.handle(batch)
            if reached > batch.saved_upto:
                async with self.db.connection() as conn:
                    await batch.save(conn, reached)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tells by itself meanwhile."""
        hub = Hub(db=self.db, bus=self.bus, clock=self.clock, streams=[])
        follower = Follower(
            name=device_list_sender.NAME,
            keys=device_list_sender.KEYS,
            consumer=self.sender,
            db=self.db,
            hub=hub,
            clock=self.clock,
            from_beginning=True,
            gather_seconds=device_list_sender.GATHER_SECONDS,
        )
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run()) for run in (hub.run, follower.run, self.recovery.run)]
            yield
            for task in tasks:
                task.cancel()
