"""Content hashes, reference hashes and the ids made of them."""

import base64
import copy
import hashlib
from typing import Any

import canonicaljson
import pytest
from hypothesis import given

from homeserver.core.errors import BadJson
from homeserver.core.hashing import (
    content_hash,
    content_hash_matches,
    essential_json,
    event_id_of,
    reference_hash,
    room_id_of_create,
)
from homeserver.core.ids import EventId, RoomId
from homeserver.core.redaction import redact
from homeserver.core.room_versions import ROOM_VERSIONS, EventIdFormat, RoomVersion
from homeserver.core.unpadded_base64 import encode_base64
from tests.core.event_strategies import VERSIONS, minimal_event, versioned_events


@given(versioned_events())
def test_hashes_are_made_as_specified(versioned: tuple[RoomVersion, dict[str, Any]]) -> None:
    version, event = versioned
    before = copy.deepcopy(event)
    hashed = {name: value for name, value in event.items() if name not in ("unsigned", "signatures", "hashes")}
    assert content_hash(event) == hashlib.sha256(canonicaljson.encode_canonical_json(hashed)).digest()
    essential = {name: value for name, value in redact(event, version).items() if name != "signatures"}
    assert essential_json(event, version) == canonicaljson.encode_canonical_json(essential)
    assert reference_hash(event, version) == hashlib.sha256(essential_json(event, version)).digest()
    assert event == before


@given(versioned_events())
def test_the_event_id_is_that_of_the_redacted_event(versioned: tuple[RoomVersion, dict[str, Any]]) -> None:
    version, event = versioned
    event_id = event_id_of(event, version)
    assert event_id_of(redact(event, version), version) == event_id
    assert event_id_of(event | {"unsigned": {"age": 1}, "signatures": {}}, version) == event_id
    assert EventId.parse(event_id) == event_id


@pytest.mark.parametrize("version", VERSIONS)
def test_the_format_of_event_ids(version: RoomVersion) -> None:
    # Some of many hashes have letters in which the two alphabets differ.
    for depth in range(40):
        event = minimal_event(version, depth=depth)
        digest = reference_hash(event, version)
        match version.event_id_format:
            case EventIdFormat.SERVER_ASSIGNED:
                assert event_id_of(event, version) == "$own:example.org"
            case EventIdFormat.HASH_BASE64:
                assert event_id_of(event, version) == "$" + base64.b64encode(digest).decode().rstrip("=")
            case EventIdFormat.HASH_URL_SAFE:
                assert event_id_of(event, version) == "$" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


@pytest.mark.parametrize("event_id", [None, 5, "", "$", "own:example.org", "$own", "$own:", "$own:exa mple", "$a\0:b"])
@pytest.mark.parametrize("identifier", ["1", "2"])
def test_an_assigned_event_id_must_be_one(event_id: object, identifier: str) -> None:
    version = ROOM_VERSIONS[identifier]
    with pytest.raises(BadJson):
        event_id_of(minimal_event(version, event_id=event_id), version)


def test_the_room_id_of_version_12_is_the_id_of_its_create_event() -> None:
    version = ROOM_VERSIONS["12"]
    create = minimal_event(version, "m.room.create", state_key="", content={"room_version": "12"})
    room_id = room_id_of_create(create, version)
    assert room_id[0] == "!"
    assert room_id[1:] == event_id_of(create, version)[1:]
    assert RoomId.parse(room_id) == room_id


@pytest.mark.parametrize("version", VERSIONS)
def test_a_changed_event_does_not_match_its_hash(version: RoomVersion) -> None:
    event = minimal_event(version, content={"body": "a"}, hashes={})
    event["hashes"] = {"sha256": encode_base64(content_hash(event))}
    assert content_hash_matches(event)
    assert content_hash_matches(event | {"hashes": {"sha256": event["hashes"]["sha256"] + "="}})
    assert content_hash_matches(event | {"unsigned": {"age": 1}, "signatures": {}})
    assert not content_hash_matches(event | {"content": {"body": "b"}})
    assert not content_hash_matches(event | {"org.example": 1})
    assert not content_hash_matches(redact(event, version))


@pytest.mark.parametrize(
    "hashes", [None, [], "x", {}, {"sha256": None}, {"sha256": 1}, {"sha256": "!"}, {"sha1": "AA"}]
)
def test_malformed_hashes_match_nothing(hashes: object) -> None:
    assert not content_hash_matches(minimal_event(ROOM_VERSIONS["12"], hashes=hashes))
