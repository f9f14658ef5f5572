"""Which server a request comes from: only what is signed for this one with a key that is in use now."""

import json
from typing import Any

import pytest

from federation.wire.x_matrix import XMatrix
from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import Forbidden, MatrixError, NotJson, Unauthorized
from homeserver.core.ids import ServerName
from homeserver.core.signing import SigningKey, sign_json
from homeserver.web.endpoint import Access, Endpoint, Request, Response
from storage.database import Database
from tests.fast_clock import FastClock
from tests.federation.certificates import CertificateAuthority
from tests.federation.peer import Peer
from tests.federation.transport.ways import US, Ways, new_key, open_ways

DAY_MS = 86_400_000
URI = "/_matrix/federation/v1/send/1?x=%21"


async def nothing(_: Request) -> Response:
    return Response()


ENDPOINT = Endpoint(operation="send", method="PUT", path="/x", function=nothing, access=Access.SERVER)


def publish(peer: Peer, clock: FastClock, *keys: SigningKey, **changes: Any) -> None:
    """Lets the peer publish these keys besides its own."""
    json_object: dict[str, Any] = {
        "server_name": peer.name,
        "valid_until_ts": clock.now_ms() + DAY_MS,
        "verify_keys": {key.key_id: {"key": key.verify_key.encode()} for key in (peer.key, *keys)},
        **changes,
    }
    for key in (peer.key, *keys):
        json_object = sign_json(json_object, peer.name, key)
    peer.answers["GET /_matrix/key/v2/server"] = json_object


def signed(peer: Peer, *keys: SigningKey, body: Any = None, **changes: Any) -> tuple[XMatrix, ...]:
    arguments: dict[str, Any] = {
        "method": "PUT",
        "uri": URI,
        "origin": peer.name,
        "destination": US,
        "content": None if body is None else encode_canonical(body),
        **changes,
    }
    return tuple(XMatrix.sign(**arguments, key=key) for key in keys or (peer.key,))


def request(signatures: Any, body: Any = None, *, parsed: bool = True, **changes: Any) -> Request:
    raw = b"" if body is None else json.dumps(body, indent=1).encode()
    header = signatures if isinstance(signatures, str) else ", ".join(each.format() for each in signatures)
    arguments: dict[str, Any] = {
        "operation": "send",
        "method": "PUT",
        "uri": URI,
        "headers": {"authorization": header},
        "raw_body": raw,
        **({"body": body} if parsed and body is not None else {}),
        **changes,
    }
    return Request(**arguments)


async def origin_of(ways: Ways, asked: Request) -> ServerName | None:
    return (await ways.authentication.authenticate(ENDPOINT, asked)).origin


async def refuse(ways: Ways, asked: Request, error: type[MatrixError] = Unauthorized) -> None:
    with pytest.raises(error):
        await ways.authentication.authenticate(ENDPOINT, asked)


@pytest.mark.parametrize("body", [None, {}, {"pdus": [{"a": "ä"}], "n": 1}, {"large": ["x" * 1000] * 100}])
@pytest.mark.parametrize("parsed", [True, False])
async def test_a_signed_request(ways: Ways, peer: Peer, clock: FastClock, body: Any, parsed: bool) -> None:
    """The signature covers the canonical form of the body, however it was sent."""
    publish(peer, clock)
    assert await origin_of(ways, request(signed(peer, body=body), body, parsed=parsed)) == peer.name


async def test_a_request_of_an_old_server_without_destination(ways: Ways, peer: Peer, clock: FastClock) -> None:
    publish(peer, clock)
    key = peer.key
    message = sign_json({"method": "PUT", "uri": URI, "origin": peer.name}, peer.name, key)
    signature = message["signatures"][peer.name][key.key_id]
    assert await origin_of(ways, request((XMatrix(peer.name, None, key.key_id, signature),))) == peer.name


async def test_what_is_not_signed(ways: Ways, peer: Peer, clock: FastClock) -> None:
    publish(peer, clock)
    for header in ("", "Bearer token", "X-Matrix", f"X-Matrix origin={peer.name},key=ed25519:a_peer,sig=x", '"'):
        await refuse(ways, request(header))
    assert not peer.faults
    await refuse(ways, Request(operation="send"))


