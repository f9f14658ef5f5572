"""Events of our own, in every room version, as another server would check them."""

from typing import Any

import pytest
import signedjson.key
import signedjson.sign
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.canonical_json import INTEGER_MAX, encode_canonical
from homeserver.core.errors import BadJson, TooLarge
from homeserver.core.event_builder import EventBuilder
from homeserver.core.event_format import EVENT_BYTES_MAX, parse_pdu
from homeserver.core.hashing import content_hash_matches, reference_hash
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.redaction import redact
from homeserver.core.room_versions import ROOM_VERSIONS, EventIdFormat, RoomVersion
from homeserver.core.signing import SigningKey, verify_event
from homeserver.core.unpadded_base64 import encode_base64
from tests.core.event_strategies import STRICT_VERSIONS, VERSIONS, json_objects, lenient_values, strict_values

SERVER = ServerName("example.org")
ALICE = UserId("@alice:example.org")
KEY = SigningKey.from_seed("a_key", bytes(range(32)))
V12 = ROOM_VERSIONS["12"]


def room_id(version: RoomVersion) -> RoomId:
    """A room id in the form of a room version."""
    return RoomId.parse("!" + "r" * 43 if version.room_id_is_create_hash else "!room:example.org")


def builder(version: RoomVersion, **members: Any) -> EventBuilder:
    """A message in a room without history, or something else."""
    defaults: dict[str, Any] = {
        "room_version": version,
        "room_id": room_id(version),
        "type": "m.room.message",
        "sender": ALICE,
        "content": {"msgtype": "m.text", "body": "hello"},
        "origin_server_ts": 1_700_000_000_000,
        "depth": 7,
        "prev_events": (),
        "auth_events": (),
    }
    return EventBuilder(**defaults | members)


def build(version: RoomVersion, **members: Any) -> Pdu:
    """The same, complete."""
    return builder(version, **members).build(server_name=SERVER, key=KEY)


def check_as_received(pdu: Pdu) -> None:
    """Everything that a server can check of an event alone."""
    version = pdu.room_version
    assert parse_pdu(pdu.json, version, room_id=pdu.room_id) == pdu
    assert content_hash_matches(pdu.json)
    assert verify_event(pdu.json, SERVER, KEY.verify_key, version)
    their_key = signedjson.key.decode_verify_key_base64("ed25519", KEY.version, KEY.verify_key.encode())
    signedjson.sign.verify_signed_json(redact(pdu.json, version), SERVER, their_key)


@given(st.sampled_from(VERSIONS), st.data())
def test_what_is_built_passes_every_check(version: RoomVersion, data: st.DataObject) -> None:
    values = strict_values if version.strict_canonical_json else lenient_values
    pdu = build(
        version,
        type=data.draw(st.sampled_from(("m.room.message", "m.room.member", "m.room.power_levels", "x"))),
        content=data.draw(json_objects(values)),
        state_key=data.draw(st.none() | st.sampled_from(("", "@alice:example.org"))),
        unsigned=data.draw(st.none() | json_objects(values)),
        depth=data.draw(st.integers(0, INTEGER_MAX)),
    )
    check_as_received(pdu)
    # A state key exists or does not; there is no empty form of it.
    assert ("state_key" in pdu.json) == (pdu.state_key is not None)
    assert ("unsigned" in pdu.json) == (pdu.json.get("unsigned") is not None)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_chain_of_events_refers_to_each_other(version: RoomVersion) -> None:
    first = build(version, origin_server_ts=1)
    second = build(version, origin_server_ts=2)
    hashes = {pdu.event_id: encode_base64(reference_hash(pdu.json, version)) for pdu in (first, second)}
    ids = [first.event_id, second.event_id]
    third = build(version, prev_events=ids, auth_events=ids[:1], reference_hashes=hashes)
    check_as_received(third)
    assert third.prev_events == tuple(ids)
    assert third.auth_events == tuple(ids[:1])
    if version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
        assert third.json["prev_events"] == [[event_id, {"sha256": hashes[event_id]}] for event_id in ids]
        with pytest.raises(KeyError):
            build(version, prev_events=ids)
        unknown = build(version, prev_events=ids, reference_hashes=hashes | {ids[0]: ""})
        assert unknown.json["prev_events"] == [[ids[0], {}], [ids[1], {"sha256": hashes[ids[1]]}]]
    else:
        assert third.json["prev_events"] == ids
        assert build(version, prev_events=ids, auth_events=ids[:1]) == third


@pytest.mark.parametrize("version", VERSIONS[:2])
def test_assigned_ids_are_ours_and_differ(version: RoomVersion) -> None:
    one, other = build(version, origin_server_ts=1), build(version, origin_server_ts=2)
    assert one.event_id != other.event_id
    assert one.event_id.server_name == SERVER
    assert one.json["event_id"] == one.event_id
    longest = ServerName("x" * 230)
    pdu = builder(version).build(server_name=longest, key=KEY)
    assert EventId.parse(pdu.event_id).server_name == longest


