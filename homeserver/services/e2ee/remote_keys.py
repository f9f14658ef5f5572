"""The keys of other servers' users: from their device lists as far as these are kept here, else from their servers.

A list is kept for users with whom a room is shared, since only then their server tells of changes. Of anybody else a
client gets what the user's server says, and nothing of it is stored or looked up here: so nobody can find out by the
way whom others on this server know.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import orjson

from homeserver.core.device_lists import good_cross_signing_key, good_device, shown_keys
from homeserver.core.encryption_keys import MASTER, SELF_SIGNING, Key, parse_one_time_keys
from homeserver.core.errors import MatrixError, RemoteRefused, RemoteUnavailable
from homeserver.core.ids import DeviceId, ServerName, UserId
from homeserver.core.key_wishes import WantedDevices, WantedKeys
from homeserver.services.e2ee.device_list_resync import DeviceListResync
from homeserver.services.remote import ClaimedRemoteKeys, QueriedKeys, RemoteUserKeys, UserKeys
from storage.database import Connection, Database
from storage.errors import DatabaseError
from storage.remote_device_lists import insert_lists, list_companions
from storage.remote_devices import list_remote_devices, list_remote_keys

SERVERS_AT_ONCE: Final = 50
"""How many servers are asked at once for one request of a client."""

LISTS_PER_SERVER_MAX: Final = 10
"""So many lists are fetched for one request; the keys of further users are asked for all at once, their lists later."""

_W = TypeVar("_W")


@dataclass(slots=True)
class _Wish:
    """What is wanted of a server: the whole lists of some users, and the keys of others."""

    lists: dict[UserId, Sequence[str]] = field(default_factory=dict)
    others: dict[UserId, Sequence[str]] = field(default_factory=dict)


class KeysOfOtherServers:
    """`RemoteKeys` over the lists that are kept here and the users' servers."""

    def __init__(self, *, db: Database, remote: RemoteUserKeys, resync: DeviceListResync) -> None:
        self._db = db
        self._remote = remote
        self._resync = resync

    async def query(self, requester_id: UserId, wanted: WantedDevices, *, timeout_ms: int) -> QueriedKeys:
        """The keys of users (of their devices that are named, or of all); servers are asked side by side."""
        async with self._db.connection() as conn:
            companions = await list_companions(conn, requester_id, wanted.keys())
            users = await _read_lists(conn, {user: wanted[user] for user, has_list in companions.items() if has_list})
        wishes: dict[ServerName, _Wish] = {}
        later: list[UserId] = []
        for user_id, devices in wanted.items():
            if user_id in users:
                continue
            wish = wishes.setdefault(user_id.server_name, _Wish())
            if user_id not in companions:
                wish.others[user_id] = devices
            elif len(wish.lists) < LISTS_PER_SERVER_MAX:
                wish.lists[user_id] = devices
            else:
                wish.others[user_id] = devices
                later.append(user_id)
        if later:
            async with self._db.connection() as conn:
                await insert_lists(conn, later, retry_at_ts=0)
            self._resync.look_soon()

        async def ask(server_name: ServerName, wish: _Wish) -> None:
            await self._ask_for_keys(server_name, wish, users)

        failures = await _ask_all(wishes, ask, timeout_ms=timeout_ms)
        return QueriedKeys(users, failures)

    async def claim(self, wanted: WantedKeys, *, timeout_ms: int) -> ClaimedRemoteKeys:
        """One key of an algorithm for each device."""
        wishes: dict[ServerName, dict[UserId, Mapping[DeviceId, str]]] = {}
        for user_id, devices in wanted.items():
            wishes.setdefault(user_id.server_name, {})[user_id] = devices
        keys: dict[UserId, Mapping[str, Mapping[str, Any]]] = {}

        async def ask(server_name: ServerName, wish: WantedKeys) -> None:
            answer = await self._remote.claim(server_name, wish)
            keys.update(await asyncio.to_thread(_claimed, answer, wish))

        failures = await _ask_all(wishes, ask, timeout_ms=timeout_ms)
        return ClaimedRemoteKeys(keys, failures)

    async def _ask_for_keys(self, server_name: ServerName, wish: _Wish, users: dict[UserId, UserKeys]) -> None:
        """Adds what a server tells to what is known of users."""
        others = dict(wish.others)

        async def fetch(user_id: UserId, devices: Sequence[str]) -> None:
            try:
                users[user_id] = _only(await self._resync.fetch(user_id), devices)
            except (RemoteUnavailable, RemoteRefused, DatabaseError):
                # Not every server tells lists; whether this one can be asked at all turns out now.
                others[user_id] = devices

        async with asyncio.TaskGroup() as tasks:
            for user_id, devices in wish.lists.items():
                tasks.create_task(fetch(user_id, devices))
        if others:
            answer = await self._remote.query(server_name, others)
            users.update(await asyncio.to_thread(_queried, answer, others))