async def test_what_is_signed_wrongly(ways: Ways, peer: Peer, clock: FastClock) -> None:
    publish(peer, clock)
    good = signed(peer, body={"a": 1})
    await refuse(ways, request(good, {"a": 2}))
    await refuse(ways, request(good))
    await refuse(ways, request(good, {"a": 1}, method="POST"))
    await refuse(ways, request(good, {"a": 1}, uri=URI + "1"))
    await refuse(ways, request(signed(peer, new_key("a_peer"))))
    await refuse(ways, request(good, None, raw_body=b"no json"), NotJson)
    assert await origin_of(ways, request(good, {"a": 1})) == peer.name


async def test_what_is_for_another_server(ways: Ways, peer: Peer, clock: FastClock) -> None:
    publish(peer, clock)
    await refuse(ways, request(signed(peer, destination=ServerName.parse("other.test"))))
    await refuse(ways, request((*signed(peer), *signed(peer, destination=ServerName.parse("other.test")))))


async def test_several_signatures(ways: Ways, peer: Peer, clock: FastClock) -> None:
    """All whose keys are known must be right; one at least must be."""
    second, unknown = new_key("second"), new_key("unknown")
    publish(peer, clock, second)
    assert await origin_of(ways, request(signed(peer, peer.key, second))) == peer.name
    assert await origin_of(ways, request(signed(peer, unknown, second))) == peer.name
    await refuse(ways, request(signed(peer, unknown)))
    await refuse(ways, request((*signed(peer), *signed(peer, new_key("second")))))


async def test_one_request_has_one_origin(ways: Ways, peer: Peer, other_peer: Peer, clock: FastClock) -> None:
    publish(peer, clock)
    publish(other_peer, clock)
    await refuse(ways, request((*signed(peer), *signed(other_peer))))


async def test_keys_must_be_in_use_now(ways: Ways, peer: Peer, clock: FastClock) -> None:
    old = new_key("old")
    published = {old.key_id: {"key": old.verify_key.encode(), "expired_ts": clock.now_ms() + DAY_MS}}
    publish(peer, clock, old_verify_keys=published)
    await refuse(ways, request(signed(peer, old)))
    assert await origin_of(ways, request(signed(peer))) == peer.name
    peer.answers["GET /_matrix/key/v2/server"] = (503, {})
    clock.advance(2 * 86_400)
    await refuse(ways, request(signed(peer)))


async def test_a_server_that_comes_back_is_known_again(ways: Ways, peer: Peer, clock: FastClock) -> None:
    """It is left alone by this server, which needs its key to hear that it is there."""
    for _ in range(12):
        await ways.destinations.failed(peer.name)
        clock.advance(86_400)
    await ways.destinations.failed(peer.name)
    assert not await ways.destinations.is_due(peer.name)
    publish(peer, clock)
    assert await origin_of(ways, request(signed(peer))) == peer.name
    assert await ways.destinations.is_due(peer.name)


async def test_this_server_does_not_ask_itself(ways: Ways, peer: Peer) -> None:
    await refuse(ways, request(signed(peer, ways.key, origin=US)))


async def test_servers_that_are_not_talked_with(
    db: Database, clock: FastClock, authority: CertificateAuthority, peer: Peer
) -> None:
    publish(peer, clock)
    async with open_ways(db, clock, authority, denied=["localhost"]) as ways:
        await refuse(ways, request(signed(peer)), Forbidden)
    async with open_ways(db, clock, authority, allowed=["elsewhere.test"]) as ways:
        await refuse(ways, request(signed(peer)), Forbidden)
    assert not peer.received


async def test_leaked_keys(db: Database, clock: FastClock, authority: CertificateAuthority, peer: Peer) -> None:
    """S17."""
    publish(peer, clock)
    denied = [peer.key.verify_key.encode()]
    async with open_ways(db, clock, authority, denied_keys=denied, peers=[peer]) as ways:
        await refuse(ways, request(signed(peer)))


async def test_contact_is_noted_only_for_good_requests(ways: Ways, peer: Peer, clock: FastClock) -> None:
    publish(peer, clock)
    noted: list[ServerName] = []
    ways.authentication._note_contact = noted.append
    await refuse(ways, request(signed(peer, destination=ServerName.parse("other.test"))))
    await refuse(ways, request(signed(peer), {"not": "signed"}))
    assert not noted
    await origin_of(ways, request(signed(peer)))
    assert noted == [peer.name]
