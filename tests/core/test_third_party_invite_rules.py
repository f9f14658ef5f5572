"""The authorization rule for invitations by way of a third party: 5.4.1 (5.3.1 until version 5, 4.3.1, then 4.4.1)."""

from collections.abc import Mapping
from typing import Any

import pytest

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import RoomVersion
from homeserver.core.signing import SigningKey, sign_json
from tests.core.room_values import (
    ADMIN,
    MODERATOR,
    STRANGER,
    USER,
    VERSIONS,
    event,
    member,
    power_levels,
    usual_state,
)

V11 = VERSIONS[10]
all_versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.identifier)

KEY = SigningKey.from_seed("0", b"k" * 32)
OTHER_KEY = SigningKey.from_seed("0", b"o" * 32)
PUBLIC, OTHER_PUBLIC = KEY.verify_key.encode(), OTHER_KEY.verify_key.encode()


def signed(key: SigningKey = KEY, *, mxid: Any = STRANGER, token: Any = "token") -> dict[str, Any]:
    return sign_json({"mxid": mxid, "token": token}, "id.example", key)


def offer(version: RoomVersion, content: Mapping[str, Any], *, sender: str = ADMIN) -> Pdu:
    return event(version, "m.room.third_party_invite", sender=sender, name="offer", state_key="token", content=content)


def allowed(version: RoomVersion, third_party_invite: Any, *changes: Pdu, sender: str = ADMIN) -> bool:
    content = {"membership": "invite", "third_party_invite": third_party_invite}
    pdu = event(version, "m.room.member", sender=sender, state_key=STRANGER, content=content)
    try:
        check_auth(pdu, usual_state(version, *changes))
    except Forbidden:
        return False
    return True


@all_versions
def test_rule_5_4_1_7_a_signature_by_the_key_of_the_offer(version: RoomVersion) -> None:
    assert allowed(version, {"signed": signed()}, offer(version, {"public_key": PUBLIC}))
    keys = [{"public_key": OTHER_PUBLIC}, {"public_key": PUBLIC}]
    assert allowed(version, {"signed": signed()}, offer(version, {"public_keys": keys}))
    assert allowed(version, {"signed": signed()}, offer(version, {"public_key": OTHER_PUBLIC, "public_keys": keys}))


@all_versions
def test_the_sender_needs_neither_membership_nor_power(version: RoomVersion) -> None:
    changes = [
        offer(version, {"public_key": PUBLIC}),
        member(version, ADMIN, "leave"),
        power_levels(version, users={}, invite=100),
    ]
    assert allowed(version, {"signed": signed()}, *changes)


@all_versions
def test_rule_5_4_1_1_the_target_is_banned(version: RoomVersion) -> None:
    changes = [offer(version, {"public_key": PUBLIC}), member(version, STRANGER, "ban")]
    assert not allowed(version, {"signed": signed()}, *changes)


@all_versions
@pytest.mark.parametrize("invite", [None, [], "signed", {}, {"signed": None}, {"signed": []}])
def test_rule_5_4_1_2_nothing_is_signed(version: RoomVersion, invite: Any) -> None:
    assert not allowed(version, invite, offer(version, {"public_key": PUBLIC}))


@all_versions
@pytest.mark.parametrize("lacking", ["mxid", "token"])
def test_rule_5_4_1_3_mxid_and_token(version: RoomVersion, lacking: str) -> None:
    without = sign_json({key: value for key, value in signed().items() if key != lacking}, "id.example", KEY)
    assert not allowed(version, {"signed": without}, offer(version, {"public_key": PUBLIC}))
    values: list[Any] = [5, ["token"], {}]
    for value in values:
        wrong = sign_json({**signed(), lacking: value}, "id.example", KEY)
        assert not allowed(version, {"signed": wrong}, offer(version, {"public_key": PUBLIC}))


@all_versions
def test_rule_5_4_1_4_for_another_user(version: RoomVersion) -> None:
    assert not allowed(version, {"signed": signed(mxid=USER)}, offer(version, {"public_key": PUBLIC}))


@all_versions
def test_rule_5_4_1_5_no_such_offer(version: RoomVersion) -> None:
    assert not allowed(version, {"signed": signed()})
    assert not allowed(version, {"signed": signed(token="other")}, offer(version, {"public_key": PUBLIC}))


@all_versions
def test_rule_5_4_1_6_the_offer_of_another_user(version: RoomVersion) -> None:
    changes = [offer(version, {"public_key": PUBLIC}, sender=MODERATOR)]
    assert not allowed(version, {"signed": signed()}, *changes)
    assert allowed(version, {"signed": signed()}, *changes, sender=MODERATOR)


@all_versions
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"public_key": OTHER_PUBLIC},
        {"public_key": None, "public_keys": None},
        {"public_key": [PUBLIC], "public_keys": {"public_key": PUBLIC}},
        {"public_key": "no base64!", "public_keys": [PUBLIC, {"public_key": 5}, {}]},
        {"public_key": "AAAA"},
    ],
)
def test_rule_5_4_1_8_no_signature_by_an_offered_key(version: RoomVersion, keys: dict[str, Any]) -> None:
    assert not allowed(version, {"signed": signed()}, offer(version, keys))


@pytest.mark.parametrize(
    "signatures",
    [
        None,
        [],
        {},
        {"id.example": None},
        {"id.example": {}},
        {"id.example": {"ed25519:0": None}},
        {"id.example": {"ed25519:0": "AAAA"}},
        {"id.example": {"rsa:0": signed()["signatures"]["id.example"]["ed25519:0"]}},
        {"id.example": {"ed25519:0": signed(mxid=USER)["signatures"]["id.example"]["ed25519:0"]}},
    ],
)
def test_rule_5_4_1_8_signatures_of_a_wrong_form(signatures: Any) -> None:
    content = {**signed(), "signatures": signatures}
    assert not allowed(V11, {"signed": content}, offer(V11, {"public_key": PUBLIC}))


def test_any_of_several_signatures_counts() -> None:
    both = sign_json(sign_json(signed(OTHER_KEY), "other.example", OTHER_KEY), "third.example", KEY)
    assert allowed(V11, {"signed": both}, offer(V11, {"public_key": PUBLIC}))


def test_keys_may_be_in_the_url_safe_alphabet() -> None:
    key = next(
        key
        for key in (SigningKey.from_seed("0", bytes([number]) * 32) for number in range(256))
        if "+" in key.verify_key.encode() and "/" in key.verify_key.encode()
    )
    public = key.verify_key.encode().replace("+", "-").replace("/", "_")
    assert allowed(V11, {"signed": signed(key)}, offer(V11, {"public_key": public}))


def test_the_work_for_an_offer_with_very_many_keys_is_bounded() -> None:
    """The combinations of 400 signatures and 400 keys are not all tried, whichever order they stand in."""
    right = signed()["signatures"]["id.example"]["ed25519:0"]
    wrong = signed(mxid=USER)["signatures"]["id.example"]["ed25519:0"]
    keys = [{"public_key": OTHER_PUBLIC}] * 400 + [{"public_key": PUBLIC}]
    names = {f"ed25519:{number:03}": wrong for number in range(400)}
    assert not allowed(
        V11,
        {"signed": {**signed(), "signatures": {"id.example": {**names, "ed25519:zzz": right}}}},
        offer(V11, {"public_keys": keys}),
    )
    assert allowed(
        V11,
        {"signed": {**signed(), "signatures": {"id.example": {**names, "ed25519:000": right}}}},
        offer(V11, {"public_key": PUBLIC, "public_keys": keys}),
    )
