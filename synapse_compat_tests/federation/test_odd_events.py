"""Odd events of a third server, which a Synapse and this server must judge alike: their rooms would drift apart else.

The third server is the fake one of our own tests. It makes a room that both join, and sends both the same events.

https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from homeserver.core.errors import BadJson
from homeserver.core.ids import EventId, UserId
from homeserver.core.pdu import Pdu
from synapse_compat_tests.federation.conftest import Pair, meeting
from synapse_compat_tests.federation.rooms import event_of, until_event
from synapse_compat_tests.federation.servers import OurSide, SynapseSide
from tests.federation.certificates import CertificateAuthority, IssuedCertificate
from tests.federation.peer import Peer, running_peer
from tests.federation.peer_room import PeerRoom
from tests.federation.servers.rooms import join, set_state, until_content, until_membership
from tests.waiting import wait_until

MESSAGE = "m.room.message"


@pytest.fixture
async def peer(authority: CertificateAuthority, certificate: IssuedCertificate) -> AsyncIterator[Peer]:
    """The third server."""
    async with running_peer(authority, certificate) as running:
        yield running


@pytest.fixture
async def pair(our_side: OurSide, synapse_side: SynapseSide) -> AsyncIterator[Pair]:
    """Alice is a user of ours, Bob one of the Synapse."""
    async with meeting(our_side, synapse_side) as made:
        yield made


@dataclass(frozen=True, slots=True)
class Odd:
    """An odd event, and whether the specification lets it in."""

    name: str
    event: dict[str, Any]
    is_let_in: bool
    is_hidden: bool = False
    """Whether a Synapse (1.163) lets it in, but shows it to nobody."""


class OddEvents:
    """Makes odd events of a room."""

    def __init__(self, peer: Peer, room: PeerRoom) -> None:
        self._room = room
        self._owner = peer.user("owner")
        self._is_strict = room.version.strict_canonical_json

    def _forged(self, event_type: str = MESSAGE, state_key: str | None = None, **members: Any) -> dict[str, Any]:
        # Which events permit a member event depends on its content.
        content = members["content"] if event_type == "m.room.member" else {"body": "odd", "msgtype": "m.text"}
        key = None if state_key is None else state_key[:255]
        event = {**self._room.draft(self._owner, event_type, content, state_key=key).json, **members}
        if state_key is not None:
            event["state_key"] = state_key
        if "event_id" in event:
            event["event_id"] = f"${secrets.token_hex(8)}:{self._room.name}"
        try:
            return self._room.forge(event)
        except BadJson:
            # What has no canonical form can neither be hashed nor signed.
            return event

    def contents(self) -> Iterator[Odd]:
        """Messages whose content is odd."""
        lax = not self._is_strict
        yield Odd("nothing odd", self._forged(), True)
        yield Odd("empty", self._forged(content={}), True)
        yield Odd("a float", self._forged(content={"body": "x", "number": 1.5}), lax)
        yield Odd("a large integer", self._forged(content={"body": "x", "number": 2**53 - 1}), True)
        yield Odd("a larger integer", self._forged(content={"body": "x", "number": 2**53}), lax)
        yield Odd("a body that is no text", self._forged(content={"body": [7], "msgtype": None}), True)
        yield Odd("a NUL", self._forged(content={"body": "\0", "msgtype": "m.text"}), True)
        yield Odd("keys beyond the BMP", self._forged(content={"body": "x", "🦔": 1, "\uffff": 2, "é": 3}), True)
        yield Odd("a relation to nothing", self._forged(content={"body": "x", "m.relates_to": {"event_id": 5}}), True)
        yield Odd("unknown members", self._forged(odd={"a": 1}, age_ts=7, origin="elsewhere"), True)
        yield Odd("too large", self._forged(content={"body": "x" * 70_000}), False)

    def forms(self) -> Iterator[Odd]:
        """Messages of an odd form."""
        yield Odd("a time before all time", self._forged(origin_server_ts=0), True)
        in_time = self._room.version.key_validity_enforced
        yield Odd("a time when no key is good", self._forged(origin_server_ts=2**53 - 1), not in_time)
        yield Odd("depth of zero", self._forged(depth=0), True)
        yield Odd("a long type", self._forged(type="x" * 255), True)
        yield Odd("a longer type", self._forged(type="x" * 256), False)
        yield Odd("a type of many bytes", self._forged(type="é" * 128), False)
        yield Odd("an empty type", self._forged(type=""), True)
        yield Odd("no auth events", self._forged(auth_events=[]), False)

    def state(self) -> Iterator[Odd]:
        """State that is odd."""
        older = self._room.version.identifier in ("1", "2", "3", "4", "5")
        yield Odd("a long state key", self._forged("m.odd", "x" * 255, content={}), True)
        yield Odd("a longer state key", self._forged("m.odd", "x" * 256, content={}), False)
        yield Odd("a state key of a user", self._forged("m.odd", f"@somebody:{self._room.name}", content={}), False)
        yield Odd("a state key of the sender", self._forged("m.odd", self._owner, content={}), True)
        for name, state_key in (("the server", self._room.name), ("another", "a.example"), ("nobody", None)):
            aliases = self._forged("m.room.aliases", state_key, content={"aliases": []})
            yield Odd(f"aliases of {name}", aliases, name == "the server" or not older, is_hidden=True)
        yield Odd("a topic that is no text", self._forged("m.room.topic", "", content={"topic": {}}), True)
        create = {"type": "m.room.create", "content": {"creator": self._owner}}
        yield Odd("another create event", self._forged("m.odd", "", **create), False)
        yield Odd("a member without membership", self._forged("m.room.member", self._owner, content={}), False)
        yield Odd("an unknown membership", self._member(self._owner, membership="hungry"), False)
        yield Odd("a name that is no text", self._member(self._owner, membership="join", displayname=5), True)
        yield Odd("a ban of nobody known", self._member("@nobody:a.example", membership="ban"), True)
        yield Odd("a ban of no user", self._member("nobody", membership="ban"), False)
        yield Odd("a join for another", self._member(f"@other:{self._room.name}", membership="join"), False)

    def _member(self, user_id: str, **content: Any) -> dict[str, Any]:
        return self._forged("m.room.member", user_id, content=content)

    def power_levels(self) -> Iterator[Odd]:
        """Power levels in odd forms."""
        strings = not self._room.version.integer_power_levels
        floats = not self._is_strict
        own = {} if self._room.version.creators_in_control else {self._owner: 100}

        def levels(**content: Any) -> dict[str, Any]:
            return self._forged("m.room.power_levels", "", content={"users": own, **content})

        yield Odd("an integer", levels(users_default=0), True)
        yield Odd("a text", levels(users_default="0"), strings)
        yield Odd("a text with zeroes", levels(users_default="000"), strings)
        yield Odd("a text with spaces", levels(users_default=" 0 "), strings)
        yield Odd("a text with a sign", levels(users_default="+0", invite="-5"), strings)
        yield Odd("a text that is no number", levels(users_default="zero"), False)
        yield Odd("an empty text", levels(users_default=""), False)
        yield Odd("a text with a point", levels(users_default="0.0"), False)
        yield Odd("a hexadecimal text", levels(users_default="0x0"), False)
        yield Odd("a float", levels(ban=50.57), floats)
        yield Odd("null", levels(users_default=None), False)
        yield Odd("a list", levels(users_default=[]), False)
        yield Odd("a user that is a text", levels(users={**own, "@nobody:a.example": "50"}), strings)
        yield Odd("a user that is none", levels(users={**own, "nobody": 5}), False)
        yield Odd("users that are a list", levels(users=[]), False)
        if not strings:
            # Where they may be texts, a Synapse (1.163) takes truth for a number. That is harmless; but after events
            # that are a list it can take no further event in such a room.
            yield Odd("true", levels(users_default=True), False)
            yield Odd("events that are a list", levels(events=[]), False)
        yield Odd("an event that is a text", levels(events={"m.odd": "5"}), strings)
        yield Odd("unknown levels", levels(odd="odd"), True)


KINDS: Mapping[str, Callable[[OddEvents], Iterator[Odd]]] = {
    "contents": OddEvents.contents,
    "forms": OddEvents.forms,
    "state": OddEvents.state,
    "power levels": OddEvents.power_levels,
}


async def shared_room(peer: Peer, pair: Pair, version: str) -> PeerRoom:
    """A room of the peer's that both have joined."""
    room = peer.create_room(peer.user("owner"), version=version)
    for client in pair.clients:
        await join(client, room.room_id, peer.name)
    last = room.current("m.room.member", pair.bob.user_id)
    assert last is not None
    await peer.send(pair.home.name, [last])
    await until_membership(pair.alice, room.room_id, pair.bob.user_id, "join")
    return room


