"""The format checks on events of others and on what clients send.

Tests are named for the security lessons (S1, S2, …) that they stand for.
"""

import contextlib
import copy
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.canonical_json import INTEGER_MAX, encode_canonical
from homeserver.core.errors import BadJson, TooLarge
from homeserver.core.event_format import EVENT_BYTES_MAX, check_client_event, check_event_keys, parse_pdu
from homeserver.core.hashing import event_id_of
from homeserver.core.ids import RoomId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import ROOM_VERSIONS, EventIdFormat, RoomVersion
from tests.core.event_strategies import (
    LENIENT_VERSIONS,
    STRICT_VERSIONS,
    VERSIONS,
    lenient_values,
    minimal_event,
    reference,
    versioned_events,
)

V12 = ROOM_VERSIONS["12"]
WITH_PAIRS = VERSIONS[:2]
WITHOUT_PAIRS = VERSIONS[2:]
NO_STRINGS: list[Any] = [None, 0, 1.5, True, [], {}, ["a"], {"a": 1}]
NO_INTEGERS: list[Any] = [None, "7", True, False, 7.0, [], {}, "", math.nan]
NO_OBJECTS: list[Any] = [None, 0, "", "x", True, [], [["a", 1]]]


def refused(event: Any, version: RoomVersion) -> None:
    """The event is refused, and nothing but a MatrixError says so."""
    with pytest.raises(BadJson):
        parse_pdu(event, version)


@given(versioned_events())
def test_a_well_formed_event_is_read(versioned: tuple[RoomVersion, dict[str, Any]]) -> None:
    version, event = versioned
    before = copy.deepcopy(event)
    pdu = parse_pdu(event, version)
    assert event == before
    assert pdu.json is event
    assert pdu.event_id == event_id_of(event, version)
    assert pdu.room_id == event.get("room_id", "!" + pdu.event_id[1:])
    assert (pdu.type, pdu.sender, pdu.state_key) == (event["type"], event["sender"], event.get("state_key"))
    assert (pdu.depth, pdu.origin_server_ts) == (event["depth"], event["origin_server_ts"])
    assert [reference[0] if isinstance(reference, list) else reference for reference in event["prev_events"]] == list(
        pdu.prev_events
    )
    assert len(pdu.auth_events) == len(event["auth_events"])
    # What the database gives back is the same value.
    assert Pdu.trusted(event, pdu.event_id, version, pdu.room_id) == pdu


@given(st.sampled_from(VERSIONS), lenient_values)
def test_no_value_is_an_accident(version: RoomVersion, value: Any) -> None:
    refused(value if not isinstance(value, dict) else value | {"type": 1}, version)


@given(st.sampled_from(VERSIONS), st.data())
def test_no_member_is_an_accident(version: RoomVersion, data: st.DataObject) -> None:
    event = minimal_event(version)
    event[data.draw(st.sampled_from(sorted(event)))] = data.draw(lenient_values)
    with contextlib.suppress(BadJson, TooLarge):
        assert parse_pdu(event, version).json is event


@pytest.mark.parametrize("version", VERSIONS)
def test_s2_every_member_is_needed(version: RoomVersion) -> None:
    for name in minimal_event(version):
        event = minimal_event(version)
        del event[name]
        refused(event, version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("type", NO_STRINGS),
        ("state_key", NO_STRINGS),
        ("sender", [*NO_STRINGS, "", "alice", "@alice", "@alice:", "@alice:exa mple", "@a\0:example.org"]),
        ("room_id", [*NO_STRINGS, "", "room", "!", "!room", "#room:example.org", "!r\0:example.org", "!room:exa mple"]),
        ("content", NO_OBJECTS),
        ("depth", [*NO_INTEGERS, -1, 2**63, -(2**63), 2**200]),
        ("origin_server_ts", [*NO_INTEGERS, 2**63, -(2**63) - 1, 2**200]),
        ("hashes", [*NO_OBJECTS, {}, {"sha256": None}, {"sha256": 5}, {"sha256": {}}, {"sha512": "AAAA"}]),
        ("signatures", [*NO_OBJECTS, {"a": None}, {"a": "b"}, {"a": ["b"]}, {"a": {"k": None}}, {"a": {"k": 1}}]),
        ("unsigned", NO_OBJECTS),
        ("prev_events", [*NO_OBJECTS[:5], {}, {"$a": 1}, [None], [1], [[]], [{}], ["no sigil"], ["$"]]),
        ("auth_events", [*NO_OBJECTS[:5], {}, {"$a": 1}, [None], [1], [[]], [{}], ["no sigil"], ["$"]]),
    ],
)
def test_s2_every_member_has_its_type(name: str, values: list[Any], version: RoomVersion) -> None:
    for value in values:
        refused(minimal_event(version, **{name: value}), version)


