"""What a lying server says: events and answers that no honest one would give."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from aiohttp import web

from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from tests.federation.peer_room import PeerRoom

CHUNK = b" " * 65_536


def with_bad_signature(pdu: Pdu, server: str) -> dict[str, Any]:
    """The event with a signature of the server that is well-formed and wrong."""
    signatures = dict.fromkeys(pdu.json["signatures"][server], "A" * 86)
    return {**pdu.json, "signatures": {server: signatures}}


def with_other_content(pdu: Pdu, **content: Any) -> dict[str, Any]:
    """The event with a content that its hash does not cover; the signature, of the redacted event, stays right."""
    return {**pdu.json, "content": {**pdu.content, **content}}


def malformed_events(room: PeerRoom, pdu: Pdu) -> Iterator[tuple[str, Any]]:
    """Events that are no events, each by a name, hashed and signed where that can be done."""

    def forged(**members: Any) -> dict[str, Any]:
        return room.forge({**pdu.json, **members})

    yield "null", None
    yield "a number", 7
    yield "empty", {}
    yield "room only", {"room_id": room.room_id}
    yield "no content", {name: value for name, value in pdu.json.items() if name != "content"}
    yield "content is a list", forged(content=[])
    yield "negative depth", forged(depth=-1)
    yield "depth is a text", forged(depth="1")
    yield "depth is true", forged(depth=True)
    yield "depth is nothing", forged(depth=None)
    yield "a type that is a number", forged(type=7)
    yield "a type that is too long", forged(type="m." + "x" * 300)
    yield "a state key that is too long", forged(state_key="x" * 300)
    yield "a state key that is a number", forged(state_key=7)
    yield "a sender that is no user", forged(sender="nobody")
    yield "prev_events is an object", forged(prev_events={})
    yield "prev_events holds numbers", forged(prev_events=[7])
    yield "too many prev_events", forged(prev_events=[f"$event{number}" for number in range(21)])
    yield "too many auth_events", forged(auth_events=[f"$event{number}" for number in range(11)])
    yield "too large", forged(content={"body": "x" * 70_000, "msgtype": "m.text"})
    yield "NUL in the type", forged(type="m.\u0000")
    yield "no signatures", {**pdu.json, "signatures": {}}
    yield "signatures is a list", {**pdu.json, "signatures": []}
    yield "signature is a number", {**pdu.json, "signatures": {room.name: {room.key.key_id: 7}}}
    yield "hashes is a text", {**pdu.json, "hashes": "sha256"}


def strict_breakers(pdu: Pdu) -> Iterator[tuple[str, Any]]:
    """Events that canonical JSON has no form for, from room version 6 on (S18); they cannot be hashed either."""
    yield "a float", {**pdu.json, "content": {"body": "x", "number": 1.5}}
    yield "an integer that is too large", {**pdu.json, "content": {"body": "x", "number": 2**53}}
    yield "an integer that is far too large", {**pdu.json, "content": {"body": "x", "number": 2**70}}
    yield "a depth that is too large", {**pdu.json, "depth": 2**63}


def foreign_event(room: PeerRoom, other: PeerRoom, sender: Any) -> Pdu:
    """An event of a room that cites the permissions of another (S10)."""
    return room.draft(sender, "m.room.message", {"msgtype": "m.text", "body": "foreign"}, cites=_in_room(room, other))


def _in_room(room: PeerRoom, other: PeerRoom) -> Mapping[tuple[str, str], EventId]:
    for event_id, pdu in other.events.items():
        room.events.setdefault(event_id, pdu)
    return other.current_state


def endless() -> web.Response:
    """An answer whose body never ends."""

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        while True:
            yield CHUNK

    return web.Response(body=body(), content_type="application/json")


def giant(megabytes: int = 80) -> web.Response:
    """An answer that ends, but late."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(megabytes * 16):
            yield CHUNK
        yield b"{}"

    return web.Response(body=body(), content_type="application/json")


NONSENSE: tuple[tuple[str, Any], ...] = (
    ("a list", []),
    ("a number", 7),
    ("null", None),
    ("empty", {}),
    ("lists of numbers", {"events": [1], "pdus": [2], "auth_chain": [3], "state": [4], "pdu_ids": [5]}),
    ("texts for lists", {"events": "x", "pdus": "x", "auth_chain": "x", "state": "x", "pdu_ids": "x"}),
    ("an error", (400, {"errcode": "M_UNKNOWN", "error": "no"})),
    ("an error without a code", (500, {})),
    ("a text for an error", (500, "no")),
)
"""Answers that have nothing to do with any question."""
