"""The gate: what is malformed or not signed by those who must have signed it does not come in (S6)."""

from collections.abc import Mapping
from typing import Any

import pytest

from homeserver.core.event_builder import EventBuilder
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.signing import SigningKey, sign_event
from homeserver.services.remote import ServerKey
from homeserver.services.rooms.gate import EventGate
from tests.rooms.incoming.remote_room import KnownKeys, key_of
from tests.rooms.workers import SteppingClock

HERE, THERE = ServerName("here.org"), ServerName("there.org")
DORA = UserId("@dora:here.org")
ROOM = RoomId("!room:here.org")
WEEK_MS = 7 * 24 * 3600 * 1000
NOW = 1_700_000_000_000


@pytest.fixture
def keys() -> KnownKeys:
    known = KnownKeys()
    for name in (HERE, THERE):
        known.add(name, key_of(name))
    return known


@pytest.fixture
def gate(keys: KnownKeys) -> EventGate:
    return EventGate(keys=keys, clock=SteppingClock())


def make(
    version: str = "10",
    *,
    signer: ServerName = HERE,
    key: SigningKey | None = None,
    event_type: str = "m.room.message",
    content: Mapping[str, Any] | None = None,
    state_key: str | None = None,
    ts: int = NOW,
) -> Pdu:
    return EventBuilder(
        room_version=ROOM_VERSIONS[version],
        room_id=ROOM,
        type=event_type,
        sender=DORA,
        content={"body": "hello"} if content is None else content,
        origin_server_ts=ts,
        depth=5,
        prev_events=[EventId("$before:here.org")],
        auth_events=[],
        state_key=state_key,
        reference_hashes={EventId("$before:here.org"): "aGFzaA"},
    ).build(server_name=signer, key=key or key_of(signer))


async def fault(gate: EventGate, json: Any, version: str = "10") -> str | None:
    """Why an event does not pass; None if it does."""
    result = await gate.check(ROOM_VERSIONS[version], [json], room_id=ROOM)
    assert len(result.passed) + len(result.dropped) == 1
    return result.dropped[0].reason if result.dropped else None


@pytest.mark.parametrize("version", [version for version in ROOM_VERSIONS if version != "12"])
async def test_a_good_event_passes_without_what_servers_have_added_to_it(gate: EventGate, version: str) -> None:
    pdu = make(version)
    result = await gate.check(ROOM_VERSIONS[version], [{**pdu.json, "unsigned": {"age": 5}}], room_id=ROOM)
    assert [(each.event_id, each.json) for each in result.passed] == [(pdu.event_id, pdu.json)]


async def test_unsigned_does_not_count_for_the_size(gate: EventGate) -> None:
    """S4: what somebody on the way has added can neither keep an event out nor come in."""
    result = await gate.check(ROOM_VERSIONS["10"], [{**make().json, "unsigned": {"x": "y" * 100_000}}], room_id=ROOM)
    assert "unsigned" not in result.passed[0].json


async def test_events_of_other_rooms_are_dropped(gate: EventGate) -> None:
    """S1"""
    result = await gate.check(ROOM_VERSIONS["10"], [make().json], room_id=RoomId("!other:here.org"))
    assert not result.passed


@pytest.mark.parametrize(
    "change",
    [
        {"depth": -1},
        {"depth": 2**53},
        {"depth": "1"},
        {"depth": True},
        {"origin_server_ts": None},
        {"prev_events": "x"},
        {"prev_events": [1]},
        {"prev_events": ["$x"] * 21},
        {"auth_events": ["$x"] * 11},
        {"content": []},
        {"sender": "nobody"},
        {"type": 5},
        {"type": "x" * 256},
        {"state_key": None},
        {"hashes": {}},
        {"signatures": {"here.org": {"ed25519:a_test": 5}}},
        {"content": {"number": 1.5}},
        {"content": {"text": "\ud800"}},
    ],
)
async def test_malformed_events_are_dropped(gate: EventGate, change: dict[str, Any]) -> None:
    """S2, S3, S18: depth, integers and sizes are looked at before anything else."""
    assert await fault(gate, {**make().json, **change}) is not None


@pytest.mark.parametrize("thing", [None, 5, "event", [], {}])
async def test_what_is_no_event_is_dropped(gate: EventGate, thing: Any) -> None:
    assert await fault(gate, thing) is not None


async def test_a_signature_of_another_server_is_not_enough(gate: EventGate) -> None:
    assert await fault(gate, make(signer=THERE).json) is not None


async def test_a_wrong_signature_spoils_the_event(gate: EventGate) -> None:
    forged = {**make().json, "signatures": make(content={"body": "other"}).json["signatures"]}
    assert await fault(gate, forged) is not None


async def test_unknown_keys_count_for_nothing(gate: EventGate) -> None:
    """A signature by a key that cannot be had does not spoil an event that has another; alone it is none."""
    unknown = SigningKey.from_seed("new", b"x" * 32)
    pdu = make()
    both = sign_event(pdu.json, HERE, unknown, pdu.room_version)
    assert await fault(gate, both) is None
    assert await fault(gate, make(key=unknown).json) is not None
    with_policy = {**pdu.json, "signatures": {HERE: {**pdu.json["signatures"][HERE], "ed25519:policy_server": "x"}}}
    assert await fault(gate, with_policy) is None


