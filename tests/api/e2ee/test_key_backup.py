"""Server-side key backups: https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.ids import RoomId
from homeserver.services.e2ee.key_backup import parse_key
from tests.api.server import Client, Site, refused

ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
AUTH_DATA = {"public_key": "abcdefg", "signatures": {"@alice:test": {"ed25519:DEVICE": "signature"}}}
BACKUP = {"algorithm": ALGORITHM, "auth_data": AUTH_DATA}
ROOM, OTHER_ROOM = "!room:test", "!other:test"
KEYS, VERSIONS = "/room_keys/keys", "/room_keys/version"


def key(index: int = 0, *, forwarded: int = 0, verified: bool = False, name: str = "text") -> dict[str, Any]:
    return {
        "first_message_index": index,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": {"ciphertext": name},
    }


def rooms(**sessions: Any) -> dict[str, Any]:
    return {"rooms": {ROOM: {"sessions": sessions}}}


async def put(client: Client, path: str, body: Any, version: str = "1") -> Any:
    reply = await client.call("PUT", path, body, version=version)
    assert reply.status == 200, reply.body
    return reply.json


async def test_versions(alice: Client, bob: Client) -> None:
    refused(await alice.call("GET", VERSIONS), 404, "M_NOT_FOUND")
    assert await alice.post(VERSIONS, BACKUP) == {"version": "1"}
    assert await alice.get(VERSIONS) == {**BACKUP, "version": "1", "count": 0, "etag": "0"}
    assert await alice.post(VERSIONS, {**BACKUP, "auth_data": {"public_key": "second"}}) == {"version": "2"}
    assert (await alice.get(VERSIONS))["version"] == "2"
    assert (await alice.get(f"{VERSIONS}/1"))["auth_data"] == AUTH_DATA
    refused(await bob.call("GET", f"{VERSIONS}/1"), 404, "M_NOT_FOUND")
    for unknown in ("3", "0", "01", "-1", "x", "9" * 30, "%F0%9F%99%82"):
        refused(await alice.call("GET", f"{VERSIONS}/{unknown}"), 404, "M_NOT_FOUND")


async def test_only_the_data_can_be_changed(alice: Client) -> None:
    await alice.post(VERSIONS, BACKUP)
    changed = {**BACKUP, "auth_data": {"public_key": "changed"}}
    await alice.put(f"{VERSIONS}/1", {**changed, "version": "1"})
    assert (await alice.get(VERSIONS))["auth_data"] == {"public_key": "changed"}
    for wrong in ({**changed, "algorithm": "org.example"}, {**changed, "version": "2"}):
        refused(await alice.call("PUT", f"{VERSIONS}/1", wrong), 400, "M_INVALID_PARAM")
    refused(await alice.call("PUT", f"{VERSIONS}/2", BACKUP), 404, "M_NOT_FOUND")
    refused(await alice.call("PUT", f"{VERSIONS}/1", {"algorithm": ALGORITHM}), 400, "M_MISSING_PARAM")


async def test_a_deleted_backup_is_gone_and_its_number_too(alice: Client) -> None:
    await alice.post(VERSIONS, BACKUP)
    await alice.post(VERSIONS, BACKUP)
    await put(alice, KEYS, rooms(one=key()), "2")
    await alice.delete(f"{VERSIONS}/2")
    await alice.delete(f"{VERSIONS}/2")
    refused(await alice.call("DELETE", f"{VERSIONS}/3"), 404, "M_NOT_FOUND")
    refused(await alice.call("GET", f"{VERSIONS}/2"), 404, "M_NOT_FOUND")
    refused(await alice.call("GET", KEYS, version="2"), 404, "M_NOT_FOUND")
    assert (await alice.get(VERSIONS))["version"] == "1"
    assert await alice.post(VERSIONS, BACKUP) == {"version": "3"}
    assert (await alice.get(VERSIONS))["count"] == 0


async def test_versions_made_at_the_same_time_are_different(alice: Client) -> None:
    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(alice.post(VERSIONS, BACKUP)) for _ in range(8)]
    assert sorted(each.result()["version"] for each in made) == [str(number) for number in range(1, 9)]


async def test_keys_by_every_route(alice: Client, bob: Client) -> None:
    await alice.post(VERSIONS, BACKUP)
    assert await put(alice, KEYS, rooms(one=key(name="1"), two=key(name="2"))) == {"count": 2, "etag": "1"}
    assert await put(alice, f"{KEYS}/{OTHER_ROOM}", {"sessions": {"one": key(name="3")}}) == {"count": 3, "etag": "2"}
    assert await put(alice, f"{KEYS}/{OTHER_ROOM}/a%2Fb", key(name="4")) == {"count": 4, "etag": "3"}
    in_room = {"sessions": {"one": key(name="1"), "two": key(name="2")}}
    in_other = {"sessions": {"one": key(name="3"), "a/b": key(name="4")}}
    assert await alice.get(KEYS, version="1") == {"rooms": {ROOM: in_room, OTHER_ROOM: in_other}}
    assert await alice.get(f"{KEYS}/{OTHER_ROOM}", version="1") == in_other
    assert await alice.get(f"{KEYS}/{OTHER_ROOM}/a%2Fb", version="1") == key(name="4")
    assert (await alice.get(VERSIONS))["count"] == 4
    refused(await bob.call("GET", KEYS, version="1"), 404, "M_NOT_FOUND")
    assert (await alice.call("DELETE", f"{KEYS}/{OTHER_ROOM}/a%2Fb", version="1")).json == {"count": 3, "etag": "4"}
    assert (await alice.call("DELETE", f"{KEYS}/{OTHER_ROOM}/a%2Fb", version="1")).json == {"count": 3, "etag": "4"}
    assert (await alice.call("DELETE", f"{KEYS}/{ROOM}", version="1")).json == {"count": 1, "etag": "5"}
    assert (await alice.call("DELETE", KEYS, version="1")).json == {"count": 0, "etag": "6"}
    assert await alice.get(KEYS, version="1") == {"rooms": {}}
    assert await alice.get(f"{KEYS}/{ROOM}", version="1") == {"sessions": {}}
    refused(await alice.call("GET", f"{KEYS}/{ROOM}/one", version="1"), 404, "M_NOT_FOUND")


BETTER_AND_WORSE = {
    "verified": (key(9, forwarded=9, verified=True), key(0, forwarded=0, verified=False)),
    "earlier": (key(1, forwarded=9), key(2, forwarded=0)),
    "less_often_forwarded": (key(1, forwarded=1), key(1, forwarded=2)),
}


async def test_the_better_key_stays(alice: Client) -> None:
    await alice.post(VERSIONS, BACKUP)
    for name, (better, worse) in BETTER_AND_WORSE.items():
        path = f"{KEYS}/{ROOM}/{name}"
        await put(alice, path, worse)
        size = await put(alice, path, better)
        assert int(size["etag"]) == 2 * size["count"]
        assert await put(alice, path, worse) == size
        assert await put(alice, path, {**better, "session_data": {}}) == size
        assert await alice.get(path, version="1") == better


async def test_keys_go_into_the_current_backup_only(alice: Client) -> None:
    refused(await alice.call("PUT", KEYS, rooms(), version="1"), 404, "M_NOT_FOUND")
    await alice.post(VERSIONS, BACKUP)
    await alice.post(VERSIONS, BACKUP)
    for path, body in ((KEYS, rooms(one=key())), (f"{KEYS}/{ROOM}", {"sessions": {}}), (f"{KEYS}/{ROOM}/one", key())):
        for version in ("1", "3", "x"):
            error = refused(await alice.call("PUT", path, body, version=version), 403, "M_WRONG_ROOM_KEYS_VERSION")
            assert error["current_version"] == "2"
        refused(await alice.call("PUT", path, body), 400, "M_MISSING_PARAM")
        refused(await alice.call("GET", path), 400, "M_MISSING_PARAM")
        refused(await alice.call("DELETE", path), 400, "M_MISSING_PARAM")
    assert (await alice.get(VERSIONS))["count"] == 0


WRONG_KEYS: Sequence[Any] = (
    {**key(), "first_message_index": -1},
    {**key(), "first_message_index": 1.0},
    {**key(), "forwarded_count": 2**53},
    {**key(), "forwarded_count": True},
    {**key(), "is_verified": 1},
    {**key(), "session_data": "text"},
    {name: value for name, value in key().items() if name != "is_verified"},
    [],
    None,
)


async def test_wrong_keys_change_nothing(alice: Client) -> None:
    await alice.post(VERSIONS, BACKUP)
    for wrong in WRONG_KEYS:
        refused(await alice.call("PUT", KEYS, rooms(good=key(), wrong=wrong), version="1"), 400, "M_BAD_JSON")
    assert await alice.get(KEYS, version="1") == {"rooms": {}}


async def test_wrong_bodies(alice: Client, site: Site) -> None:
    await alice.post(VERSIONS, BACKUP)
    refused(await alice.call("PUT", KEYS, {}, version="1"), 400, "M_MISSING_PARAM")
    for body in ({"rooms": []}, {"rooms": {ROOM: {}}}, {"rooms": {ROOM: {"sessions": []}}}, []):
        refused(await alice.call("PUT", KEYS, body, version="1"), 400, "M_BAD_JSON")
    refused(await alice.call("PUT", KEYS, {"rooms": {"room": {"sessions": {}}}}, version="1"), 400, "M_INVALID_PARAM")
    for session_id in ("", "x" * 256, "a\0b"):
        body = {"rooms": {ROOM: {"sessions": {session_id: key()}}}}
        refused(await alice.call("PUT", KEYS, body, version="1"), 400, "M_INVALID_PARAM")
    for body in ({"algorithm": "", "auth_data": {}}, {"algorithm": "x", "auth_data": {"a": "x" * 70_000}}):
        refused(await alice.call("POST", VERSIONS, body), 400, "M_INVALID_PARAM")
    refused(await site.anonymous().call("GET", VERSIONS), 401, "M_MISSING_TOKEN")


async def test_uploads_at_the_same_time_count_right(alice: Client) -> None:
    await alice.post(VERSIONS, BACKUP)
    async with asyncio.TaskGroup() as tasks:
        for number in range(10):
            sessions = {f"session{each}": key() for each in range(number, number + 10)}
            tasks.create_task(put(alice, f"{KEYS}/{ROOM}", {"sessions": sessions}))
    assert (await alice.get(VERSIONS))["count"] == 19


VALUES = st.integers(-(2**53), 2**53) | st.text() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=5))
def test_session_data_is_kept_whatever_it_is(data: dict[str, Any]) -> None:
    parsed = parse_key(RoomId(ROOM), "session", {**key(), "session_data": data})
    assert orjson.loads(parsed.session_data) == data
    assert "\0" not in parsed.session_data
