"""The client form of events, the remainder that makes them whole again, and stripped state."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.canonical_json import encode_canonical, parse_json
from homeserver.core.client_event import (
    STRIPPED_STATE_BYTES_MAX,
    client_event,
    federation_event,
    federation_remainder,
    parse_stripped_state,
    stripped_state_event,
)
from homeserver.core.event_format import parse_pdu
from homeserver.core.redaction import redact
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from tests.core.event_strategies import VERSIONS, lenient_values, minimal_event, versioned_events

V12 = ROOM_VERSIONS["12"]


@given(versioned_events())
def test_the_two_parts_make_the_event_again(versioned: tuple[RoomVersion, dict[str, Any]]) -> None:
    version, event = versioned
    # From version 3 on `event_id` has no meaning in an event, but it may stand there.
    for whole in (event, event | {"event_id": "$odd:example.org"}, redact(event, version)):
        pdu = parse_pdu(whole, version)
        client_form = parse_json(encode_canonical(client_event(pdu, unsigned={"replaces_state": "$x"})))
        remainder = parse_json(encode_canonical(federation_remainder(pdu)))
        again = federation_event(client_form, remainder, version)
        assert encode_canonical(again) == encode_canonical(whole)
        assert parse_pdu(again, version).event_id == pdu.event_id


@given(versioned_events())
def test_the_client_form(versioned: tuple[RoomVersion, dict[str, Any]]) -> None:
    version, event = versioned
    pdu = parse_pdu(event, version)
    form = client_event(pdu)
    expected = {"content", "event_id", "origin_server_ts", "room_id", "sender", "type"}
    if "state_key" in event:
        expected.add("state_key")
    if pdu.redacts is not None:
        expected.add("redacts")
    assert set(form) == expected
    assert (form["event_id"], form["room_id"]) == (pdu.event_id, pdu.room_id)
    assert all(form[name] == event[name] for name in expected - {"event_id", "room_id", "content", "redacts"})


@given(versioned_events())
def test_neither_part_repeats_the_other(versioned: tuple[RoomVersion, dict[str, Any]]) -> None:
    version, event = versioned
    pdu = parse_pdu(event, version)
    repeated = set(client_event(pdu)) & set(federation_remainder(pdu))
    # Only where one name has two values: the client form's is not the federation form's.
    assert all(client_event(pdu)[name] != federation_remainder(pdu)[name] for name in repeated - {"redacts"})


@pytest.mark.parametrize("version", VERSIONS)
def test_the_remainder_of_an_ordinary_event(version: RoomVersion) -> None:
    pdu = parse_pdu(minimal_event(version), version)
    assert set(federation_remainder(pdu)) == {"auth_events", "prev_events", "depth", "hashes", "signatures"}


@pytest.mark.parametrize("version", VERSIONS)
def test_clients_find_redacts_in_both_places(version: RoomVersion) -> None:
    target = "$target:example.org"
    members = (
        {"content": {"redacts": target, "reason": "spam"}}
        if version.redacts_in_content
        else {
            "content": {"reason": "spam"},
            "redacts": target,
        }
    )
    form = client_event(parse_pdu(minimal_event(version, "m.room.redaction", **members), version))
    assert form["redacts"] == target
    assert form["content"] == {"reason": "spam", "redacts": target}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_redacted_is_never_in_doubt(version: RoomVersion) -> None:
    """A redaction that names two events: clients see in both places the one that this room version means."""
    event = minimal_event(version, "m.room.redaction", redacts="$top", content={"redacts": "$inside", "a": 1})
    pdu = parse_pdu(event, version)
    form = client_event(pdu)
    meant = "$inside" if version.redacts_in_content else "$top"
    assert pdu.redacts == form["redacts"] == form["content"]["redacts"] == meant
    assert federation_event(form, federation_remainder(pdu), version) == event


@pytest.mark.parametrize("version", VERSIONS)
def test_a_redaction_of_nothing_shows_as_it_is(version: RoomVersion) -> None:
    event = minimal_event(version, "m.room.redaction", redacts="no id", content={"redacts": "no id"})
    form = client_event(parse_pdu(event, version))
    assert "redacts" not in form
    assert form["content"] == {"redacts": "no id"}


@pytest.mark.parametrize("version", VERSIONS)
def test_s23_what_the_origin_says_in_unsigned_is_not_shown(version: RoomVersion) -> None:
    pdu = parse_pdu(minimal_event(version, unsigned={"transaction_id": "m1", "redacted_because": {}}), version)
    assert "unsigned" not in client_event(pdu)
    assert client_event(pdu, unsigned={"replaces_state": "$old"})["unsigned"] == {"replaces_state": "$old"}
    assert federation_remainder(pdu)["unsigned"] == {"transaction_id": "m1", "redacted_because": {}}


def test_the_create_event_of_version_12_has_its_room_id_for_clients() -> None:
    event = minimal_event(V12, "m.room.create", state_key="")
    pdu = parse_pdu(event, V12)
    form, remainder = client_event(pdu), federation_remainder(pdu)
    assert form["room_id"] == pdu.room_id
    assert federation_event(form, remainder, V12) == event


@pytest.mark.parametrize("version", VERSIONS)
def test_stripped_state(version: RoomVersion) -> None:
    pdu = parse_pdu(minimal_event(version, "m.room.name", state_key="", content={"name": "Tea"}), version)
    stripped = stripped_state_event(pdu)
    assert stripped == {"type": "m.room.name", "state_key": "", "sender": pdu.sender, "content": {"name": "Tea"}}
    # Since 1.16 other servers send whole events; from any they are cut the same way.
    assert parse_stripped_state([pdu.json, stripped]) == [stripped, stripped]


NAME = {"type": "m.room.name", "state_key": "", "sender": "@a:b", "content": {"name": "Tea"}}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        5,
        [],
        {},
        *({name: value for name, value in NAME.items() if name != missing} for missing in NAME),
        NAME | {"type": 5},
        NAME | {"type": "a\0"},
        NAME | {"type": "x" * 256},
        NAME | {"state_key": None},
        NAME | {"state_key": "\ud800"},
        NAME | {"sender": "nobody"},
        NAME | {"sender": None},
        NAME | {"content": []},
        NAME | {"content": None},
        NAME | {"content": {"a": "\ud800"}},
        NAME | {"content": {"a": float("nan")}},
        NAME | {"content": {"a": "x" * STRIPPED_STATE_BYTES_MAX}},
    ],
)
def test_s5_one_malformed_event_does_not_spoil_the_others(wrong: Any) -> None:
    assert parse_stripped_state([NAME, wrong, NAME]) == [NAME, NAME]


@pytest.mark.parametrize("events", [None, {}, "x", 5, {"a": NAME}])
def test_s5_stripped_state_of_a_wrong_type_is_none(events: object) -> None:
    assert parse_stripped_state(events) == []


def test_s4_stripped_state_is_limited_in_size() -> None:
    large = NAME | {"content": {"name": "x" * 30_000}}
    assert parse_stripped_state([large] * 10 + [NAME]) == [large, large, NAME]


@given(st.lists(lenient_values))
def test_s5_no_stripped_state_is_an_accident(events: list[Any]) -> None:
    assert all(set(event) == {"type", "state_key", "sender", "content"} for event in parse_stripped_state(events))
