"""Presence: set by clients, by their syncs, by activity and by time; shown to those who share a room."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from homeserver.config.schema import PresenceConfig
from homeserver.core.ids import DeviceId, ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.services.ephemeral.presence import CURRENTLY_ACTIVE_MS, STATUS_MSG_BYTES_MAX
from tests.api.ephemeral.api import EphemeralApi, News, Person, ephemeral_api

ORIGIN = ServerName("remote.test")
REMOTE = UserId("@remote:remote.test")
IDLE_SECONDS = PresenceConfig().idle_ms / 1000


def is_told(user_id: str, **expected: Any) -> Any:
    """A condition: the presence of a user is told, with these members."""

    def told(news: News) -> bool:
        content = news.presence.get(user_id)
        return content is not None and expected.items() <= content.items()

    return told


async def test_a_status_is_told_to_those_who_share_a_room(api: EphemeralApi, alice: Person, bob: Person) -> None:
    await api.room(alice, bob)
    listener = alice.listener()
    await listener.read()
    reply = await bob.set_presence(presence="online", status_msg="Here")
    assert (reply.status, reply.json) == (200, {})
    news = await listener.expect(is_told(bob.user_id, presence="online", status_msg="Here", currently_active=True))
    assert news.presence[bob.user_id]["last_active_ago"] >= 0
    assert (await alice.get_presence(bob.user_id)).json["status_msg"] == "Here"
    await bob.set_presence(presence="unavailable")
    news = await listener.expect(is_told(bob.user_id, presence="unavailable"))
    assert "status_msg" not in news.presence[bob.user_id]
    assert "currently_active" not in news.presence[bob.user_id]


async def test_who_shares_no_room_is_told_nothing(api: EphemeralApi, alice: Person, bob: Person) -> None:
    room = await api.room(alice)
    await bob.set_presence(presence="online")
    reply = await alice.get_presence(bob.user_id)
    assert (reply.status, reply.json["errcode"]) == (403, "M_FORBIDDEN")
    reply = await alice.get_presence("@unknown:example.org")
    assert (reply.status, reply.json["errcode"]) == (403, "M_FORBIDDEN")
    assert bob.user_id not in (await alice.listener().read()).presence
    await bob.rooms.join(room)
    assert (await alice.get_presence(bob.user_id)).json["presence"] == "online"
    await bob.rooms.post(room, "leave")
    assert (await alice.get_presence(bob.user_id)).status == 403


async def test_one_sees_oneself(api: EphemeralApi, alice: Person) -> None:
    assert (await alice.get_presence(alice.user_id)).json == {"presence": "offline"}
    await alice.set_presence(presence="unavailable", status_msg="Away")
    reply = await alice.get_presence(alice.user_id)
    assert (reply.json["presence"], reply.json["status_msg"]) == ("unavailable", "Away")
    assert alice.user_id in (await alice.listener().read()).presence


async def test_nobody_sets_the_presence_of_another(api: EphemeralApi, alice: Person, bob: Person) -> None:
    await api.room(alice, bob)
    reply = await alice.set_presence(user_id=bob.user_id, presence="online")
    assert (reply.status, reply.json["errcode"]) == (403, "M_FORBIDDEN")
    assert (await alice.get_presence(bob.user_id)).json == {"presence": "offline"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"presence": "busy"},
        {"presence": None},
        {"presence": "online", "status_msg": 5},
        {"presence": "online", "status_msg": "x" * (STATUS_MSG_BYTES_MAX + 1)},
        {"presence": "online", "status_msg": "ä" * STATUS_MSG_BYTES_MAX},
        {"presence": "online", "status_msg": "a\x00b"},
    ],
)
async def test_a_wrong_status_is_refused(api: EphemeralApi, alice: Person, body: dict[str, Any]) -> None:
    assert (await alice.set_presence(**body)).status == 400
    assert (await alice.get_presence(alice.user_id)).json == {"presence": "offline"}


async def test_the_same_status_again_is_no_news(api: EphemeralApi, alice: Person, bob: Person) -> None:
    await api.room(alice, bob)
    await bob.set_presence(presence="online", status_msg="Here")
    listener = alice.listener()
    await listener.expect(is_told(bob.user_id, presence="online"))
    await bob.set_presence(presence="online", status_msg="Here")
    assert bob.user_id not in (await listener.read()).presence


async def test_a_sync_makes_online_and_its_end_offline(api: EphemeralApi, alice: Person, bob: Person) -> None:
    await api.room(alice, bob)
    listener = alice.listener()
    with api.presence.syncing(bob.requester, state="online"):
        await listener.expect(is_told(bob.user_id, presence="online"))
        api.clock.advance(PresenceConfig().offline_ms / 1000 + 10)
        await api.clock.sleep(10)
        assert (await alice.get_presence(bob.user_id)).json["presence"] == "online"
    await listener.expect(is_told(bob.user_id, presence="offline"))


async def test_of_two_devices_the_more_present_one_counts(api: EphemeralApi, alice: Person, bob: Person) -> None:
    await api.room(alice, bob)
    listener = alice.listener()
    phone = Requester(bob.user_id, DeviceId("PHONE"))
    with api.presence.syncing(phone, state="unavailable"):
        await listener.expect(is_told(bob.user_id, presence="unavailable"))
        with api.presence.syncing(bob.requester, state="online"):
            await listener.expect(is_told(bob.user_id, presence="online"))
        api.clock.advance(PresenceConfig().offline_ms / 1000 + 1)
        await listener.expect(is_told(bob.user_id, presence="unavailable"))


async def test_a_sync_that_asks_for_no_presence_changes_none(api: EphemeralApi, alice: Person, bob: Person) -> None:
    """Who came online by saying so stays it beside such syncs, and they keep nobody online."""
    await api.room(alice, bob)
    await bob.set_presence(presence="online")
    listener = alice.listener()
    await listener.expect(is_told(bob.user_id, presence="online"))
    with api.presence.syncing(bob.requester, state="offline"):
        await api.presence.flush()
        assert bob.user_id not in (await listener.read()).presence
        api.clock.advance(PresenceConfig().offline_ms / 1000 + 1)
        await listener.expect(is_told(bob.user_id, presence="offline"))


async def test_who_does_nothing_becomes_unavailable_until_they_do_something(
    api: EphemeralApi, alice: Person, bob: Person
) -> None:
    room = await api.room(alice, bob)
    event = await alice.rooms.send(room)
    listener = alice.listener()
    with api.presence.syncing(bob.requester, state="online"):
        await listener.expect(is_told(bob.user_id, presence="online", currently_active=True))
        api.clock.advance(CURRENTLY_ACTIVE_MS / 1000)
        await listener.expect(is_told(bob.user_id, presence="online", currently_active=False))
        api.clock.advance(IDLE_SECONDS)
        await listener.expect(is_told(bob.user_id, presence="unavailable"))
        await bob.read(room, event)
        await listener.expect(is_told(bob.user_id, presence="online", currently_active=True))


async def test_each_worker_knows_its_own_syncs(
    api: EphemeralApi, alice: Person, bob: Person, database_url: str
) -> None:
    """The end of a device's syncs at one worker does not take it offline while it syncs at another."""
    await api.room(alice, bob)
    listener = alice.listener()
    async with ephemeral_api(database_url) as other:
        with other.presence.syncing(bob.requester, state="online"):
            with api.presence.syncing(bob.requester, state="online"):
                await listener.expect(is_told(bob.user_id, presence="online"))
            await listener.read()
            api.clock.advance(PresenceConfig().offline_ms / 1000 + 1)
            await api.clock.sleep(20)
            assert bob.user_id not in (await listener.read()).presence
        other.clock.advance(PresenceConfig().offline_ms / 1000 + 1)
        await listener.expect(is_told(bob.user_id, presence="offline"))


