"""Where keys come from: memory, the database, the servers themselves, notaries; and how seldom anybody is asked."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from aiohttp import web

from federation.outbound import key_ring
from federation.outbound.key_sources import Notary
from homeserver.core.ids import ServerName
from homeserver.core.own_keys import OwnKeys, RetiredKey
from homeserver.core.signing import sign_json
from homeserver.services.remote import KeyWish, ServerKey
from storage.database import Database
from tests.fast_clock import FastClock
from tests.federation.certificates import CertificateAuthority
from tests.federation.peer import Peer
from tests.federation.transport.ways import US, Ways, new_key, open_ways
from tests.waiting import wait_until

SERVER = "GET /_matrix/key/v2/server"
QUERY = "POST /_matrix/key/v2/query"
DAY_MS = 86_400_000


def keys_of(
    peer: Peer, clock: FastClock, *, valid_ms: int = DAY_MS, name: str | None = None, **changes: Any
) -> dict[str, Any]:
    """What a server publishes by the clock of the test."""
    json = {
        "server_name": name or peer.name,
        "valid_until_ts": clock.now_ms() + valid_ms,
        "verify_keys": {peer.key.key_id: {"key": peer.key.verify_key.encode()}},
        **changes,
    }
    return sign_json(json, name or peer.name, peer.key)


async def fetch(
    ways: Ways, server: str, key_id: str = "ed25519:a_peer", *, at_ms: int | None = None
) -> ServerKey | None:
    name = ServerName.parse(server)
    found = await ways.keys.fetch([KeyWish(name, key_id, at_ms)])
    return found.get((name, key_id))


class Replies:
    """Answers with one thing, whatever it is."""

    def __init__(self, content: Any) -> None:
        self._content = content

    def __call__(self, _: object) -> web.Response:
        return web.json_response(self._content)


def asked(peer: Peer) -> int:
    return len(peer.asked("server"))


async def test_a_key_is_fetched_once(ways: Ways, peer: Peer, clock: FastClock) -> None:
    peer.answers[SERVER] = lambda _: keys_of(peer, clock)
    found = await fetch(ways, peer.name, at_ms=clock.now_ms())
    assert found is not None
    assert found.key.encode() == peer.key.verify_key.encode()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(fetch(ways, peer.name, at_ms=clock.now_ms()))
    assert asked(peer) == 1


async def test_those_who_ask_at_once_share_a_request(ways: Ways, peer: Peer, clock: FastClock) -> None:
    peer.answers[SERVER] = lambda _: keys_of(peer, clock)
    async with asyncio.TaskGroup() as tasks:
        fetched = [tasks.create_task(fetch(ways, peer.name)) for _ in range(5)]
    assert all(task.result() is not None for task in fetched)
    assert asked(peer) == 1


async def test_keys_outlive_the_process_and_the_server(
    db: Database, ways: Ways, peer: Peer, clock: FastClock, authority: CertificateAuthority
) -> None:
    peer.answers[SERVER] = lambda _: keys_of(peer, clock)
    await fetch(ways, peer.name)
    peer.answers[SERVER] = (503, {})
    async with open_ways(db, clock, authority, peers=[peer]) as later:
        assert await fetch(later, peer.name, at_ms=clock.now_ms()) is not None
        clock.advance(30 * 86_400)
        # What is too old is told nevertheless: whether it is too old is for the caller to say.
        found = await fetch(later, peer.name, at_ms=clock.now_ms())
        assert found is not None
        assert found.valid_until_ts < clock.now_ms()
    assert asked(peer) == 2


async def test_a_key_that_is_too_old_is_fetched_again(ways: Ways, peer: Peer, clock: FastClock) -> None:
    peer.answers[SERVER] = lambda _: keys_of(peer, clock, valid_ms=3_600_000)
    first = await fetch(ways, peer.name)
    clock.advance(2 * 3600)
    assert await fetch(ways, peer.name) == first  # nobody minds its age
    found = await fetch(ways, peer.name, at_ms=clock.now_ms())
    assert found is not None
    assert found.valid_until_ts > clock.now_ms()
    assert asked(peer) == 2


async def test_keys_in_use_are_fetched_before_they_expire(ways: Ways, peer: Peer, clock: FastClock) -> None:
    valid_ms = key_ring.REFRESH_MS // 2
    peer.answers[SERVER] = lambda _: keys_of(peer, clock, valid_ms=valid_ms)
    await fetch(ways, peer.name)
    clock.advance(6)
    fast = FastClock(speed=100.0)
    ways.keys._clock = fast
    fast.advance(clock.monotonic())
    running = asyncio.create_task(ways.keys.run())
    try:
        await wait_until(lambda: asked(peer) >= 2)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_old_keys(ways: Ways, peer: Peer, clock: FastClock) -> None:
    old = new_key("old")
    expired_ts = clock.now_ms() - 1000
    published = {old.key_id: {"key": old.verify_key.encode(), "expired_ts": expired_ts}}
    peer.answers[SERVER] = lambda _: keys_of(peer, clock, old_verify_keys=published)
    found = await fetch(ways, peer.name, old.key_id, at_ms=clock.now_ms())
    assert found is not None
    assert (found.is_retired, found.valid_until_ts) == (True, expired_ts)


async def test_a_key_that_does_not_exist_is_not_asked_for_again_and_again(
    ways: Ways, peer: Peer, clock: FastClock
) -> None:
    peer.answers[SERVER] = lambda _: keys_of(peer, clock)
    for _ in range(5):
        assert await fetch(ways, peer.name, "ed25519:made_up") is None
    assert asked(peer) == 1
    for number in range(2 * key_ring.SERVER_AT_ONCE):
        assert await fetch(ways, peer.name, f"ed25519:made_up_{number}") is None
    assert asked(peer) == key_ring.SERVER_AT_ONCE
    for _ in range(2):
        clock.advance(3600)
        assert await fetch(ways, peer.name, "ed25519:made_up") is None
    assert asked(peer) == key_ring.SERVER_AT_ONCE + 2


async def test_odd_wishes_find_nothing(ways: Ways, peer: Peer) -> None:
    for key_id in ("", "ed25519", "rsa:1", "ed25519:\0", "ed25519:" + "x" * 10_000):
        assert await fetch(ways, peer.name, key_id) is None


async def test_a_server_cannot_publish_for_another(ways: Ways, peer: Peer, clock: FastClock) -> None:
    for answer in (
        keys_of(peer, clock, name="other.example"),
        keys_of(peer, clock) | {"server_name": "other.example"},
        keys_of(peer, clock) | {"signatures": {}},
        (404, {"errcode": "M_NOT_FOUND"}),
        "nonsense",
        ["x"],
    ):
        peer.answers[SERVER] = answer if isinstance(answer, tuple | dict) else Replies(answer)
        clock.advance(4000)
        assert await fetch(ways, peer.name) is None
        assert await fetch(ways, "other.example") is None
        clock.advance(90_000)


async def test_own_keys_need_nobody(db: Database, clock: FastClock, authority: CertificateAuthority) -> None:
    one, two, old = new_key("one"), new_key("two"), new_key("old")
    own = OwnKeys(active=(one, two), retired=(RetiredKey(old.verify_key, 5),))
    async with open_ways(db, clock, authority, own_keys=own) as ways:
        for key in (one, two):
            found = await fetch(ways, US, key.key_id, at_ms=clock.now_ms())
            assert found is not None
            assert found.key.encode() == key.verify_key.encode()
        retired = await fetch(ways, US, old.key_id)
        assert retired == ServerKey(old.verify_key, 5, is_retired=True)
        assert await fetch(ways, US, "ed25519:none") is None


async def test_denied_keys_are_denied_wherever_they_come_from(
    db: Database, ways: Ways, peer: Peer, clock: FastClock, authority: CertificateAuthority
) -> None:
    """S17: also if they were stored before they were denied."""
    peer.answers[SERVER] = lambda _: keys_of(peer, clock)
    assert await fetch(ways, peer.name) is not None
    async with open_ways(db, clock, authority, denied_keys=[peer.key.verify_key.encode()]) as later:
        assert await fetch(later, peer.name) is None


class TestNotaries:
    """What `other_peer` says of `peer`, which does not answer itself."""

    @staticmethod
    def ways(
        db: Database, clock: FastClock, authority: CertificateAuthority, notary: Peer, *others: Peer
    ) -> AbstractAsyncContextManager[Ways]:
        notaries = [Notary(notary.name, [notary.key.verify_key])]
        return open_ways(db, clock, authority, notaries=notaries, peers=[notary, *others])

    async def test_a_notary_is_asked_for_who_does_not_answer(
        self, db: Database, clock: FastClock, authority: CertificateAuthority, peer: Peer, other_peer: Peer
    ) -> None:
        peer.answers[SERVER] = (503, {})
        entry = sign_json(keys_of(peer, clock), other_peer.name, other_peer.key)
        other_peer.answers[QUERY] = {"server_keys": [entry, {"server_name": []}, None]}
        async with self.ways(db, clock, authority, other_peer, peer) as ways:
            at_ms = clock.now_ms()
            found = await fetch(ways, peer.name, at_ms=at_ms)
            assert found is not None
            assert found.key.encode() == peer.key.verify_key.encode()
        (query,) = other_peer.asked("query")
        wanted = {peer.name: {peer.key.key_id: {"minimum_valid_until_ts": at_ms}}}
        assert query.body == {"server_keys": wanted}

    async def test_it_is_believed_only_with_both_signatures(
        self, db: Database, clock: FastClock, authority: CertificateAuthority, peer: Peer, other_peer: Peer
    ) -> None:
        peer.answers[SERVER] = (503, {})
        true = keys_of(peer, clock)
        forged = keys_of(other_peer, clock, name=peer.name)
        own_signature = sign_json(true, other_peer.name, other_peer.key)
        entries: Sequence[Any] = (
            true,
            sign_json(true, other_peer.name, new_key(other_peer.key.version)),
            own_signature | {"signatures": {other_peer.name: own_signature["signatures"][other_peer.name]}},
            sign_json({**forged, "verify_keys": true["verify_keys"]}, other_peer.name, other_peer.key),
        )
        for entry in entries:
            other_peer.answers[QUERY] = {"server_keys": [entry]}
            async with self.ways(db, clock, authority, other_peer, peer) as ways:
                assert await fetch(ways, peer.name) is None, entry
        assert len(other_peer.asked("query")) == len(entries)

    async def test_it_may_not_speak_of_others_than_asked(
        self, db: Database, clock: FastClock, authority: CertificateAuthority, peer: Peer, other_peer: Peer
    ) -> None:
        peer.answers[SERVER] = (503, {})
        entry = sign_json(keys_of(peer, clock, name="else.example"), other_peer.name, other_peer.key)
        other_peer.answers[QUERY] = {"server_keys": [entry]}
        async with self.ways(db, clock, authority, other_peer, peer) as ways:
            assert await fetch(ways, peer.name) is None
        async with db.connection() as conn:
            assert await conn.fetchval("SELECT count(*) FROM server_keys") == 0

    async def test_for_many_servers_the_notary_is_asked_first(
        self, db: Database, clock: FastClock, authority: CertificateAuthority, other_peer: Peer
    ) -> None:
        servers = [ServerName.parse(f"127.0.0.1:{port}") for port in range(1, key_ring.NOTARIES_FIRST_FROM + 1)]
        other_peer.answers[QUERY] = lambda request: {
            "server_keys": [
                sign_json(keys_of(other_peer, clock, name=name), other_peer.name, other_peer.key)
                for name in request.body["server_keys"]
            ]
        }
        wishes = [KeyWish(server, other_peer.key.key_id, None) for server in servers]
        async with self.ways(db, clock, authority, other_peer) as ways:
            assert len(await ways.keys.fetch(wishes)) == len(servers)
            assert all([await ways.destinations.is_due(server) for server in servers])
        assert len(other_peer.asked("query")) == 1

    async def test_an_older_answer_changes_nothing(
        self, db: Database, clock: FastClock, authority: CertificateAuthority, peer: Peer, other_peer: Peer
    ) -> None:
        """What a server has retired does not come back by way of a notary that replays what it said before."""
        before = sign_json(keys_of(peer, clock, valid_ms=1000), other_peer.name, other_peer.key)
        other_peer.answers[QUERY] = {"server_keys": [before]}
        old = peer.key
        peer.key = new_key("new")
        retired = {old.key_id: {"key": old.verify_key.encode(), "expired_ts": clock.now_ms()}}
        peer.answers[SERVER] = lambda _: keys_of(peer, clock, old_verify_keys=retired)
        async with self.ways(db, clock, authority, other_peer, peer) as ways:
            assert await fetch(ways, peer.name, "ed25519:new") is not None
            await fetch(ways, peer.name, "ed25519:absent")
            assert other_peer.asked("query")
            found = await fetch(ways, peer.name, old.key_id)
            assert found is not None
            assert found.is_retired

    async def test_as_a_notary_it_asks_no_other_notary(
        self, db: Database, clock: FastClock, authority: CertificateAuthority, peer: Peer, other_peer: Peer
    ) -> None:
        """Two that trust each other would ask in circles."""
        peer.answers[SERVER] = (503, {})
        other_peer.answers[QUERY] = {"server_keys": []}
        async with self.ways(db, clock, authority, other_peer, peer) as ways:
            for key_ids in ([], [peer.key.key_id]):
                assert not await ways.keys.answers(peer.name, key_ids=key_ids, minimum_valid_until_ts=clock.now_ms())
                clock.advance(60)
            assert not other_peer.asked("query")
            await fetch(ways, peer.name, at_ms=clock.now_ms())
            assert other_peer.asked("query")
