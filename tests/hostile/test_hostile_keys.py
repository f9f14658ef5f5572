"""Hostile bodies for everything that keeps keys, devices and messages to devices, of clients and of other servers.

Each member of right bodies is replaced by whatever there is in `malice.py`: nothing is ever answered with a 500, and
what is refused has changed nothing.
"""

import json
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final

import asyncpg
import pytest

from homeserver.core.key_wishes import CLAIMS_MAX, USERS_MAX
from homeserver.services.e2ee.to_device import MESSAGES_MAX
from tests.api.e2ee.keys import CrossSigner, device_keys, new_key, one_time_keys, signed_with, upload_device
from tests.api.server import Client, Site, composed_server, password_auth, refused
from tests.hostile.malice import HUGE_BODY, WRONG_BODIES, WRONG_JSON, places, with_malice, without
from tests.web.harness import Reply

VALUES_PER_PLACE: Final = 15
ORIGIN: Final = "evil.example"
EVE: Final = f"@eve:{ORIGIN}"
VERSION: Final = "1"
DEHYDRATED: Final = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
# All that clients and other servers write, but for what changes by itself.
ROWS: Final = """
    SELECT md5(string_agg(row, '|' ORDER BY row)) FROM (
        SELECT t::text AS row FROM device_keys t
        UNION ALL SELECT t::text FROM one_time_keys t
        UNION ALL SELECT t::text FROM fallback_keys t
        UNION ALL SELECT t::text FROM key_count_changes t
        UNION ALL SELECT t::text FROM cross_signing_keys t
        UNION ALL SELECT t::text FROM key_signatures t
        UNION ALL SELECT t::text FROM signed_users t
        UNION ALL SELECT t::text FROM dehydrated_devices t
        UNION ALL SELECT t::text FROM device_list_changes t
        UNION ALL SELECT t::text FROM key_backups t
        UNION ALL SELECT t::text FROM key_backup_keys t
        UNION ALL SELECT t::text FROM to_device_messages t
        UNION ALL SELECT t::text FROM to_device_requests t
        UNION ALL SELECT t::text FROM destination_edus t
        UNION ALL SELECT user_id || ' ' || device_id || ' ' || display_name FROM devices
    ) AS rows
"""

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Operation:
    """A right request, of another server if its path is so; `{n}` stands for another number each time."""

    method: str
    path: str
    body: Any

    @property
    def label(self) -> str:
        """How it is told."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Siege:
    """A server, its attacker, a victim, and the database behind it."""

    site: Site
    attacker: Client
    victim: Client
    database: asyncpg.Connection

    async def send(self, operation: Operation, body: bytes) -> Reply:
        """A request of the operation with another body."""
        number = str(next(_numbers))
        path, body = operation.path.replace("{n}", number), body.replace(b"{n}", number.encode())
        if path.startswith("/_matrix/federation/"):
            headers = {"authorization": f"X-Matrix origin={ORIGIN}"}
            return await self.site.request(operation.method, path, body=body, headers=headers)
        query = {"version": VERSION} if path.startswith("/room_keys/keys") else {}
        return await self.site.request(operation.method, path, body=body, token=self.attacker.token, query=query)

    async def rows(self) -> str:
        """Stands for all that is stored."""
        return str(await self.database.fetchval(ROWS))

    async def attack(self, operation: Operation, body: bytes) -> None:
        """Sends a body, and looks at the answer and at what it has done."""
        before = await self.rows()
        reply = await self.send(operation, body)
        shown = f"{operation.label} {body[:300]!r}: {reply.status} {reply.body[:300]!r}"
        assert reply.status < 500, shown
        if reply.status >= 400:
            assert isinstance(reply.json.get("errcode"), str) or "flows" in reply.json, shown
            assert await self.rows() == before, f"it was refused, but has changed something: {shown}"


@pytest.fixture
async def siege(database_url: str) -> AsyncIterator[Siege]:
    """Two users with keys, a backup and a message that waits."""
    database = await asyncpg.connect(database_url)
    async with composed_server(database_url) as site:
        attacker, victim = await site.register("attacker"), await site.register("victim")
        await upload_device(victim)
        await victim.post(
            "/keys/upload", {"one_time_keys": one_time_keys("A", "B"), "fallback_keys": one_time_keys("F")}
        )
        await victim.put("/sendToDevice/m.test/0", {"messages": {victim.user_id: {"*": {"a": 1}}}})
        await attacker.post("/room_keys/version", {"algorithm": "m.test", "auth_data": {"a": 1}})
        yield Siege(site, attacker, victim, database)
    await database.close()


def operations(attacker: Client, victim: Client) -> Sequence[Operation]:
    """A right request of every operation that takes a body."""
    wanted = {"one_time_keys": {victim.user_id: {victim.device_id: "signed_curve25519"}}}
    asked = {"device_keys": {victim.user_id: [victim.device_id], "@nobody:test": []}}
    federation = "/_matrix/federation/v1"
    return (
        *_of_keys(attacker),
        Operation("POST", "/keys/query", {**asked, "timeout": 10}),
        Operation("POST", "/keys/claim", {**wanted, "timeout": 10}),
        *_of_backups(),
        *_of_devices(attacker, victim),
        Operation("POST", f"{federation}/user/keys/query", asked),
        Operation("POST", f"{federation}/user/keys/claim", wanted),
        Operation("PUT", f"{federation}/send/{{n}}", {"origin": ORIGIN, "pdus": [], "edus": _edus(victim)}),
    )


def _of_keys(attacker: Client) -> Iterator[Operation]:
    identity, signer = device_keys(attacker, new_key(attacker.device_id)), CrossSigner(attacker.user_id)
    uploaded = {"device_keys": identity, "one_time_keys": one_time_keys("C"), "fallback_keys": one_time_keys("G")}
    yield Operation("POST", "/keys/upload", uploaded)
    auth = password_auth(attacker.user_id)
    yield Operation("POST", "/keys/device_signing/upload", {**signer.body(), "auth": auth})
    signed = signed_with(identity, attacker.user_id, signer.self_signing)
    yield Operation("POST", "/keys/signatures/upload", {attacker.user_id: {attacker.device_id: signed}})


def _of_backups() -> Iterator[Operation]:
    counts = {"first_message_index": 1, "forwarded_count": 0}
    key = {**counts, "is_verified": False, "session_data": {"ephemeral": "x"}}
    sessions = {"sessions": {"session": key}}
    backup = {"algorithm": "m.test", "auth_data": {"a": {"b": "c"}}}
    yield Operation("PUT", f"/room_keys/version/{VERSION}", {**backup, "version": VERSION})
    yield Operation("PUT", "/room_keys/keys", {"rooms": {"!room:test": sessions}})
    yield Operation("PUT", "/room_keys/keys/!room:test", sessions)
    yield Operation("PUT", "/room_keys/keys/!room:test/session", key)
    # It makes another backup the current one.
    yield Operation("POST", "/room_keys/version", backup)


def _of_devices(attacker: Client, victim: Client) -> Iterator[Operation]:
    auth = password_auth(attacker.user_id)
    messages = {victim.user_id: {victim.device_id: {"a": 1}, "*": {"a": [1]}}, EVE: {"X": {"b": 2}}}
    yield Operation("PUT", "/sendToDevice/m.test/{n}", {"messages": messages})
    yield Operation("PUT", DEHYDRATED, _dehydrated(attacker))
    yield Operation("PUT", f"/devices/{attacker.device_id}", {"display_name": "x"})
    yield Operation("DELETE", "/devices/X", {"auth": auth})
    yield Operation("POST", "/delete_devices", {"devices": ["X"], "auth": auth})


def _dehydrated(attacker: Client) -> Any:
    identity = device_keys(replace(attacker, device_id="ASLEEP"), new_key("ASLEEP"), dehydrated=True)
    return {
        "device_id": "ASLEEP",
        "device_data": {"algorithm": "m.test", "device_pickle": "x"},
        "initial_device_display_name": "x",
        "device_keys": identity,
        "one_time_keys": one_time_keys("D"),
        "fallback_keys": one_time_keys("H"),
    }


def _edus(victim: Client) -> Sequence[Any]:
    message = {"sender": EVE, "type": "m.test", "message_id": "{n}", "messages": {victim.user_id: {"*": {"a": 1}}}}
    changed = {"user_id": EVE, "device_id": "X", "stream_id": 5, "prev_id": [4], "keys": {}, "deleted": False}
    return [
        {"edu_type": "m.direct_to_device", "content": message},
        {"edu_type": "m.device_list_update", "content": changed},
        {"edu_type": "m.signing_key_update", "content": {"user_id": EVE, "master_key": {"keys": {}}}},
    ]


async def test_refused_bodies_change_nothing(siege: Siege) -> None:
    for operation in operations(siege.attacker, siege.victim):
        draw = random.Random(operation.path)
        right = await siege.send(operation, json.dumps(operation.body).encode())
        assert right.status == 200, f"{operation}: {right.body!r}"
        for body in (*WRONG_BODIES, HUGE_BODY):
            await siege.attack(operation, body)
        for place in places(operation.body):
            await siege.attack(operation, without(operation.body, place))
            for malice in draw.sample(WRONG_JSON, VALUES_PER_PLACE):
                await siege.attack(operation, with_malice(operation.body, place, malice))
        await check_well(siege)


async def test_lists_of_whom_there_is_none(siege: Siege) -> None:
    """What another server asks of users by their path."""
    for user_id in (
        "@",
        "@nobody:test",
        "nobody",
        "@x:elsewhere.example",
        "@\0:test",
        "@" + "x" * 10_000 + ":test",
        "!",
    ):
        reply = await siege.site.ask_as(ORIGIN, "GET", f"/_matrix/federation/v1/user/devices/{user_id}")
        assert 400 <= reply.status < 500, (user_id, reply.status)
        assert isinstance(reply.json.get("errcode"), str)


async def check_well(siege: Siege) -> None:
    """Keys and messages still come and go."""
    asked = await siege.attacker.post("/keys/query", {"device_keys": {siege.victim.user_id: []}})
    assert siege.victim.device_id in asked["device_keys"][siege.victim.user_id]
    wanted = {siege.victim.user_id: {siege.victim.device_id: "signed_curve25519"}}
    claimed = await siege.attacker.post("/keys/claim", {"one_time_keys": wanted})
    assert claimed["one_time_keys"][siege.victim.user_id][siege.victim.device_id]
    messages = {siege.victim.user_id: {siege.victim.device_id: {"sign": "of life"}}}
    await siege.attacker.put(f"/sendToDevice/m.test/{next(_numbers)}", {"messages": messages})
    since, received = None, []
    while not received or received[-1]["content"] != {"sign": "of life"}:
        answer = await siege.victim.get("/sync", **({"since": since} if since else {}))
        since, received = answer["next_batch"], answer["to_device"]["events"]


async def test_very_much_at_once(siege: Siege) -> None:
    """As many users, keys and messages as are allowed in one request, none of which there are; then one more."""
    assert USERS_MAX == CLAIMS_MAX == MESSAGES_MAX == 10_000
    many = [f"@u{number}:test" for number in range(USERS_MAX)]
    federation = "/_matrix/federation/v1"
    questions: Sequence[tuple[str, str, Any]] = (
        ("/keys/query", "device_keys", []),
        ("/keys/claim", "one_time_keys", {"D": "signed_curve25519"}),
        (f"{federation}/user/keys/query", "device_keys", []),
        (f"{federation}/user/keys/claim", "one_time_keys", {"D": "signed_curve25519"}),
    )
    before = await siege.rows()
    for path, member, value in questions:
        operation = Operation("POST", path, {member: dict.fromkeys(many, value)})
        reply = await siege.send(operation, json.dumps(operation.body).encode())
        assert reply.status == 200, reply.body[:300]
        operation.body[member]["@one-more:test"] = value
        refused(await siege.send(operation, json.dumps(operation.body).encode()), 400, "M_INVALID_PARAM")
    sending = Operation(
        "PUT", "/sendToDevice/m.test/{n}", {"messages": {user: {"*": {}} for user in (*many, "@one:test")}}
    )
    refused(await siege.send(sending, json.dumps(sending.body).encode()), 400, "M_INVALID_PARAM")
    assert await siege.rows() == before
    del sending.body["messages"]["@one:test"]
    reply = await siege.send(sending, json.dumps(sending.body).encode())
    assert reply.status == 200, reply.body[:300]
    await check_well(siege)
