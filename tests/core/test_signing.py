"""Signing against the specification's test vectors and another implementation."""

import copy
from typing import Any

import pytest
import signedjson.key
import signedjson.sign
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.errors import BadJson, InvalidParam
from homeserver.core.hashing import content_hash
from homeserver.core.redaction import redact
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.signing import (
    SigningKey,
    VerifyKey,
    sign_event,
    sign_json,
    signature_key_ids,
    verify_event,
    verify_json,
    verify_signature,
)
from homeserver.core.unpadded_base64 import decode_base64, encode_base64
from tests.core.event_strategies import json_objects, lenient_values, versioned_events

# appendices, "Cryptographic Test Vectors"
SEED = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"
KEY = SigningKey.from_seed("1", decode_base64(SEED))
THEIR_KEY = signedjson.key.decode_signing_key_base64("ed25519", "1", SEED)
V1 = ROOM_VERSIONS["1"]


@pytest.mark.parametrize(
    ("json_object", "signature"),
    [
        ({}, "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
        (
            {"one": 1, "two": "Two"},
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ],
)
def test_json_vectors_of_the_specification(json_object: dict[str, Any], signature: str) -> None:
    signed = sign_json(json_object, "domain", KEY)
    assert signed == {**json_object, "signatures": {"domain": {"ed25519:1": signature}}}
    assert verify_json(signed, "domain", KEY.verify_key)


EVENT_VECTORS: list[tuple[dict[str, Any], str, str]] = [
    (
        {
            "room_id": "!x:domain",
            "sender": "@a:domain",
            "origin": "domain",
            "origin_server_ts": 1000000,
            "signatures": {},
            "hashes": {},
            "type": "X",
            "content": {},
            "prev_events": [],
            "auth_events": [],
            "depth": 3,
            "unsigned": {"age_ts": 1000000},
        },
        "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
        "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
    ),
    (
        {
            "content": {"body": "Here is the message content"},
            "event_id": "$0:domain",
            "origin": "domain",
            "origin_server_ts": 1000000,
            "type": "m.room.message",
            "room_id": "!r:domain",
            "sender": "@u:domain",
            "signatures": {},
            "unsigned": {"age_ts": 1000000},
        },
        "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
        "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
    ),
]


@pytest.mark.parametrize(("event", "sha256", "signature"), EVENT_VECTORS)
def test_event_vectors_of_the_specification(event: dict[str, Any], sha256: str, signature: str) -> None:
    hashed = event | {"hashes": {"sha256": encode_base64(content_hash(event))}}
    assert hashed["hashes"] == {"sha256": sha256}
    signed = sign_event(hashed, "domain", KEY, V1)
    assert signed == {**hashed, "signatures": {"domain": {"ed25519:1": signature}}}
    assert verify_event(signed, "domain", KEY.verify_key, V1)
    # The signature holds for the redacted event too.
    assert verify_event(redact(signed, V1), "domain", KEY.verify_key, V1)


@given(json_objects(lenient_values))
def test_signs_as_the_reference_does(json_object: dict[str, Any]) -> None:
    before = copy.deepcopy(json_object)
    ours = sign_json(json_object, "domain", KEY)
    assert json_object == before
    assert ours == signedjson.sign.sign_json(copy.deepcopy(json_object), "domain", THEIR_KEY)
    signedjson.sign.verify_signed_json(ours, "domain", signedjson.key.get_verify_key(THEIR_KEY))


def test_unsigned_and_other_signatures_are_not_covered() -> None:
    first = sign_json({"a": 1, "unsigned": {"age": 1}}, "one", KEY)
    other = SigningKey.from_seed("2", bytes(32))
    both = sign_json(sign_json(first, "two", other), "one", other)
    both["unsigned"] = {"age": 2}
    assert set(both["signatures"]["one"]) == {"ed25519:1", "ed25519:2"}
    assert verify_json(both, "one", KEY.verify_key)
    assert verify_json(both, "one", other.verify_key)
    assert verify_json(both, "two", other.verify_key)
    assert not verify_json(both, "two", KEY.verify_key)
    assert not verify_json({**both, "a": 2}, "one", KEY.verify_key)


@given(versioned_events())
def test_signed_events_verify_and_redacted_ones_too(versioned: tuple[RoomVersion, dict[str, Any]]) -> None:
    version, event = versioned
    before = copy.deepcopy(event)
    signed = sign_event(event, "example.org", KEY, version)
    assert event == before
    assert verify_event(signed, "example.org", KEY.verify_key, version)
    assert verify_event(redact(signed, version), "example.org", KEY.verify_key, version)
    assert not verify_event({**signed, "depth": event["depth"] + 1}, "example.org", KEY.verify_key, version)
    assert not verify_event(signed, "example.com", KEY.verify_key, version)


@pytest.mark.parametrize(
    "signatures",
    [
        None,
        [],
        "x",
        {},
        {"domain": None},
        {"domain": []},
        {"domain": "x"},
        {"domain": {}},
        {"domain": {"ed25519:1": None}},
        {"domain": {"ed25519:1": 5}},
        {"domain": {"ed25519:1": ["x"]}},
        {"domain": {"ed25519:1": ""}},
        {"domain": {"ed25519:1": "not base64!"}},
        {"domain": {"ed25519:1": "\ud800"}},
        {"domain": {"ed25519:1": "AAAA"}},
        {"domain": {"ed25519:1": encode_base64(bytes(63))}},
        {"domain": {"ed25519:1": encode_base64(bytes(64))}},
        {"domain": {"ed25519:1": encode_base64(bytes(65))}},
    ],
)
def test_malformed_signatures_are_wrong_signatures(signatures: Any) -> None:
    assert not verify_json({"signatures": signatures}, "domain", KEY.verify_key)
    assert not verify_event(
        {"type": "x", "content": {}, "signatures": signatures}, "domain", KEY.verify_key, ROOM_VERSIONS["12"]
    )


def test_an_object_that_cannot_be_encoded_is_signed_by_nobody() -> None:
    signatures = {"domain": {"ed25519:1": encode_base64(bytes(64))}}
    assert not verify_json({"a": "\ud800", "signatures": signatures}, "domain", KEY.verify_key)
    event = {"type": "\ud800", "content": {}, "signatures": signatures}
    assert not verify_event(event, "domain", KEY.verify_key, V1)
    with pytest.raises(BadJson):
        sign_json({"a": "\ud800"}, "domain", KEY)


@pytest.mark.parametrize("signatures", [[], "x", None, {"domain": []}, {"domain": None}])
def test_nothing_is_added_to_malformed_signatures(signatures: Any) -> None:
    with pytest.raises(BadJson):
        sign_json({"signatures": signatures}, "domain", KEY)


@given(st.binary(max_size=80))
def test_no_bytes_but_the_right_ones_are_a_signature(signature: bytes) -> None:
    assert not verify_signature(b"message", encode_base64(signature), KEY.verify_key)
    assert not KEY.verify_key.verify(b"message", signature)


def test_a_signature_is_of_its_message_and_key() -> None:
    signature = KEY.sign(b"message")
    assert verify_signature(b"message", signature, KEY.verify_key)
    assert verify_signature(b"message", signature + "==", KEY.verify_key)
    assert not verify_signature(b"massage", signature, KEY.verify_key)
    assert not verify_signature(b"message", signature, SigningKey.from_seed("1", bytes(32)).verify_key)


def test_the_keys_of_the_claimed_signatures_are_listed() -> None:
    signatures: dict[str, Any] = {"a": {"ed25519:1": "x", "ed25519:2": None, "rsa:1": "x"}, "b": [], "c": None}
    assert signature_key_ids({"signatures": signatures}, "a") == ("ed25519:1", "ed25519:2")
    for entity in ("b", "c", "d"):
        assert signature_key_ids({"signatures": signatures}, entity) == ()
    assert signature_key_ids({}, "a") == ()
    assert signature_key_ids({"signatures": []}, "a") == ()


def test_the_key_file_is_that_of_signedjson() -> None:
    line = KEY.format()
    assert line == f"ed25519 1 {encode_base64(decode_base64(SEED))}"
    (theirs,) = signedjson.key.read_signing_keys([line + "\n"])
    assert theirs.sign(b"x").signature == decode_base64(KEY.sign(b"x"))
    assert SigningKey.parse(line + "\n") == KEY
    assert KEY.key_id == KEY.verify_key.key_id == "ed25519:1"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ed25519 1",
        f"ed25519 1 {SEED} x",
        f"rsa 1 {SEED}",
        f"ed25519 a:b {SEED}",
        f"ed25519 é {SEED}",
        "ed25519 1 AAAA",
        "ed25519 1 !",
        f"ed25519 1 {SEED}AA",
    ],
)
def test_wrong_lines_of_a_key_file_are_refused(line: str) -> None:
    with pytest.raises(InvalidParam):
        SigningKey.parse(line)


def test_the_secret_is_not_shown_by_accident() -> None:
    assert SEED[:20] not in repr(KEY)
    assert "_key" not in repr(KEY)


def test_public_keys_are_read_and_written() -> None:
    published = KEY.verify_key.encode()
    assert published == "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"
    read = VerifyKey.parse(key_id="ed25519:1", key_base64=published)
    assert read == KEY.verify_key
    assert verify_signature(b"m", KEY.sign(b"m"), read)


@pytest.mark.parametrize("key_id", [None, 1, "", "ed25519", "ed25519:", "rsa:1", "curve25519:AAAA", ["ed25519:1"]])
def test_wrong_key_ids_are_refused(key_id: object) -> None:
    with pytest.raises(InvalidParam):
        VerifyKey.parse(key_id=key_id, key_base64=KEY.verify_key.encode())


@pytest.mark.parametrize("key", [None, 1, "", "AAAA", "!", encode_base64(bytes(31)), encode_base64(bytes(33)), []])
def test_wrong_public_keys_are_refused(key: object) -> None:
    with pytest.raises(InvalidParam):
        VerifyKey.parse(key_id="ed25519:1", key_base64=key)