async def test_what_a_dead_worker_has_seen_ends(api: EphemeralApi, alice: Person, bob: Person) -> None:
    await api.room(alice, bob)
    listener = alice.listener()
    async with api.db.connection() as conn:
        await conn.execute(
            "INSERT INTO presence_sources VALUES ($1, 'D', 'dead', 'online', NULL, now() - interval '1 second');",
            bob.user_id,
        )
        await conn.execute("INSERT INTO presence (user_id, presence) VALUES ($1, 'online')", bob.user_id)
    await listener.expect(is_told(bob.user_id, presence="offline"))


async def test_syncs_write_little(api: EphemeralApi, bob: Person) -> None:
    with api.presence.syncing(bob.requester, state="online"):
        await bob.listener().expect(is_told(bob.user_id, presence="online"))
    async with api.db.connection() as conn:
        before = await conn.fetchval("SELECT xmin::text FROM presence_sources")
        for _ in range(50):
            with api.presence.syncing(bob.requester, state="online"):
                api.presence.note_activity(bob.user_id)
                await api.clock.sleep(0.5)
        assert await conn.fetchval("SELECT xmin::text FROM presence_sources") == before


async def test_presence_of_other_servers(api: EphemeralApi, alice: Person) -> None:
    room = await api.room(alice)
    await api.remote_member(room, REMOTE)
    listener = alice.listener()
    entry = {"user_id": REMOTE, "presence": "online", "currently_active": False, "last_active_ago": 5_000_000}
    await api.presence.receive(ORIGIN, {"push": [{**entry, "status_msg": "Far"}]})
    news = await listener.expect(is_told(REMOTE, presence="online", currently_active=False, status_msg="Far"))
    assert news.presence[REMOTE]["last_active_ago"] >= 5_000_000
    await api.clock.sleep(10)
    assert REMOTE not in (await listener.read()).presence, "its idleness is its own server's affair"
    await api.presence.receive(ORIGIN, {"push": [{**entry, "presence": "offline"}]})
    await listener.expect(is_told(REMOTE, presence="offline"))


async def test_another_server_speaks_only_for_its_users_in_rooms(api: EphemeralApi, alice: Person) -> None:
    room = await api.room(alice)
    await api.remote_member(room, "@member:third.test")
    push = [
        {"user_id": user_id, "presence": "online"}
        for user_id in (REMOTE, alice.user_id, "@member:third.test", "x", None)
    ]
    await api.presence.receive(ORIGIN, {"push": push})
    await api.presence.receive(ORIGIN, {"push": "x"})
    assert not (await alice.listener().read()).presence
    async with api.db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM presence_sources") == 0


@pytest.fixture
async def without_presence(database_url: str) -> AsyncIterator[EphemeralApi]:
    """A server whose operator has switched presence off."""
    async with ephemeral_api(database_url, presence_config=PresenceConfig(enabled=False)) as running:
        yield running


async def test_presence_that_is_switched_off(without_presence: EphemeralApi) -> None:
    alice, bob = await without_presence.person("alice"), await without_presence.person("bob")
    await without_presence.room(alice, bob)
    assert (await bob.set_presence(presence="online", status_msg="Here")).status == 200
    with without_presence.presence.syncing(bob.requester, state="online"):
        await without_presence.clock.sleep(5)
    assert (await alice.get_presence(bob.user_id)).json == {"presence": "offline"}
    assert (await bob.set_presence(user_id=alice.user_id, presence="online")).status == 403
    assert not (await alice.listener().read()).presence