async def test_a_known_key_that_has_not_signed_what_it_says_spoils_the_event(gate: EventGate, keys: KnownKeys) -> None:
    second = SigningKey.from_seed("second", b"y" * 32)
    keys.add(HERE, second)
    json = make().json
    json = {**json, "signatures": {HERE: {**json["signatures"][HERE], "ed25519:second": "AAAA"}}}
    assert await fault(gate, json) is not None


@pytest.mark.parametrize(("version", "passes"), [("4", True), ("5", False), ("10", False)])
async def test_keys_must_have_been_valid_when_the_version_says_so(
    gate: EventGate, keys: KnownKeys, version: str, passes: bool
) -> None:
    """S17"""
    key = key_of(HERE)
    for retired in (True, False):
        keys.keys[(HERE, key.key_id)] = ServerKey(key.verify_key, NOW - 1, is_retired=retired)
        assert (await fault(gate, make(version).json, version) is None) is passes
        assert await fault(gate, make(version, ts=NOW - 1).json, version) is None


async def test_no_key_is_valid_for_long_ahead(gate: EventGate, keys: KnownKeys) -> None:
    """S17: even if its server says so, it is not for more than a week."""
    assert await fault(gate, make(ts=NOW + WEEK_MS - 60_000).json) is None
    assert await fault(gate, make(ts=NOW + WEEK_MS + 60_000).json) is not None
    assert all(wish.valid_at_ts is not None and wish.valid_at_ts <= NOW + WEEK_MS + 1000 for wish in keys.wishes)


async def test_many_signatures_ask_for_few_keys(gate: EventGate, keys: KnownKeys) -> None:
    """S13: an event can name hundreds of keys."""
    json = make().json
    json = {**json, "signatures": {HERE: {**json["signatures"][HERE], **{f"ed25519:{n}": "A" for n in range(300)}}}}
    await fault(gate, json)
    assert len(keys.wishes) < 20


async def test_an_event_with_a_wrong_hash_loses_its_content(gate: EventGate) -> None:
    json = {**make().json, "content": {"body": "changed on the way"}}
    result = await gate.check(ROOM_VERSIONS["10"], [json], room_id=ROOM)
    assert result.passed[0].content == {}
    assert result.passed[0].event_id == make().event_id


async def test_versions_1_and_2_ask_for_the_server_of_the_event_id_too(gate: EventGate) -> None:
    pdu = make("2", signer=HERE)
    foreign = {**pdu.json, "event_id": "$x:there.org"}
    foreign = sign_event({**foreign, "signatures": {}}, HERE, key_of(HERE), pdu.room_version)
    assert await fault(gate, foreign, "2") is not None
    assert await fault(gate, sign_event(foreign, THERE, key_of(THERE), pdu.room_version), "2") is None


async def test_a_restricted_join_is_signed_by_the_server_that_vouches(gate: EventGate) -> None:
    content: dict[str, Any] = {"membership": "join", "join_authorised_via_users_server": "@alice:there.org"}
    join = make(event_type="m.room.member", state_key=DORA, content=content)
    assert await fault(gate, join.json) is not None
    assert await fault(gate, sign_event(join.json, THERE, key_of(THERE), join.room_version)) is None
    content = {"membership": "join", "join_authorised_via_users_server": 5}
    nonsense = make(event_type="m.room.member", state_key=DORA, content=content)
    assert await fault(gate, nonsense.json) is not None


async def test_an_exchanged_invitation_needs_no_signature_of_its_sender(gate: EventGate) -> None:
    content = {"membership": "invite", "third_party_invite": {"signed": {"token": "t", "mxid": "@eve:there.org"}}}
    invite = make(event_type="m.room.member", state_key="@eve:there.org", content=content, signer=THERE)
    assert await fault(gate, invite.json) is None


async def test_the_exception_for_exchanged_invitations_cannot_be_borrowed(gate: EventGate) -> None:
    """An invitation by Dora that she never sent: with a wrong hash, nothing of the third party would be left of it."""
    content = {"membership": "invite", "third_party_invite": {"signed": {"token": "t", "mxid": "@eve:there.org"}}}
    invite = make(event_type="m.room.member", state_key="@eve:there.org", content=content, signer=THERE)
    assert await fault(gate, {**invite.json, "hashes": {"sha256": "AAAA"}}) is not None


async def test_many_events_are_checked_together(gate: EventGate, keys: KnownKeys) -> None:
    good = [make(content={"body": str(number)}).json for number in range(500)]
    bad = {**good[250], "signatures": {}}
    result = await gate.check(ROOM_VERSIONS["10"], [*good[:250], bad, *good[250:], 5], room_id=ROOM)
    assert [pdu.json for pdu in result.passed] == good
    assert [dropped.index for dropped in result.dropped] == [250, 501]
    assert len(keys.wishes) == 1
