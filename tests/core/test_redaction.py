"""The redaction algorithm of each room version, member by member."""

import copy
from typing import Any

import pytest
from hypothesis import given

from homeserver.core.redaction import redact
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from tests.core.event_strategies import VERSIONS, minimal_event, versioned_events

BEFORE_V11 = VERSIONS[:10]
SINCE_V11 = VERSIONS[10:]

KEPT_AT_THE_TOP = {
    "auth_events",
    "content",
    "depth",
    "event_id",
    "hashes",
    "origin_server_ts",
    "prev_events",
    "room_id",
    "sender",
    "signatures",
    "state_key",
    "type",
}
# Every member that the algorithm of any version names, and one that none does.
CONTENT = dict.fromkeys(
    (
        "aliases",
        "allow",
        "ban",
        "body",
        "creator",
        "events",
        "events_default",
        "history_visibility",
        "invite",
        "join_authorised_via_users_server",
        "join_rule",
        "kick",
        "membership",
        "notifications",
        "redact",
        "redacts",
        "state_default",
        "users",
        "users_default",
    ),
    "value",
)
POWER_LEVELS = {"ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"}


def kept_content(event_type: str, version: RoomVersion) -> set[str]:
    """The names of the members of CONTENT that are left after redaction."""
    event = minimal_event(version, event_type, content=dict(CONTENT))
    return set(redact(event, version)["content"])


@pytest.mark.parametrize("version", VERSIONS)
def test_members_at_the_top_level(version: RoomVersion) -> None:
    more = dict.fromkeys(("prev_state", "origin", "membership"), "value")
    gone = dict.fromkeys(("unsigned", "redacts", "age_ts", "replaces_state", "org.example"), "value")
    event = minimal_event(version, state_key="", event_id="$e:example.org", room_id="!r:example.org") | more | gone
    kept = KEPT_AT_THE_TOP | (set() if version in SINCE_V11 else set(more))
    assert redact(event, version) == {name: event[name] for name in kept}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("event_type", ["m.room.message", "m.room.name", "m.room.third_party_invite", "", "x"])
def test_other_types_keep_nothing(event_type: str, version: RoomVersion) -> None:
    assert kept_content(event_type, version) == set()


@pytest.mark.parametrize("version", VERSIONS)
def test_member_events(version: RoomVersion) -> None:
    since_v9 = version in VERSIONS[8:]
    expected = {"membership", "join_authorised_via_users_server"} if since_v9 else {"membership"}
    assert kept_content("m.room.member", version) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_create_events(version: RoomVersion) -> None:
    assert kept_content("m.room.create", version) == (set(CONTENT) if version in SINCE_V11 else {"creator"})


@pytest.mark.parametrize("version", VERSIONS)
def test_join_rules(version: RoomVersion) -> None:
    expected = {"join_rule", "allow"} if version in VERSIONS[7:] else {"join_rule"}
    assert kept_content("m.room.join_rules", version) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_power_levels(version: RoomVersion) -> None:
    expected = POWER_LEVELS | {"invite"} if version in SINCE_V11 else POWER_LEVELS
    assert kept_content("m.room.power_levels", version) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_history_visibility(version: RoomVersion) -> None:
    assert kept_content("m.room.history_visibility", version) == {"history_visibility"}


@pytest.mark.parametrize("version", VERSIONS)
def test_aliases_are_special_until_version_5(version: RoomVersion) -> None:
    assert kept_content("m.room.aliases", version) == ({"aliases"} if version in VERSIONS[:5] else set())


@pytest.mark.parametrize("version", VERSIONS)
def test_redactions_keep_what_they_redact_since_version_11(version: RoomVersion) -> None:
    assert kept_content("m.room.redaction", version) == ({"redacts"} if version in SINCE_V11 else set())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("invite", "expected"),
    [
        ({"display_name": "Bob", "signed": {"mxid": "@b:x"}}, {"signed": {"mxid": "@b:x"}}),
        ({"signed": None}, {"signed": None}),
        ({"display_name": "Bob"}, {}),
        ("signed", None),
        (["signed"], None),
        (None, None),
    ],
)
def test_third_party_invites_keep_their_signed_part_since_version_11(
    invite: Any, expected: Any, version: RoomVersion
) -> None:
    event = minimal_event(version, "m.room.member", content={"membership": "invite", "third_party_invite": invite})
    content = {"membership": "invite"}
    if expected is not None and version in SINCE_V11:
        content["third_party_invite"] = expected
    assert redact(event, version)["content"] == content


@given(versioned_events())
def test_redacts_once_and_for_all_without_touching_the_event(versioned: tuple[RoomVersion, dict[str, Any]]) -> None:
    version, event = versioned
    before = copy.deepcopy(event)
    redacted = redact(event, version)
    assert event == before
    assert redact(redacted, version) == redacted
    assert set(redacted) <= set(event)
    assert all(redacted[name] == event[name] for name in redacted if name != "content")


def test_version_8_and_9_differ_in_member_events_alone() -> None:
    v8, v9 = ROOM_VERSIONS["8"], ROOM_VERSIONS["9"]
    for event_type in ("m.room.create", "m.room.join_rules", "m.room.power_levels", "m.room.redaction"):
        assert kept_content(event_type, v8) == kept_content(event_type, v9)
    assert kept_content("m.room.member", v8) != kept_content("m.room.member", v9)