def test_the_create_event_of_version_12_makes_the_room_id() -> None:
    create = build(V12, room_id=None, type="m.room.create", state_key="", content={"room_version": "12"})
    check_as_received(create)
    assert "room_id" not in create.json
    assert create.room_id == RoomId.parse("!" + create.event_id[1:])


def test_only_that_event_has_no_room_id() -> None:
    with pytest.raises(BadJson):
        build(V12, type="m.room.create", state_key="")
    with pytest.raises(ValueError, match="room id"):
        build(V12, room_id=None)
    with pytest.raises(ValueError, match="room id"):
        build(ROOM_VERSIONS["11"], room_id=None, type="m.room.create", state_key="")
    check_as_received(build(ROOM_VERSIONS["11"], type="m.room.create", state_key=""))


@pytest.mark.parametrize("version", VERSIONS)
def test_redacts_stands_where_the_version_wants_it(version: RoomVersion) -> None:
    target = EventId("$target:example.org")
    content = {"reason": "spam"}
    pdu = build(version, type="m.room.redaction", content=content, redacts=target)
    check_as_received(pdu)
    assert pdu.redacts == target
    if version.redacts_in_content:
        assert pdu.content == {"reason": "spam", "redacts": target}
        assert "redacts" not in pdu.json
    else:
        assert pdu.content == content
        assert pdu.json["redacts"] == target
    assert content == {"reason": "spam"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_event_shares_nothing_with_the_content_it_was_made_of(version: RoomVersion) -> None:
    content: dict[str, Any] = {"users": {ALICE: 100}}
    pdu = build(version, content=content)
    content["users"][ALICE] = 0
    assert pdu.content == {"users": {"@alice:example.org": 100}}
    assert all(type(name) is str for name in pdu.content["users"])
    check_as_received(pdu)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_size_is_that_of_the_complete_event(version: RoomVersion) -> None:
    unsigned = {"age": 1}
    empty = len(encode_canonical(build(version, content={"body": ""}, unsigned=unsigned).json))
    pdu = build(version, content={"body": "x" * (EVENT_BYTES_MAX - empty)}, unsigned=unsigned)
    assert len(encode_canonical(pdu.json)) == EVENT_BYTES_MAX
    check_as_received(pdu)
    with pytest.raises(TooLarge):
        build(version, content={"body": "x" * (EVENT_BYTES_MAX - empty + 1)}, unsigned=unsigned)


@pytest.mark.parametrize("version", VERSIONS)
def test_s3_depth_is_cut_to_what_every_server_takes(version: RoomVersion) -> None:
    for depth in (INTEGER_MAX, INTEGER_MAX + 1, 2**63, 2**70):
        assert build(version, depth=depth).depth == INTEGER_MAX


@pytest.mark.parametrize("version", VERSIONS)
def test_malformed_parts_are_refused(version: RoomVersion) -> None:
    many = [EventId(f"$e{i}:example.org") for i in range(21)]
    hashes = dict.fromkeys(many, "AAAA")
    wrong: list[dict[str, Any]] = [
        {"content": []},
        {"content": None},
        {"content": {"a": "\ud800"}},
        {"type": "a\0"},
        {"state_key": "\0"},
        {"state_key": "\ud800"},
        {"prev_events": many, "reference_hashes": hashes},
        {"auth_events": many[:11], "reference_hashes": hashes},
    ]
    for members in wrong:
        with pytest.raises(BadJson):
            build(version, **members)
    for members in ({"type": "x" * 256}, {"state_key": "é" * 128}, {"content": {"a": "x" * EVENT_BYTES_MAX}}):
        with pytest.raises(TooLarge):
            build(version, **members)


@pytest.mark.parametrize("version", STRICT_VERSIONS)
@pytest.mark.parametrize("value", [1.5, 2**53, 2**70])
def test_s18_no_event_of_ours_breaks_canonical_json(value: Any, version: RoomVersion) -> None:
    with pytest.raises(BadJson):
        build(version, content={"a": value})
    with pytest.raises(BadJson):
        build(version, unsigned={"a": value})


@pytest.mark.parametrize("version", VERSIONS)
def test_a_template_is_the_event_before_it_is_signed(version: RoomVersion) -> None:
    event = builder(version, type="m.room.member", state_key=ALICE, content={"membership": "join"}, unsigned={"age": 1})
    template = event.template()
    pdu = event.build(server_name=SERVER, key=KEY)
    left_out = {"event_id", "hashes", "origin", "signatures", "unsigned"}
    assert pdu.json["origin"] == SERVER
    assert template == {name: value for name, value in pdu.json.items() if name not in left_out}