@pytest.mark.parametrize("version", WITH_PAIRS)
@pytest.mark.parametrize("name", ["prev_events", "auth_events"])
def test_s2_references_are_pairs_in_versions_1_and_2(name: str, version: RoomVersion) -> None:
    pair = reference(version)
    pdu = parse_pdu(minimal_event(version, **{name: [pair]}), version)
    assert getattr(pdu, name) == ("$other:example.org",)
    for wrong in ("$other:example.org", pair[:1], [*pair, {}], pair[::-1], [pair[0], "hash"], [pair[0], None], [5, {}]):
        refused(minimal_event(version, **{name: [wrong]}), version)


@pytest.mark.parametrize("version", WITHOUT_PAIRS)
@pytest.mark.parametrize("name", ["prev_events", "auth_events"])
def test_s2_references_are_ids_from_version_3_on(name: str, version: RoomVersion) -> None:
    pdu = parse_pdu(minimal_event(version, **{name: ["$other"]}), version)
    assert getattr(pdu, name) == ("$other",)
    for wrong in (reference(WITH_PAIRS[0]), ["$other"], "$" + "x" * 255, "$\0", "$\ud800"):
        refused(minimal_event(version, **{name: [wrong]}), version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "count_max"), [("prev_events", 20), ("auth_events", 10)])
