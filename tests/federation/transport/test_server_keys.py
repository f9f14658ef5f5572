"""The endpoints of keys and of the version, with this server as a notary."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from federation.inbound import server_keys, version
from federation.wire.server_keys import DeniedKeys, parse_key_answer
from homeserver.core.own_keys import OwnKeys, RetiredKey
from homeserver.core.signing import sign_json, verify_json
from homeserver.core.version import NAME
from storage.database import Database
from tests.fast_clock import FastClock
from tests.federation.certificates import CertificateAuthority
from tests.federation.peer import Peer
from tests.federation.transport.ways import US, new_key, open_ways
from tests.web.harness import Web, web

SERVER, QUERY = "/_matrix/key/v2/server", "/_matrix/key/v2/query"
DAY_MS = 86_400_000

ONE, TWO, OLD = new_key("one"), new_key("two"), new_key("old")
OWN = OwnKeys(active=(ONE, TWO), retired=(RetiredKey(OLD.verify_key, 5),))


@pytest.fixture
async def site(
    db: Database, clock: FastClock, authority: CertificateAuthority, peer: Peer, other_peer: Peer
) -> AsyncIterator[Web]:
    """The endpoints, of a server that can ask two peers."""
    for each in (peer, other_peer):
        publish(each, clock)
    async with open_ways(db, clock, authority, own_keys=OWN, peers=[peer, other_peer]) as ways:
        keys = server_keys.section(own_keys=OWN, server_name=US, others=ways.keys, clock=clock)
        async with web(keys, version.section(), clock=clock) as running:
            yield running


def publish(peer: Peer, clock: FastClock, *, valid_ms: int = DAY_MS) -> None:
    published = {
        "server_name": peer.name,
        "valid_until_ts": clock.now_ms() + valid_ms,
        "verify_keys": {peer.key.key_id: {"key": peer.key.verify_key.encode()}},
    }
    peer.answers[f"GET {SERVER}"] = sign_json(published, peer.name, peer.key)


async def query(site: Web, servers: Any) -> list[Mapping[str, Any]]:
    reply = await site.call("POST", QUERY, body=json.dumps({"server_keys": servers}).encode())
    assert reply.status == 200, reply.body
    found: list[Mapping[str, Any]] = reply.json["server_keys"]
    return found


async def test_own_keys(site: Web, clock: FastClock) -> None:
    published = (await site.call("GET", SERVER)).json
    assert (await site.call("GET", f"{SERVER}/{ONE.key_id}")).json["verify_keys"] == published["verify_keys"]
    assert all(verify_json(published, US, key.verify_key) for key in (ONE, TWO))
    assert published["old_verify_keys"] == {"ed25519:old": {"key": OLD.verify_key.encode(), "expired_ts": 5}}
    answer = parse_key_answer(published, server_name=US, denied=DeniedKeys(()), now_ms=clock.now_ms())
    assert set(answer.keys) == {"ed25519:one", "ed25519:two", "ed25519:old"}
    assert answer.valid_until_ts >= clock.now_ms() + 3_600_000


async def test_version(site: Web) -> None:
    assert (await site.call("GET", "/_matrix/federation/v1/version")).json["server"]["name"] == NAME


async def test_keys_of_another_server(site: Web, peer: Peer) -> None:
    """Fetched once, passed on with both signatures, also when the server is gone."""
    for _ in range(2):
        reply = await site.call("GET", f"{QUERY}/{peer.name}")
        (entry,) = reply.json["server_keys"]
        assert verify_json(entry, peer.name, peer.key.verify_key)
        assert verify_json(entry, US, ONE.verify_key)
        peer.answers[f"GET {SERVER}"] = (503, {})
    assert len(peer.asked("server")) == 1


async def test_keys_of_several_servers(site: Web, peer: Peer, other_peer: Peer) -> None:
    wanted: dict[str, Any] = {
        peer.name: {},
        other_peer.name: {other_peer.key.key_id: {}},
        US: {},
        "127.0.0.1:1": {},
        "no server": {},
    }
    found = {entry["server_name"]: entry for entry in await query(site, wanted)}
    assert set(found) == {peer.name, other_peer.name, US}
    assert verify_json(found[other_peer.name], other_peer.name, other_peer.key.verify_key)
    assert all(verify_json(entry, US, ONE.verify_key) for entry in found.values())


async def test_keys_must_be_good_for_long_enough(site: Web, peer: Peer, clock: FastClock) -> None:
    async def ask(until_ms: int) -> Mapping[str, Any]:
        criteria = {peer.key.key_id: {"minimum_valid_until_ts": clock.now_ms() + until_ms}}
        (entry,) = await query(site, {peer.name: criteria})
        return entry

    await ask(DAY_MS // 2)
    await ask(DAY_MS // 2)
    assert len(peer.asked("server")) == 1
    clock.advance(10)
    publish(peer, clock, valid_ms=3 * DAY_MS)
    entry = await ask(2 * DAY_MS)
    assert entry["valid_until_ts"] > clock.now_ms() + 2 * DAY_MS
    assert len(peer.asked("server")) == 2
    clock.advance(4 * 86_400)
    publish(peer, clock)
    reply = await site.call("GET", f"{QUERY}/{peer.name}")  # without criteria: good now
    assert reply.json["server_keys"][0]["valid_until_ts"] > clock.now_ms()


async def test_a_key_outlives_answers_that_do_not_name_it(site: Web, peer: Peer, clock: FastClock) -> None:
    """Whoever asks for it gets what was said of it, and nothing else."""
    key_id, now_ms = peer.key.key_id, clock.now_ms()
    await query(site, {peer.name: {key_id: {}}})
    later = new_key("later")
    published = {
        "server_name": peer.name,
        "valid_until_ts": now_ms + 2 * DAY_MS,
        "verify_keys": {later.key_id: {"key": later.verify_key.encode()}},
    }
    peer.answers[f"GET {SERVER}"] = sign_json(published, peer.name, later)
    (entry,) = await query(site, {peer.name: {key_id: {"minimum_valid_until_ts": now_ms + DAY_MS + 1}}})
    assert len(peer.asked("server")) == 2
    assert set(entry["verify_keys"]) == {key_id}
    assert {*(await query(site, {peer.name: {later.key_id: {}}}))[0]["verify_keys"]} == {later.key_id}
    assert len(await query(site, {peer.name: {}})) == 2


async def test_nobody(site: Web) -> None:
    assert await query(site, {}) == []
    assert (await site.call("GET", f"{QUERY}/127.0.0.1:1")).json == {"server_keys": []}


@pytest.mark.parametrize(
    "servers",
    [
        None,
        [],
        {"a.test": []},
        {"a.test": {"k": []}},
        {"a.test": {"k": {"minimum_valid_until_ts": -1}}},
        {"a.test": {"k": {"minimum_valid_until_ts": "x"}}},
        {f"{number}.test": {} for number in range(101)},
        {"a.test": {f"ed25519:{number}": {} for number in range(51)}},
    ],
)
async def test_wrong_queries(site: Web, servers: Any) -> None:
    assert (await site.call("POST", QUERY, body={"server_keys": servers})).status == 400


async def test_wrong_names(site: Web) -> None:
    assert (await site.call("GET", f"{QUERY}/no%20server")).status == 400
    assert (await site.call("GET", f"{QUERY}/a.test?minimum_valid_until_ts=x")).status == 400
