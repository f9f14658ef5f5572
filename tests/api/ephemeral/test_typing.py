"""Typing: who may say it, who is told, and that it ends by itself."""

from typing import Any

import pytest

from homeserver.core.ids import ServerName
from homeserver.services.ephemeral.typing import TIMEOUT_MS_MAX
from tests.api.ephemeral.api import EphemeralApi, Person
from tests.waiting import wait_until

ORIGIN = ServerName("remote.test")
REMOTE = "@remote:remote.test"


async def test_who_types_is_told_to_the_room_until_they_stop(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice, bob)
    listener = await alice.listener().caught_up()
    reply = await bob.type(room, typing=True, timeout=30_000)
    assert (reply.status, reply.json) == (200, {})
    assert (await listener.expect(bool)).typing == {room: [bob.user_id]}
    assert (await alice.type(room, typing=True)).status == 200
    assert (await listener.expect(bool)).typing == {room: [alice.user_id, bob.user_id]}
    assert (await bob.type(room, typing=False)).status == 200
    assert (await listener.expect(bool)).typing == {room: [alice.user_id]}


async def test_typing_on_and_stopping_twice_are_no_news(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice, bob)
    await bob.type(room, typing=True, timeout=30_000)
    listener = await alice.listener().caught_up()
    await bob.type(room, typing=True, timeout=30_000)
    assert not await listener.read()
    await bob.type(room, typing=False)
    assert (await listener.read()).typing == {room: []}
    await bob.type(room, typing=False)
    assert not await listener.read()


async def test_typing_ends_by_itself_without_another_request(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice, bob)
    listener = await alice.listener().caught_up()
    await bob.type(room, typing=True, timeout=150)
    assert (await listener.expect(bool)).typing == {room: [bob.user_id]}
    assert (await listener.expect(bool)).typing == {room: []}
    assert not await listener.read(), "it ends once, though several may notice"


async def test_typing_on_puts_the_end_off(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice, bob)
    await bob.type(room, typing=True, timeout=1)
    await bob.type(room, typing=True, timeout=30_000)
    await api.typing.expire()
    assert (await alice.listener().read()).typing == {room: [bob.user_id]}


async def test_who_begins_to_listen_is_told_who_types_and_who_has_just_stopped(
    api: EphemeralApi, alice: Person, bob: Person
) -> None:
    quiet, busy, _ = [await api.room(alice, bob) for _ in range(3)]
    await bob.type(quiet, typing=True)
    await bob.type(quiet, typing=False)
    await bob.type(busy, typing=True)
    assert (await alice.listener().read()).typing == {busy: [bob.user_id], quiet: []}


async def test_rooms_are_told_apart(api: EphemeralApi, alice: Person, bob: Person, carol: Person) -> None:
    room, other = await api.room(alice, bob), await api.room(alice, carol)
    listener = await carol.listener().caught_up()
    await bob.type(room, typing=True)
    assert not await listener.read()
    await alice.type(other, typing=True)
    assert (await listener.expect(bool)).typing == {other: [alice.user_id]}


async def test_the_time_has_a_limit(api: EphemeralApi, alice: Person) -> None:
    room = await api.room(alice)
    assert (await alice.type(room, typing=True, timeout=2**53 - 1)).status == 200
    async with api.db.connection() as conn:
        seconds = await conn.fetchval("SELECT extract(epoch FROM expires_at - now()) FROM typing")
    assert TIMEOUT_MS_MAX / 1000 - 5 < seconds <= TIMEOUT_MS_MAX / 1000


async def test_nobody_types_for_another_or_where_they_are_not(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice)
    for reply in (
        await alice.type(room, user_id=bob.user_id, typing=True),
        await bob.type(room, user_id=alice.user_id, typing=True),
        await bob.type(room, user_id=alice.user_id, typing=False),
        await bob.type(room, typing=True),
        await bob.type("!unknown:example.org", typing=True),
    ):
        assert (reply.status, reply.json["errcode"]) == (403, "M_FORBIDDEN")
    assert not await alice.listener().read()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"typing": "yes"},
        {"typing": None},
        {"typing": 1},
        {"typing": True, "timeout": "30000"},
        {"typing": True, "timeout": -1},
        {"typing": True, "timeout": 1.5},
        {"typing": True, "timeout": 2**60},
    ],
)
async def test_a_wrong_body_is_refused(api: EphemeralApi, alice: Person, body: dict[str, Any]) -> None:
    room = await api.room(alice)
    assert (await alice.type(room, **body)).status == 400
    assert not await alice.listener().read()


@pytest.mark.parametrize("user_id", ["alice", "@", "@%00:example.org", "@" + "x" * 300 + ":example.org"])
async def test_a_wrong_user_id_is_refused(api: EphemeralApi, alice: Person, user_id: str) -> None:
    room = await api.room(alice)
    reply = await alice.call("PUT", f"/rooms/{room}/typing/{user_id}", {"typing": True})
    assert (reply.status, reply.json["errcode"]) == (400, "M_INVALID_PARAM")


async def test_typing_of_other_servers(api: EphemeralApi, alice: Person) -> None:
    room = await api.room(alice)
    await api.remote_member(room, REMOTE)
    listener = await alice.listener().caught_up()
    await api.typing.receive(ORIGIN, {"room_id": room, "user_id": REMOTE, "typing": True})
    assert (await listener.expect(bool)).typing == {room: [REMOTE]}
    await api.typing.receive(ORIGIN, {"room_id": room, "user_id": REMOTE, "typing": False})
    assert (await listener.expect(bool)).typing == {room: []}


async def test_another_server_speaks_only_for_its_users_in_the_room(api: EphemeralApi, alice: Person) -> None:
    room = await api.room(alice)
    listener = await alice.listener().caught_up()
    await api.remote_member(room, "@member:third.test")
    for content in (
        {"room_id": room, "user_id": REMOTE, "typing": True},
        {"room_id": room, "user_id": alice.user_id, "typing": True},
        {"room_id": room, "user_id": "@member:third.test", "typing": True},
        {"room_id": "!unknown:x", "user_id": REMOTE, "typing": True},
        {"room_id": room, "user_id": REMOTE, "typing": "yes"},
        {"room_id": None, "user_id": [], "typing": True},
        {},
    ):
        await api.typing.receive(ORIGIN, content)
    assert not await listener.read()


async def test_workers_that_expire_at_once_do_it_once(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice, bob)
    await bob.type(room, typing=True, timeout=1)

    async def is_over() -> bool:
        async with api.db.connection() as conn:
            return not await conn.fetchval("SELECT is_typing FROM typing")

    await wait_until(is_over)
    async with api.db.connection() as conn:
        before = await conn.fetchval("SELECT position FROM typing_rooms")
    await api.typing.expire()
    async with api.db.connection() as conn:
        assert await conn.fetchval("SELECT position FROM typing_rooms") == before