def test_s2_references_are_counted(name: str, count_max: int, version: RoomVersion) -> None:
    references = [reference(version, f"e{i}") for i in range(count_max + 1)]
    assert len(getattr(parse_pdu(minimal_event(version, **{name: references[1:]}), version), name)) == count_max
    refused(minimal_event(version, **{name: references}), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_s2_an_event_has_at_most_65536_bytes(version: RoomVersion) -> None:
    empty = len(encode_canonical(minimal_event(version, content={"body": ""})))
    fits = minimal_event(version, content={"body": "x" * (EVENT_BYTES_MAX - empty)})
    assert len(encode_canonical(fits)) == EVENT_BYTES_MAX
    parse_pdu(fits, version)
    for event in (
        minimal_event(version, content={"body": "x" * (EVENT_BYTES_MAX - empty + 1)}),
        minimal_event(version, content={"body": "é" * ((EVENT_BYTES_MAX - empty) // 2 + 1)}),
        minimal_event(version, unsigned={"x": "x" * EVENT_BYTES_MAX}),
        minimal_event(version, signatures={"example.org": {"ed25519:1": "x" * EVENT_BYTES_MAX}}),
    ):
        with pytest.raises(TooLarge):
            parse_pdu(event, version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["type", "state_key"])
def test_s2_type_and_state_key_have_at_most_255_bytes(name: str, version: RoomVersion) -> None:
    for fits in ("x" * 255, "é" * 127, "\U0001f600" * 63, ""):
        assert getattr(parse_pdu(minimal_event(version, **{name: fits}), version), name) == fits
    for too_long in ("x" * 256, "é" * 128, "\U0001f600" * 64):
        with pytest.raises(TooLarge):
            parse_pdu(minimal_event(version, **{name: too_long}), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_s2_identifiers_have_at_most_255_bytes(version: RoomVersion) -> None:
    parse_pdu(minimal_event(version, sender="@" + "x" * 242 + ":example.org"), version)
    refused(minimal_event(version, sender="@" + "x" * 243 + ":example.org"), version)
    refused(minimal_event(version, sender="@" + "é" * 122 + ":example.org"), version)
    refused(minimal_event(version, room_id="!" + "x" * 243 + ":example.org"), version)
    if version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
        parse_pdu(minimal_event(version, event_id="$" + "x" * 242 + ":example.org"), version)
        refused(minimal_event(version, event_id="$" + "x" * 243 + ":example.org"), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_s2_what_becomes_a_column_has_no_nul(version: RoomVersion) -> None:
    for name in ("type", "state_key"):
        refused(minimal_event(version, **{name: "a\0b"}), version)
        refused(minimal_event(version, **{name: "a\ud800b"}), version)
    # In the content it is a character like any other.
    parse_pdu(minimal_event(version, content={"body": "a\0b"}), version)


@pytest.mark.parametrize("version", LENIENT_VERSIONS)
def test_s3_depth_may_be_anything_of_63_bits_until_version_5(version: RoomVersion) -> None:
    for depth in (0, 1, 2**53, 2**63 - 1):
        assert parse_pdu(minimal_event(version, depth=depth), version).depth == depth


@pytest.mark.parametrize("version", STRICT_VERSIONS)
def test_s3_depth_ends_at_2_to_the_53_from_version_6_on(version: RoomVersion) -> None:
    for depth in (0, 1, INTEGER_MAX):
        assert parse_pdu(minimal_event(version, depth=depth), version).depth == depth
    for depth in (INTEGER_MAX + 1, 2**63 - 1):
        refused(minimal_event(version, depth=depth), version)


@pytest.mark.parametrize("value", [1.5, 1.0, 2**53, -(2**53), 2**64, 1e300])
@pytest.mark.parametrize("place", [lambda v: {"content": {"a": [v]}}, lambda v: {"org.example": v}])
def test_s18_numbers_are_strict_from_version_6_on(value: Any, place: Any) -> None:
    for version in STRICT_VERSIONS:
        refused(minimal_event(version, **place(value)), version)
    for version in LENIENT_VERSIONS:
        parse_pdu(minimal_event(version, **place(value)), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_s18_no_version_takes_what_cannot_be_encoded(version: RoomVersion) -> None:
    deep: Any = []
    for _ in range(1_000):
        deep = [deep]
    for value in (math.nan, math.inf, "\ud800", {"\ud800": 1}, deep):
        refused(minimal_event(version, content={"a": value}), version)
        refused(minimal_event(version, unsigned={"a": value}), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_s1_an_event_of_another_room_is_refused(version: RoomVersion) -> None:
    event = minimal_event(version)
    assert parse_pdu(event, version, room_id=RoomId(event["room_id"])).room_id == event["room_id"]
    other = "!" + "o" * 43 if version.room_id_is_create_hash else "!other:example.org"
    with pytest.raises(BadJson):
        parse_pdu(event, version, room_id=RoomId(other))


def test_room_ids_have_a_domain_until_version_11() -> None:
    for version in VERSIONS[:11]:
        refused(minimal_event(version, room_id="!" + "r" * 43), version)
    for wrong in ("!room:example.org", "!" + "r" * 42, "!" + "r" * 44, "!" + "r" * 42 + "+", "$" + "r" * 43):
        refused(minimal_event(V12, room_id=wrong), V12)


def test_the_create_event_of_version_12_has_no_room_id() -> None:
    create = minimal_event(V12, "m.room.create", state_key="")
    pdu = parse_pdu(create, V12)
    assert pdu.room_id == "!" + pdu.event_id[1:]
    assert parse_pdu(create, V12, room_id=pdu.room_id) == pdu
    refused(create | {"room_id": pdu.room_id}, V12)
    refused(create | {"room_id": None}, V12)
    with pytest.raises(BadJson):
        parse_pdu(create, V12, room_id=RoomId("!" + "r" * 43))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_redaction_redacts(version: RoomVersion) -> None:
    in_content = version.redacts_in_content
    target = "$target:example.org"
    at_top = minimal_event(version, "m.room.redaction", redacts=target)
    inside = minimal_event(version, "m.room.redaction", content={"redacts": target})
    assert parse_pdu(at_top, version).redacts == (None if in_content else target)
    assert parse_pdu(inside, version).redacts == (target if in_content else None)
    assert parse_pdu(minimal_event(version, redacts=target, content={"redacts": target}), version).redacts is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("value", ["", "no id", "$", "$" + "x" * 255, "$a\0"])
def test_a_redaction_of_no_event_redacts_nothing(value: str, version: RoomVersion) -> None:
    for members in ({"redacts": value}, {"content": {"redacts": value}}):
        pdu = parse_pdu(minimal_event(version, "m.room.redaction", **members), version)
        assert pdu.redacts is None
        assert Pdu.trusted(pdu.json, pdu.event_id, version, pdu.room_id).redacts is None


def test_redacts_is_a_string_where_the_format_names_it() -> None:
    for version in VERSIONS:
        event = minimal_event(version, "m.room.redaction", redacts=5)
        if version.redacts_in_content:
            assert parse_pdu(event, version).redacts is None
        else:
            refused(event, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_clients_send_is_checked_before_the_event_is_built(version: RoomVersion) -> None:
    content = {"body": "hello"}
    checked = check_client_event(event_type="m.room.message", state_key=None, content=content, room_version=version)
    assert checked is content
    for wrong in NO_OBJECTS:
        with pytest.raises(BadJson):
            check_client_event(event_type="x", state_key="", content=wrong, room_version=version)
    for too_large in ({"event_type": "x" * 256}, {"state_key": "x" * 256}, {"content": {"a": "x" * 65_536}}):
        members: dict[str, Any] = {"event_type": "x", "state_key": "", "content": {}} | too_large
        with pytest.raises(TooLarge):
            check_client_event(**members, room_version=version)
    if version.strict_canonical_json:
        with pytest.raises(BadJson):
            check_client_event(event_type="x", state_key="", content={"a": 1.5}, room_version=version)


@pytest.mark.parametrize("text", ["\0", "a\0", "\ud800", "\udfffa"])
def test_what_cannot_be_stored_is_refused(text: str) -> None:
    with pytest.raises(BadJson):
        check_event_keys(text, None)
    with pytest.raises(BadJson):
        check_event_keys("x", text)
    with pytest.raises(BadJson):
        check_event_keys("x", 5)
