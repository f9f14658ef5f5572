"""The authorization rule for `m.room.power_levels`, with the numbers it has in each room version."""

from typing import Any

import pytest

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.power_levels import LEVEL_DEFAULTS
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.room_versions import RoomVersion
from tests.core.room_values import (
    ADMIN,
    CREATOR,
    MODERATOR,
    STRANGER,
    USER,
    VERSIONS,
    create,
    event,
    member,
    power_levels,
    usual_levels,
    usual_state,
    versions,
)

V12 = VERSIONS[11]


def in_versions(first: int, last: int = len(VERSIONS)) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("version", versions(first, last), ids=lambda version: version.identifier)


def allowed(version: RoomVersion, sender: str, old: dict[str, Any] | None, new: dict[str, Any]) -> bool:
    """Whether a change of the power levels is allowed; both sides have `usual_levels` unless they say otherwise."""
    users = usual_levels(version)
    state = usual_state(version)
    if old is None:
        del state["m.room.power_levels", ""]
    else:
        # The moderator may send power levels at all.
        events = {"m.room.power_levels": 0, **old.get("events", {})}
        state["m.room.power_levels", ""] = power_levels(version, **{"users": users, **old, "events": events})
        new = {"events": {"m.room.power_levels": 0}, **new}
        new["events"] = (
            {"m.room.power_levels": 0, **new["events"]} if isinstance(new["events"], dict) else new["events"]
        )
    pdu = event(version, "m.room.power_levels", sender=sender, state_key="", content={"users": users, **new})
    try:
        check_auth(pdu, state)
    except Forbidden:
        return False
    return True


@in_versions(1)
def test_an_unchanged_event_is_allowed(version: RoomVersion) -> None:
    assert allowed(version, MODERATOR, {}, {})
    assert allowed(version, MODERATOR, {"ban": 90}, {"ban": 90})


@in_versions(10)
@pytest.mark.parametrize("name", LEVEL_DEFAULTS)
@pytest.mark.parametrize("value", ["50", None, 50.0, True, [], {}])
def test_rule_9_1_single_levels_must_be_integers(version: RoomVersion, name: str, value: Any) -> None:
    """Rule 10.1 in version 12."""
    assert not allowed(version, ADMIN, {}, {name: value})
    assert not allowed(version, CREATOR, None, {name: value})


@in_versions(10)
@pytest.mark.parametrize("name", ["events", "notifications"])
@pytest.mark.parametrize("value", [None, [], "x", {"x": "50"}, {"x": None}, {"x": 5.5}, {"x": False}])
def test_rule_9_2_maps_must_hold_integers(version: RoomVersion, name: str, value: Any) -> None:
    """Rule 10.2 in version 12."""
    assert not allowed(version, ADMIN, {}, {name: value})


@in_versions(1)
@pytest.mark.parametrize(
    "users",
    [
        None,
        [],
        "@user:two.example",
        {USER: None},
        {USER: "fifty"},
        {USER: []},
        {"user": 50},
        {"@user": 50},
        {"": 50},
        {"@user:": 50},
        {"@user:two.example\x00": 50},
        {f"@{'u' * 255}:two.example": 50},
    ],
)
def test_rule_10_1_users_must_be_users_with_levels(version: RoomVersion, users: Any) -> None:
    """Rule 9.1 in versions 6 to 9, 9.3 in 10 and 11, 10.3 in 12."""
    if isinstance(users, dict):
        users = usual_levels(version) | users
    assert not allowed(version, ADMIN, {}, {"users": users})
    assert not allowed(version, CREATOR, None, {"users": users})


@in_versions(1)
def test_rule_10_1_levels_in_strings_until_version_9(version: RoomVersion) -> None:
    users = {user_id: str(level) for user_id, level in usual_levels(version).items()}
    assert allowed(version, MODERATOR, {}, {"users": users}) == (version in versions(1, 9))


@in_versions(12)
def test_rule_10_4_creators_are_not_among_the_users(version: RoomVersion) -> None:
    users = usual_levels(version)
    assert not allowed(version, ADMIN, {}, {"users": users | {CREATOR: 100}})
    assert not allowed(version, CREATOR, {}, {"users": users | {CREATOR: 100}})
    assert not allowed(version, CREATOR, None, {"users": {CREATOR: 100}})
    state = usual_state(version, create(version, additional_creators=[USER]))
    pdu = event(version, "m.room.power_levels", sender=CREATOR, state_key="", content={"users": {USER: 1}})
    with pytest.raises(Forbidden):
        check_auth(pdu, state)


@in_versions(1, 11)
def test_creators_are_like_all_users_before_version_12(version: RoomVersion) -> None:
    assert allowed(version, ADMIN, {"users": {ADMIN: 100}}, {"users": {ADMIN: 100, CREATOR: 100}})


@in_versions(1)
def test_rule_10_2_the_first_power_levels_may_say_anything(version: RoomVersion) -> None:
    """Rule 9.2 in versions 6 to 9, 9.4 in 10 and 11, 10.5 in 12."""
    assert allowed(version, CREATOR, None, {"users": {ADMIN: 1000}, "ban": 5000})
    # But one must be allowed to send state, which without power levels the creator alone is.
    assert not allowed(version, ADMIN, None, {})