def id_of(room: PeerRoom, event: Mapping[str, Any]) -> str:
    """The id that an event has, or would have if it had one."""
    try:
        return room.id_of(event)
    except BadJson:
        return "$none"


async def until_heard(peer: Peer, pair: Pair, room: PeerRoom, sender: UserId, body: str) -> Pdu:
    """Says something; when both have heard it, they have judged all that was sent before."""
    pdu = room.say(sender, body)
    await peer.tell(room, pdu)
    for client in pair.clients:
        try:
            await until_event(client, room.room_id, pdu.event_id)
        except TimeoutError:
            raise AssertionError(f"{client.user_id} does not hear what was said {body}") from None
    return pdu


@pytest.mark.parametrize("version", ["1", "5", "6", "9", "10", "11", "12"])
@pytest.mark.parametrize("kind", KINDS)
async def test_odd_events_are_judged_alike(peer: Peer, pair: Pair, kind: str, version: str) -> None:
    room = await shared_room(peer, pair, version)
    wrong = []
    for odd in KINDS[kind](OddEvents(peer, room)):
        event_id = id_of(room, odd.event)
        for side in (pair.home, pair.away):
            await peer.try_send(side.name, [odd.event])
        await until_heard(peer, pair, room, peer.user("owner"), f"after {odd.name}")
        ours, theirs = [await event_of(client, room.room_id, event_id) is not None for client in pair.clients]
        if (ours, theirs) != (odd.is_let_in, odd.is_let_in and not odd.is_hidden):
            wrong.append(f"{odd.name}: ours {ours}, Synapse {theirs}, by the specification {odd.is_let_in}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("version", ["1", "9"])
async def test_power_levels_as_texts_are_read_alike(peer: Peer, pair: Pair, version: str) -> None:
    """Neither server takes them from its users any more, but in old rooms there are some, which decide who may what."""
    room = await shared_room(peer, pair, version)
    owner = peer.user("owner")
    levels = {
        "users": {owner: "100", pair.alice.user_id: " +0050 ", pair.bob.user_id: "\t50\n"},
        "state_default": "50",
        "events": {"m.room.name": "51"},
    }
    await peer.tell(room, room.send(owner, "m.room.power_levels", levels, state_key=""))
    for speaker, watcher in (pair.clients, pair.clients[::-1]):
        await until_content(speaker, room.room_id, "m.room.power_levels", levels)
        topic = {"topic": f"50 will do, says {speaker.user_id}"}
        await set_state(speaker, room.room_id, "m.room.topic", topic)
        await until_content(watcher, room.room_id, "m.room.topic", topic)
        refused = await speaker.call("PUT", f"/rooms/{room.room_id}/state/m.room.name", {"name": "too weak"})
        assert refused.status == 403


@pytest.mark.parametrize("localpart", ["Upper Case", "", "ünï/code", "x" * 200, "a+b=c"])
async def test_users_with_names_of_old(peer: Peer, pair: Pair, localpart: str) -> None:
    """https://spec.matrix.org/v1.19/appendices/#historical-user-ids"""
    room = await shared_room(peer, pair, "11")
    user_id = UserId(f"@{localpart}:{peer.name}")
    joined = room.send(user_id, "m.room.member", {"membership": "join", "displayname": "Old"}, state_key=user_id)
    await peer.tell(room, joined)
    for client in pair.clients:
        await until_membership(client, room.room_id, user_id, "join")
    await until_heard(peer, pair, room, user_id, "my name is of old")
    banned = room.send(peer.user("owner"), "m.room.member", {"membership": "ban"}, state_key=user_id)
    await peer.tell(room, banned)
    for client in pair.clients:
        await until_membership(client, room.room_id, user_id, "ban")


@pytest.mark.parametrize("version", ["1", "10", "11", "12"])
async def test_redactions_are_judged_alike(peer: Peer, pair: Pair, version: str) -> None:
    """By whom, of what, and where it is written: what counts, counts for both."""
    room = await shared_room(peer, pair, version)
    owner, other = peer.user("owner"), peer.user("other")
    joined = room.send(other, "m.room.member", {"membership": "join"}, state_key=other)
    await peer.tell(room, joined)
    in_content = room.version.redacts_in_content
    by_alice = await pair.alice.send(room.room_id, "by Alice")
    await wait_until(lambda: by_alice in room.events)
    wrong: list[str] = []

    async def redact(name: str, sender: UserId, target: str, *, counts: bool, misplaced: bool = False) -> None:
        event = room.draft(sender, "m.room.redaction", {}, redacts=EventId(target)).json
        if misplaced:
            event = {**event, "content": {} if in_content else {"redacts": target}}
            event.pop("redacts", None)
            event |= {"redacts": target} if in_content else {}
        event = room.forge(event)
        for side in (pair.home, pair.away):
            await peer.try_send(side.name, [event])
        await until_heard(peer, pair, room, owner, f"after {name}")
        seen = [await event_of(client, room.room_id, target) for client in pair.clients]
        outcome = [event["content"] == {} for event in seen]
        if outcome != [counts, counts]:
            wrong.append(f"{name}: ours {outcome[0]}, Synapse {outcome[1]}, by the specification {counts}")

    async def said(body: str) -> str:
        return (await until_heard(peer, pair, room, owner, body)).event_id

    await redact("one's own", owner, await said("one"), counts=True)
    await redact("another's of the same server", other, await said("two"), counts=True)
    await redact("that of another server without power", other, by_alice, counts=False)
    await redact("that of another server with power", owner, by_alice, counts=True)
    await redact("in the wrong place", owner, await said("three"), counts=False, misplaced=True)
    assert not wrong, "\n".join(wrong)