async def _ask_all(
    wishes: Mapping[ServerName, _W], ask: Callable[[ServerName, _W], Awaitable[None]], *, timeout_ms: int
) -> dict[ServerName, MatrixError]:
    """Asks servers side by side; returns those that could not be asked, each with what was wrong."""
    failures: dict[ServerName, MatrixError] = {}
    places = asyncio.Semaphore(SERVERS_AT_ONCE)

    async def ask_one(server_name: ServerName, wish: _W) -> None:
        try:
            async with asyncio.timeout(timeout_ms / 1000), places:
                await ask(server_name, wish)
        except (RemoteUnavailable, RemoteRefused) as error:
            failures[server_name] = error
        except (TimeoutError, DatabaseError):
            failures[server_name] = RemoteUnavailable(f"The server {server_name} could not be asked in time")

    async with asyncio.TaskGroup() as tasks:
        for server_name, wish in wishes.items():
            tasks.create_task(ask_one(server_name, wish))
    return failures


async def _read_lists(conn: Connection, wanted: WantedDevices) -> dict[UserId, UserKeys]:
    """The keys of users whose lists are kept here."""
    if not wanted:
        return {}
    pairs = [(user_id, device_id) for user_id, named in wanted.items() for device_id in (named or (None,))]
    devices: dict[UserId, dict[str, Key]] = {user_id: {} for user_id in wanted}
    for device in await list_remote_devices(conn, pairs):
        devices[device.user_id][device.device_id] = shown_keys(orjson.loads(device.keys), device.display_name)
    cross_signing: dict[tuple[UserId, str], Key] = {
        (key.user_id, key.usage): orjson.loads(key.key) for key in await list_remote_keys(conn, wanted.keys())
    }
    return {
        user_id: UserKeys(
            devices=devices[user_id],
            master_key=cross_signing.get((user_id, MASTER)),
            self_signing_key=cross_signing.get((user_id, SELF_SIGNING)),
        )
        for user_id in wanted
    }


def _only(keys: UserKeys, devices: Sequence[str]) -> UserKeys:
    """The keys without devices that are not wanted; an empty list stands for all."""
    if not devices:
        return keys
    return UserKeys(
        devices={device_id: keys.devices[device_id] for device_id in devices if device_id in keys.devices},
        master_key=keys.master_key,
        self_signing_key=keys.self_signing_key,
    )


def _queried(answer: Mapping[str, Any], wanted: WantedDevices) -> dict[UserId, UserKeys]:
    """What a server has told of some of its users; what is wrong in it, or was not asked for, is left out."""
    found: dict[UserId, UserKeys] = {}
    for user_id, named in wanted.items():
        told = _member(answer.get("device_keys"), user_id)
        devices = [
            good_device(device_id, keys, _member(_member(keys, "unsigned"), "device_display_name"), user_id=user_id)
            for device_id, keys in (told.items() if isinstance(told, dict) else ())
        ]
        cross_signing = [
            good_cross_signing_key(_member(answer.get(f"{usage}_keys"), user_id), user_id=user_id, usage=usage)
            for usage in (MASTER, SELF_SIGNING)
        ]
        if told is None and cross_signing == [None, None]:
            continue
        master_key, self_signing_key = (None if key is None else key.json for key in cross_signing)
        keys = UserKeys(
            devices={device.device_id: device.shown() for device in devices if device is not None},
            master_key=master_key,
            self_signing_key=self_signing_key,
        )
        found[user_id] = _only(keys, named)
    return found


def _claimed(answer: Mapping[str, Any], wanted: WantedKeys) -> dict[UserId, Mapping[str, Mapping[str, Any]]]:
    """The keys that a server has given out for its users' devices; what is wrong, or was not asked for, is left out."""
    found: dict[UserId, Mapping[str, Mapping[str, Any]]] = {}
    for user_id, devices in wanted.items():
        given = _member(answer.get("one_time_keys"), user_id)
        keys = {device_id: _given_key(_member(given, device_id), algorithm) for device_id, algorithm in devices.items()}
        if any(keys.values()):
            found[user_id] = {device_id: key for device_id, key in keys.items() if key}
    return found


def _given_key(value: Any, algorithm: str) -> Mapping[str, Any]:
    """The key of an algorithm by its name, as it was given for a device; nothing if there is none."""
    try:
        keys = parse_one_time_keys(value, count_max=1)
    except MatrixError:
        return {}
    return value if keys and keys[0].algorithm == algorithm else {}


def _member(value: object, name: str) -> Any:
    """A member of what may be no object; None if there is no such member."""
    return value.get(name) if isinstance(value, dict) else None