@in_versions(1)
@pytest.mark.parametrize("name", LEVEL_DEFAULTS)
def test_rule_10_3_single_levels(version: RoomVersion, name: str) -> None:
    """Rule 9.3 in versions 6 to 9, 9.5 in 10 and 11, 10.6 in 12."""
    # `users_default` and `state_default` at 0 keep the test about the changed level alone.
    low = {} if name == "users_default" else {name: 10}
    # Changed, added, removed within one's level.
    assert allowed(version, MODERATOR, {name: 10}, {name: 50})
    assert allowed(version, MODERATOR, {}, {name: 50})
    assert allowed(version, MODERATOR, low, {})
    # The new value is too high.
    assert not allowed(version, MODERATOR, {name: 10}, {name: 51})
    assert not allowed(version, MODERATOR, {}, {name: 51})
    # The current value is too high.
    if name != "users_default":
        assert not allowed(version, MODERATOR, {name: 51}, {name: 10})
        assert not allowed(version, MODERATOR, {name: 51}, {})
    assert allowed(version, ADMIN, {name: 51}, {name: 100})
    assert not allowed(version, ADMIN, {name: 51}, {name: 101})


@in_versions(1)
def test_rule_10_4_and_10_5_levels_of_events(version: RoomVersion) -> None:
    """Rules 9.4 and 9.5 in versions 6 to 9, 9.6 and 9.7 in 10 and 11, 10.7 and 10.8 in 12."""
    assert allowed(version, MODERATOR, {"events": {"a": 10}}, {"events": {"a": 50}})
    assert allowed(version, MODERATOR, {}, {"events": {"a": 50}})
    assert allowed(version, MODERATOR, {"events": {"a": 50}}, {})
    assert not allowed(version, MODERATOR, {"events": {"a": 10}}, {"events": {"a": 51}})
    assert not allowed(version, MODERATOR, {}, {"events": {"a": 51}})
    assert not allowed(version, MODERATOR, {"events": {"a": 51}}, {"events": {"a": 10}})
    assert not allowed(version, MODERATOR, {"events": {"a": 51}}, {})
    assert allowed(version, MODERATOR, {"events": {"a": 51}}, {"events": {"a": 51, "b": 3}})


@in_versions(1)
def test_rule_9_4_and_9_5_levels_of_notifications_from_version_6_on(version: RoomVersion) -> None:
    """Rules 9.6 and 9.7 in versions 10 and 11, 10.7 and 10.8 in 12."""
    checked = version in versions(6)
    assert allowed(version, MODERATOR, {"notifications": {"room": 10}}, {"notifications": {"room": 50}})
    assert allowed(version, MODERATOR, {}, {"notifications": {"room": 51}}) is not checked
    assert allowed(version, MODERATOR, {"notifications": {"room": 51}}, {}) is not checked
    assert allowed(version, MODERATOR, {"notifications": {"room": 51}}, {"notifications": {"room": 5}}) is not checked


@in_versions(1)
def test_rule_10_6_levels_of_others(version: RoomVersion) -> None:
    """Rule 9.6 in versions 6 to 9, 9.8 in 10 and 11, 10.9 in 12."""
    users = usual_levels(version)
    equal = users | {USER: 50}
    # Others at one's own level cannot be changed or removed, those below can.
    assert not allowed(version, MODERATOR, {"users": equal}, {"users": users | {USER: 10}})
    assert not allowed(version, MODERATOR, {"users": equal}, {"users": users})
    assert allowed(version, MODERATOR, {"users": users | {USER: 49}}, {"users": users})
    assert not allowed(version, MODERATOR, {}, {"users": users | {ADMIN: 10}})
    # One's own entry may go.
    assert allowed(version, MODERATOR, {}, {"users": users | {MODERATOR: 10}})
    assert allowed(version, MODERATOR, {}, {"users": {key: users[key] for key in users if key != MODERATOR}})


@in_versions(1)
def test_rule_10_7_levels_that_are_given(version: RoomVersion) -> None:
    """Rule 9.7 in versions 6 to 9, 9.9 in 10 and 11, 10.10 in 12."""
    users = usual_levels(version)
    assert allowed(version, MODERATOR, {}, {"users": users | {STRANGER: 50}})
    assert not allowed(version, MODERATOR, {}, {"users": users | {STRANGER: 51}})
    assert not allowed(version, MODERATOR, {}, {"users": users | {MODERATOR: 51}})
    assert allowed(version, MODERATOR, {"users": users | {USER: 10}}, {"users": users | {USER: 50}})
    assert not allowed(version, MODERATOR, {"users": users | {USER: 10}}, {"users": users | {USER: 51}})


@in_versions(12)
def test_creators_change_what_they_like(version: RoomVersion) -> None:
    top = 2**53 - 1
    old = {"users": {ADMIN: top}, "ban": top, "events": {"a": top}, "notifications": {"room": top}}
    assert allowed(version, CREATOR, old, {"users": {USER: top}, "kick": top})


@in_versions(1, 9)
def test_a_level_that_changes_only_its_spelling_has_not_changed(version: RoomVersion) -> None:
    users = usual_levels(version)
    assert allowed(version, MODERATOR, {"ban": 90}, {"ban": " +090 "})
    assert allowed(version, MODERATOR, {"users": users}, {"users": users | {ADMIN: "0100"}})


@in_versions(1)
def test_the_rule_holds_for_power_levels_with_a_state_key_too(version: RoomVersion) -> None:
    pdu = event(version, "m.room.power_levels", sender=MODERATOR, state_key="x", content={"users": {MODERATOR: 1000}})
    with pytest.raises(Forbidden):
        check_auth(pdu, usual_state(version, member(version, MODERATOR, "join")))
