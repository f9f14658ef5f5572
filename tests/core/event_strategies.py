"""Events in the format of each room version, with everything a server may meet in them, for property tests."""

import string
from typing import Any

from hypothesis import strategies as st

from homeserver.core.canonical_json import INTEGER_MAX
from homeserver.core.room_versions import ROOM_VERSIONS, EventIdFormat, RoomVersion

VERSIONS = tuple(ROOM_VERSIONS.values())
STRICT_VERSIONS = tuple(version for version in VERSIONS if version.strict_canonical_json)
LENIENT_VERSIONS = tuple(version for version in VERSIONS if not version.strict_canonical_json)

SPECIAL_TYPES = (
    "m.room.aliases",
    "m.room.create",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.member",
    "m.room.message",
    "m.room.power_levels",
    "m.room.redaction",
    "m.room.third_party_invite",
)
SPECIAL_MEMBERS = (
    "aliases",
    "allow",
    "ban",
    "creator",
    "events",
    "history_visibility",
    "invite",
    "join_authorised_via_users_server",
    "join_rule",
    "membership",
    "redacts",
    "signed",
    "third_party_invite",
    "users",
)

texts = st.text(max_size=8)
strict_integers = st.integers(-INTEGER_MAX, INTEGER_MAX)
any_integers = strict_integers | st.integers(-(2**70), 2**70)
floats = st.floats(allow_nan=False, allow_infinity=False)


def json_values(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """JSON values with the given scalars at their leaves."""
    names = texts | st.sampled_from(SPECIAL_MEMBERS)
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=8
    )


strict_values = json_values(st.none() | st.booleans() | texts | strict_integers)
lenient_values = json_values(st.none() | st.booleans() | texts | any_integers | floats)


def json_objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects whose members are like those that the protocol knows."""
    return st.dictionaries(texts | st.sampled_from(SPECIAL_MEMBERS), values, max_size=5)


def minimal_event(version: RoomVersion, event_type: str = "m.room.message", /, **members: Any) -> dict[str, Any]:
    """The smallest event of a room version with well-formed hashes and signatures, with further members or others."""
    event: dict[str, Any] = {
        "type": event_type,
        "sender": "@alice:example.org",
        "content": {},
        "origin_server_ts": 1_700_000_000_000,
        "depth": 7,
        "prev_events": [],
        "auth_events": [],
        "hashes": {"sha256": "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"},
        "signatures": {"example.org": {"ed25519:1": "AAAA"}},
    }
    if version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
        event["event_id"] = "$own:example.org"
    if not version.room_id_is_create_hash:
        event["room_id"] = "!room:example.org"
    elif event_type != "m.room.create":
        event["room_id"] = "!" + "r" * 43
    return event | members


def reference(version: RoomVersion, opaque: str = "other") -> Any:
    """A reference to another event in the form of a room version."""
    if version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
        return [f"${opaque}:example.org", {"sha256": "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"}]
    return f"${opaque}"


@st.composite
def events(draw: st.DrawFn, version: RoomVersion) -> dict[str, Any]:
    """Well-formed events of a room version, also such as only other servers would make."""
    values = strict_values if version.strict_canonical_json else lenient_values
    event_type = draw(st.sampled_from(SPECIAL_TYPES) | st.text(string.ascii_letters, max_size=5))
    event = minimal_event(version, event_type, content=draw(json_objects(values)))
    event["depth"] = draw(st.integers(0, INTEGER_MAX))
    event["origin_server_ts"] = draw(strict_integers)
    event["prev_events"] = [reference(version, f"p{i}") for i in range(draw(st.integers(0, 3)))]
    event["auth_events"] = [reference(version, f"a{i}") for i in range(draw(st.integers(0, 3)))]
    if draw(st.booleans()):
        event["state_key"] = draw(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8))
    if event_type == "m.room.redaction" and draw(st.booleans()):
        event["redacts"] = draw(st.sampled_from(("$redacted:example.org", "$" + "e" * 43, "no event id")))
    if draw(st.booleans()):
        event["unsigned"] = draw(json_objects(values))
    extra = draw(st.dictionaries(st.sampled_from(("origin", "membership", "prev_state", "org.example")), values))
    return event | extra


@st.composite
def versioned_events(draw: st.DrawFn) -> tuple[RoomVersion, dict[str, Any]]:
    """A room version and a well-formed event of it."""
    version = draw(st.sampled_from(VERSIONS))
    return version, draw(events(version))
