"""Fetching the device lists of other servers' users, until they are whole.

A list is fetched when somebody needs it, and by a task of each process when something in it is missing. What fails is
tried again, with growing pauses, and at once when the server answers again. A list counts as whole if nothing happened
to it while it was fetched. Clients are told when the list has been fetched, or when that has failed for the first time.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

import asyncio
import logging
from collections import Counter
from functools import partial
from typing import Final

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.clock import Clock
from homeserver.core.device_lists import DeviceList, ListedDevice, parse_device_list
from homeserver.core.encryption_keys import MASTER, SELF_SIGNING, CrossSigningKey
from homeserver.core.errors import MatrixError, RemoteRefused, RemoteUnavailable
from homeserver.core.ids import ServerName, UserId
from homeserver.services.e2ee.device_lists import note_changed_devices
from homeserver.services.remote import RemoteUserKeys, UserKeys
from homeserver.services.single_flight import SingleFlight
from storage import remote_device_lists
from storage.bus.base import Bus
from storage.database import Database
from storage.errors import DatabaseError
from storage.positions import stream_bound
from storage.remote_device_lists import DueList
from storage.remote_devices import RemoteDeviceRow, RemoteKeyRow, replace_remote_devices, replace_remote_keys

logger = logging.getLogger(__name__)

AT_ONCE: Final = 16
AT_ONCE_PER_SERVER: Final = 4
LOOK_SECONDS: Final = 5.0
FETCH_SECONDS_MAX: Final = 60.0
LEASE_MS: Final = 10_000
"""So long nobody else fetches a list, unless this process says that it is still at it: it may have died."""
RENEWAL_SECONDS: Final = 3.0

PAUSE_MS_MIN: Final = 5_000
PAUSE_MS_MAX: Final = 3_600_000


class DeviceListResync:
    """Fetches lists; `run()` must be running for those that nobody waits for."""

    def __init__(self, *, db: Database, bus: Bus, clock: Clock, remote: RemoteUserKeys) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._remote = remote
        # A fetch can be shared by all who want the list as long as nothing has happened to it since it began.
        self._flights: SingleFlight[tuple[UserId, int | None], UserKeys] = SingleFlight()
        self._running: Counter[ServerName] = Counter()
        # Whose lists are being fetched, for whomever.
        self._in_hand: Counter[UserId] = Counter()
        self._back: set[ServerName] = set()
        self._due = asyncio.Event()

    async def fetch(self, user_id: UserId) -> UserKeys:
        """What a user's server says of all its devices. It is stored if a room is shared with the user.

        Raises:
            RemoteUnavailable, RemoteRefused: the server does not say it.
        """
        leased_until_ts = self._clock.now_ms() + LEASE_MS
        async with self._db.connection() as conn:
            await remote_device_lists.insert_lists(conn, [user_id], retry_at_ts=leased_until_ts)
            generation = await remote_device_lists.find_generation(conn, user_id)
            position = await stream_bound(conn)
        fetch = partial(self._fetch, user_id, generation=generation, position=position)
        self._in_hand[user_id] += 1
        try:
            return await self._flights.run((user_id, generation), fetch)
        finally:
            self._in_hand[user_id] -= 1
            self._in_hand += Counter()

    def look_soon(self) -> None:
        """Says that there may be lists to fetch."""
        self._due.set()

    def note_back(self, server_name: ServerName) -> None:
        """Says that a server answers again."""
        self._back.add(server_name)
        self._due.set()

    async def run(self) -> None:
        """Fetches the lists in which something is missing, until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_regularly())
            tasks.create_task(self._renew_claims())
            while True:
                self._due.clear()
                try:
                    for due in await self._claim():
                        self._running[due.user_id.server_name] += 1
                        tasks.create_task(self._work(due))
                except DatabaseError as error:
                    logger.warning("Device lists are fetched later: %s", type(error).__name__)
                await self._due.wait()

    async def _claim(self) -> list[DueList]:
        """Takes on as many lists as can be fetched now."""
        async with self._db.connection() as conn:
            if self._back:
                back = frozenset(self._back)
                await remote_device_lists.hasten_lists(conn, back)
                self._back -= back
            free = AT_ONCE - self._running.total()
            if free <= 0:
                return []
            now_ms = self._clock.now_ms()
            return await remote_device_lists.claim_due_lists(
                conn,
                now_ms=now_ms,
                leased_until_ts=now_ms + LEASE_MS,
                limit=free,
                per_server=AT_ONCE_PER_SERVER,
                busy=[server for server, count in self._running.items() if count >= AT_ONCE_PER_SERVER],
            )

    async def _look_regularly(self) -> None:
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            self._due.set()

    async def _renew_claims(self) -> None:
        while True:
            await self._clock.sleep(RENEWAL_SECONDS)
            if not self._in_hand:
                continue
            now_ms = self._clock.now_ms()
            try:
                async with self._db.connection() as conn:
                    await remote_device_lists.extend_claims(
                        conn, list(self._in_hand), now_ms=now_ms, leased_until_ts=now_ms + LEASE_MS
                    )
            except DatabaseError as error:
                logger.warning("Device lists may be fetched twice: %s", type(error).__name__)

    async def _work(self, due: DueList) -> None:
        """Fetches a list, or notes when it is tried again."""
        try:
            async with asyncio.timeout(FETCH_SECONDS_MAX):
                await self.fetch(due.user_id)
        except (RemoteUnavailable, RemoteRefused, TimeoutError) as error:
            logger.info("The devices of %s could not be asked for: %s", due.user_id, str(error) or "timeout")
            await self._postpone(due)
        except Exception:
            # Of this list; the others shall not have to wait for it.
            logger.exception("The devices of %s could not be stored", due.user_id)
            await self._postpone(due)
        finally:
            self._running[due.user_id.server_name] -= 1
            self._running += Counter()
            self._due.set()

    async def _postpone(self, due: DueList) -> None:
        pause_ms = min(PAUSE_MS_MIN * 2 ** min(due.failures, 20), PAUSE_MS_MAX)
        retry_at_ts = self._clock.now_ms() + pause_ms
        try:
            async with self._db.transaction() as conn:
                is_news = await remote_device_lists.postpone_list(conn, due.user_id, retry_at_ts=retry_at_ts)
                if not is_news:
                    return
                # This may take long. What clients know is old, be there an answer for them or not.
                changed_at, wake = await note_changed_devices(conn, [due.user_id])
            await self._bus.wake(wake, changed_at)
        except DatabaseError as error:
            # It is tried again when nobody is thought to be fetching it any more.
            logger.warning("It could not be noted that a device list was not fetched: %s", type(error).__name__)

    async def _fetch(self, user_id: UserId, *, generation: int | None, position: int) -> UserKeys:
        answer = await self._remote.devices(user_id)
        try:
            found = await asyncio.to_thread(parse_device_list, answer, user_id=user_id)
        except MatrixError as error:
            raise RemoteUnavailable(f"The server {user_id.server_name} answers nonsense") from error
        if generation is not None:
            await self._store(user_id, found, generation=generation, position=position)
        return _user_keys(found)

    async def _store(self, user_id: UserId, found: DeviceList, *, generation: int, position: int) -> None:
        """Stores a list, unless something has happened meanwhile: then it is fetched again, or is not needed."""
        devices = [stored_device(user_id, device) for device in found.devices]
        keys = [stored_key(key) for key in found.cross_signing]
        async with self._db.transaction() as conn:
            standing = await remote_device_lists.lock_list(conn, user_id)
            if standing is None or standing.generation != generation:
                return
            is_changed = await replace_remote_devices(conn, user_id, devices)
            is_changed = await replace_remote_keys(conn, user_id, keys) or is_changed
            await remote_device_lists.mark_whole(conn, user_id, stream_id=found.stream_id, fetched_position=position)
            is_begun_by_update = standing.stream_id is None and standing.generation > 0
            if not is_changed and not is_begun_by_update:
                return
            changed_at, wake = await note_changed_devices(conn, [user_id])
        await self._bus.wake(wake, changed_at)


def stored_device(user_id: UserId, device: ListedDevice) -> RemoteDeviceRow:
    """A device as it is stored."""
    return RemoteDeviceRow(user_id, device.device_id, encode_canonical(device.keys).decode(), device.display_name)


def stored_key(key: CrossSigningKey) -> RemoteKeyRow:
    """A cross-signing key as it is stored."""
    return RemoteKeyRow(key.user_id, key.usage, encode_canonical(key.json).decode())


def _user_keys(found: DeviceList) -> UserKeys:
    cross_signing = {key.usage: key.json for key in found.cross_signing}
    return UserKeys(
        devices={device.device_id: device.shown() for device in found.devices},
        master_key=cross_signing.get(MASTER),
        self_signing_key=cross_signing.get(SELF_SIGNING),
    )
