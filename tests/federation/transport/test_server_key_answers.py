"""What servers say of their keys, and what of it is believed."""

import hashlib
import secrets
from typing import Any

import pytest

from federation.wire.server_keys import KEYS_MAX, TRUSTED_MS_MAX, DeniedKeys, parse_key_answer
from homeserver.core.errors import InvalidParam
from homeserver.core.ids import ServerName
from homeserver.core.own_keys import OwnKeys, RetiredKey
from homeserver.core.signing import SigningKey, sign_json
from homeserver.core.unpadded_base64 import decode_base64
from tests.federation.transport.ways import new_key

NOW = 1_700_000_000_000
THEM = ServerName.parse("them.example")
NOBODY = DeniedKeys(())


def read(json: Any, *, denied: DeniedKeys = NOBODY) -> dict[str, tuple[str, int, bool]]:
    answer = parse_key_answer(json, server_name=THEM, denied=denied, now_ms=NOW)
    return {key_id: (key.key.encode(), key.valid_until_ts, key.is_retired) for key_id, key in answer.keys.items()}


def published(*keys: SigningKey, signers: tuple[SigningKey, ...] | None = None, **changes: Any) -> dict[str, Any]:
    json: dict[str, Any] = {
        "server_name": THEM,
        "valid_until_ts": NOW + 1000,
        "verify_keys": {key.key_id: {"key": key.verify_key.encode()} for key in keys},
        **changes,
    }
    for signer in keys if signers is None else signers:
        json = sign_json(json, THEM, signer)
    return json


def test_what_this_server_publishes_can_be_read() -> None:
    one, two, old = new_key("one"), new_key("two"), new_key("old")
    own = OwnKeys(active=(one, two), retired=(RetiredKey(old.verify_key, NOW - 5),))
    assert read(own.published(THEM, valid_until_ts=NOW + 9)) == {
        "ed25519:one": (one.verify_key.encode(), NOW + 9, False),
        "ed25519:two": (two.verify_key.encode(), NOW + 9, False),
        "ed25519:old": (old.verify_key.encode(), NOW - 5, True),
    }


def test_each_key_must_have_signed() -> None:
    one, two = new_key("one"), new_key("two")
    assert set(read(published(one, two, signers=(one,)))) == {"ed25519:one"}
    with pytest.raises(InvalidParam):
        read(published(one, signers=()))
    with pytest.raises(InvalidParam):
        read(published(one, signers=(new_key("one"),)))
    with pytest.raises(InvalidParam):
        read(published(one) | {"valid_until_ts": NOW + 2000})


def test_old_keys_alone_vouch_for_nothing() -> None:
    old = new_key("old")
    old_keys = {old.key_id: {"key": old.verify_key.encode(), "expired_ts": NOW}}
    with pytest.raises(InvalidParam):
        read(published(signers=(old,), old_verify_keys=old_keys))


def test_a_promise_is_believed_for_seven_days() -> None:
    key = new_key("one")
    (found,) = read(published(key, valid_until_ts=2**53 - 1)).values()
    assert found[1] == NOW + TRUSTED_MS_MAX


@pytest.mark.parametrize("by_fingerprint", [False, True])
def test_denied_keys_are_not_taken_from_anybody(by_fingerprint: bool) -> None:
    """S17: neither as keys in use, nor as old ones, and they vouch for no other key."""
    leaked, good = new_key("leaked"), new_key("good")
    base64 = leaked.verify_key.encode()
    name = hashlib.sha256(decode_base64(base64)).hexdigest().upper() if by_fingerprint else base64
    denied = DeniedKeys([name])
    assert set(read(published(leaked, good), denied=denied)) == {"ed25519:good"}
    as_old = {"ed25519:other": {"key": base64, "expired_ts": NOW}}
    assert set(read(published(good, old_verify_keys=as_old), denied=denied)) == {"ed25519:good"}
    with pytest.raises(InvalidParam):
        read(published(leaked), denied=denied)
    assert set(read(published(leaked))) == {"ed25519:leaked"}


GOOD = new_key("good")


@pytest.mark.parametrize(
    "json",
    [
        None,
        [],
        "x",
        {},
        published(GOOD, server_name="other.example"),
        published(GOOD, valid_until_ts=None),
        published(GOOD, valid_until_ts="1"),
        published(GOOD, valid_until_ts=True),
        published(GOOD, valid_until_ts=-1),
        published(GOOD, valid_until_ts=1.5),
        published(GOOD, verify_keys=[]),
        published(GOOD, verify_keys={GOOD.key_id: GOOD.verify_key.encode()}),
        published(GOOD, verify_keys={GOOD.key_id: {"key": "short"}}),
        published(GOOD, verify_keys={"rsa:good": {"key": GOOD.verify_key.encode()}}),
        published(GOOD, large="x" * 70_000),
        published(GOOD) | {"signatures": []},
        published(GOOD) | {"signatures": {THEM: {GOOD.key_id: 5}}},
    ],
)
def test_wrong_answers(json: Any) -> None:
    with pytest.raises(InvalidParam):
        read(json)


def test_wrong_parts_are_left_out() -> None:
    keys = {
        GOOD.key_id: {"key": GOOD.verify_key.encode()},
        "ed25519:nul\0": {"key": GOOD.verify_key.encode()},
        "ed25519:" + "x" * 300: {"key": GOOD.verify_key.encode()},
        "curve25519:x": {"key": GOOD.verify_key.encode()},
    }
    old = {"ed25519:a": {"key": GOOD.verify_key.encode()}, "ed25519:b": None, GOOD.key_id: {"key": "", "expired_ts": 1}}
    assert set(read(published(GOOD, verify_keys=keys, old_verify_keys=old))) == {GOOD.key_id}


def test_the_number_of_keys_is_bounded() -> None:
    old = {
        f"ed25519:{number}": {"key": new_key().verify_key.encode(), "expired_ts": NOW} for number in range(3 * KEYS_MAX)
    }
    assert len(read(published(GOOD, old_verify_keys=old))) == 1 + KEYS_MAX


def test_a_denied_key_that_is_none() -> None:
    with pytest.raises(InvalidParam):
        DeniedKeys([secrets.token_hex(4) + "!"])
