"""Other servers' users with devices, what their servers answer, and what keeps their lists here."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from homeserver.core.errors import MatrixError, RemoteRefused, RemoteUnavailable
from homeserver.core.ids import ServerName, UserId
from homeserver.core.signing import SigningKey, sign_json
from homeserver.services.e2ee.device_list_resync import DeviceListResync
from homeserver.services.e2ee.device_lists import read_device_lists
from homeserver.services.e2ee.remote_device_updates import RemoteDeviceUpdates
from homeserver.services.e2ee.remote_keys import KeysOfOtherServers
from homeserver.services.e2ee.shared_rooms import NAME, SharedRooms
from homeserver.services.remote import QueriedKeys
from homeserver.services.stream.follower import Batch
from storage.followers import get_follower_position
from storage.memberships import list_rooms_of_user
from storage.positions import stream_bound
from tests.api.e2ee.keys import CrossSigner
from tests.fast_clock import FastClock
from tests.rooms.workers import ALICE, SERVER, Worker

THERE = ServerName("there.example")
ELSEWHERE = ServerName("elsewhere.example")
CAROL = UserId("@carol:there.example")
CLAUDE = UserId("@claude:there.example")
EVE = UserId("@eve:elsewhere.example")


def identity_keys(user_id: str, device_id: str, **members: Any) -> dict[str, Any]:
    """New identity keys of a device, signed by it."""
    key = SigningKey.from_seed(device_id, secrets.token_bytes(32))
    keys = {
        "user_id": user_id,
        "device_id": device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {f"ed25519:{device_id}": key.verify_key.encode(), f"curve25519:{device_id}": "curve"},
        **members,
    }
    return sign_json(keys, user_id, key)


@dataclass
class RemoteUser:
    """A user as its own server knows it.

    Attributes:
        listed: what else the server lists beside the devices.
        misstated: members that it puts in the place of others when it tells the list.
    """

    user_id: UserId
    stream_id: int = 0
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    cross_signing: dict[str, Any] = field(default_factory=dict)
    one_time_keys: dict[str, Any] = field(default_factory=dict)
    listed: list[Any] = field(default_factory=list)
    misstated: dict[str, Any] = field(default_factory=dict)

    def change(self, device_id: str, *, deleted: bool = False, **members: Any) -> dict[str, Any]:
        """Adds, changes or removes a device; returns the content of the EDU that tells of it."""
        before, self.stream_id = self.stream_id, self.stream_id + 1
        content = {"user_id": self.user_id, "device_id": device_id, "stream_id": self.stream_id, "prev_id": [before]}
        if deleted:
            del self.devices[device_id]
            return {**content, "deleted": True, **members}
        self.devices[device_id] = identity_keys(self.user_id, device_id)
        return {**content, "keys": self.devices[device_id], **members}

    def sign_across(self) -> dict[str, Any]:
        """Makes cross-signing keys; returns the content of the EDU that tells of them."""
        signer = CrossSigner(self.user_id)
        self.cross_signing = signer.body(("master", "self_signing"))
        return {"user_id": self.user_id, **self.cross_signing}

    def list_json(self) -> dict[str, Any]:
        """What the server answers about all devices."""
        devices = [{"device_id": device_id, "keys": keys} for device_id, keys in self.devices.items()]
        named = {"user_id": self.user_id, "stream_id": self.stream_id, "devices": [*devices, *self.listed]}
        return {**named, **self.cross_signing, **self.misstated}


@dataclass
class OtherServers:
    """`RemoteUserKeys` of servers that answer truly, or what a test has planned.

    Attributes:
        users: all their users.
        failures: servers that answer with an error, by name, or by name and question.
        asked: all questions: what was asked, and of whom.
        before_answer: is called before a list is told, once it has been made.
    """

    users: dict[UserId, RemoteUser] = field(default_factory=dict)
    failures: dict[str, MatrixError] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    before_answer: Any = None

    def user(self, user_id: UserId, *devices: str) -> RemoteUser:
        """A new user."""
        user = self.users[user_id] = RemoteUser(user_id)
        for device in devices:
            user.change(device)
        return user

    async def query(self, via: ServerName, wanted: Mapping[UserId, Sequence[str]]) -> Mapping[str, Any]:
        """Keys of users, always of all devices."""
        self._ask("query", via)
        users = [self.users[user_id] for user_id in wanted if user_id in self.users]
        return {
            "device_keys": {user.user_id: user.devices for user in users},
            "master_keys": {u.user_id: u.cross_signing["master_key"] for u in users if u.cross_signing},
            "self_signing_keys": {u.user_id: u.cross_signing["self_signing_key"] for u in users if u.cross_signing},
        }

    async def claim(self, via: ServerName, wanted: Mapping[UserId, Any]) -> Mapping[str, Any]:
        """One-time keys."""
        self._ask("claim", via)
        return {"one_time_keys": {user_id: self.users[user_id].one_time_keys for user_id in self.users}}

    async def devices(self, user_id: UserId) -> Mapping[str, Any]:
        """A list."""
        self._ask("devices", user_id.server_name, about=user_id)
        if user_id not in self.users:
            raise RemoteRefused("No", remote_errcode="M_FORBIDDEN", status=403)
        answer = self.users[user_id].list_json()
        if self.before_answer is not None:
            await self.before_answer()
        return answer

    def _ask(self, question: str, via: ServerName, *, about: str | None = None) -> None:
        self.asked.append((question, about or via))
        for failing in (via, f"{via} {question}"):
            if failing in self.failures:
                raise self.failures[failing]

    def is_away(self, server: ServerName) -> None:
        """Lets a server not answer."""
        self.failures[server] = RemoteUnavailable("It is away")


class Keeping:
    """A worker that keeps lists; nothing runs by itself."""

    def __init__(self, worker: Worker, *, clock: FastClock | None = None) -> None:
        self.worker = worker
        self.db = worker.db
        self.servers = OtherServers()
        self.clock = clock or FastClock(speed=200)
        self.resync = DeviceListResync(db=worker.db, bus=worker.bus, clock=self.clock, remote=self.servers)
        self.updates = RemoteDeviceUpdates(db=worker.db, bus=worker.bus, resync=self.resync)
        self.keys = KeysOfOtherServers(db=worker.db, remote=self.servers, resync=self.resync)
        self._sharing = SharedRooms(db=worker.db, server_name=SERVER)

    async def follow(self) -> None:
        """Lets the follower look at what has happened in rooms."""
        async with self.db.connection() as conn:
            since, upto = await get_follower_position(conn, NAME, start=0), await stream_bound(conn)
        await self._sharing.handle(Batch(follower=NAME, since=since, upto=upto, saved_upto=since))

    async def query(self, *user_ids: UserId, by: UserId = ALICE, timeout_ms: int = 10_000) -> QueriedKeys:
        """What a local user gets to know of others."""
        return await self.keys.query(by, {user_id: [] for user_id in user_ids}, timeout_ms=timeout_ms)

    async def devices(self, user_id: UserId, *, by: UserId = ALICE) -> dict[str, Any]:
        """The devices of a user as a local user gets them, without names."""
        answer = await self.query(user_id, by=by)
        assert not answer.failures
        found = answer.users[user_id].devices
        return {name: {key: each[key] for key in each if key != "unsigned"} for name, each in found.items()}

    async def answers_from_memory(self, user_id: UserId, *, by: UserId = ALICE) -> bool:
        """Whether a user's keys are known without asking anybody."""
        before = len(self.servers.asked)
        await self.query(user_id, by=by)
        return len(self.servers.asked) == before

    async def lists(self) -> dict[str, bool]:
        """The users of whom there is a list, and whether it is whole."""
        async with self.db.connection() as conn:
            rows = await conn.fetch("SELECT user_id, is_whole FROM remote_device_lists")
        return {row["user_id"]: row["is_whole"] for row in rows}

    async def position(self) -> int:
        """Where a sync stands now."""
        async with self.db.connection() as conn:
            return await stream_bound(conn)

    async def told(self, user_id: UserId, *, since: int) -> tuple[set[str], set[str]]:
        """The users of whom a user's sync says that their devices have changed, and those who are gone."""
        async with self.db.connection() as conn:
            rooms = [row.room_nid for row in await list_rooms_of_user(conn, user_id, ("join",))]
            upto = await stream_bound(conn)
            lists = await read_device_lists(conn, user_id, since=since, upto=upto, has_moved=True, active=rooms)
        return set(lists.changed), set(lists.left)
