"""Power levels: what each room version reads as a level, and who has which."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.power_levels import CREATOR_LEVEL, LEVEL_DEFAULTS, PowerLevels
from homeserver.core.room_versions import RoomVersion
from tests.core.room_values import ADMIN, CREATOR, STRANGER, USER, VERSIONS, create, power_levels, versions

V1, V5, V6, V9, V10, V11, V12 = (VERSIONS[number - 1] for number in (1, 5, 6, 9, 10, 11, 12))


def parsed(version: RoomVersion, **content: Any) -> PowerLevels:
    return PowerLevels.parse(content, version)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.identifier)
def test_defaults_with_an_empty_power_levels_event(version: RoomVersion) -> None:
    levels = parsed(version)
    assert (levels.ban, levels.kick, levels.redact, levels.invite) == (50, 50, 50, 0)
    assert levels.user_level(USER) == 0
    assert levels.event_level("m.room.topic", is_state=True) == 50
    assert levels.event_level("m.room.message", is_state=False) == 0
    assert levels.notification_level("room") == 50


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.identifier)
def test_defaults_without_a_power_levels_event(version: RoomVersion) -> None:
    levels = PowerLevels.in_force(None, create(version))
    assert levels.user_level(CREATOR) == (CREATOR_LEVEL if version is V12 else 100)
    assert levels.user_level(ADMIN) == 0
    assert levels.event_level("m.room.topic", is_state=True) == 50
    assert levels.event_level("m.room.message", is_state=False) == 0
    assert (levels.ban, levels.kick, levels.redact, levels.invite) == (50, 50, 50, 0)


def test_s9_events_default_is_not_taken_for_another_default() -> None:
    levels = parsed(V11, events_default=7, state_default=8, users_default=9, events={"m.room.name": 30})
    assert levels.event_level("m.room.message", is_state=False) == 7
    assert levels.event_level("m.room.topic", is_state=True) == 8
    assert levels.event_level("m.room.name", is_state=True) == 30
    assert levels.user_level(STRANGER) == 9


def test_the_creator_of_an_old_room_has_no_privilege_once_there_are_power_levels() -> None:
    assert PowerLevels.in_force(power_levels(V11, users={ADMIN: 100}), create(V11)).user_level(CREATOR) == 0


def test_before_version_11_the_content_names_the_creator() -> None:
    assert PowerLevels.in_force(None, create(V10, creator=ADMIN)).user_level(ADMIN) == 100
    assert PowerLevels.in_force(None, create(V10, creator=ADMIN)).user_level(CREATOR) == 0
    assert PowerLevels.in_force(None, create(V11, creator=ADMIN)).user_level(ADMIN) == 0
    assert PowerLevels.in_force(None, create(V10, creator=5)).user_level(CREATOR) == 0


@pytest.mark.parametrize("event", [None, power_levels(V12, users={ADMIN: 2**53 - 1}, users_default=3)])
def test_creators_stand_above_every_number_in_version_12(event: Any) -> None:
    levels = PowerLevels.in_force(event, create(V12, additional_creators=[STRANGER]))
    assert levels.user_level(CREATOR) == levels.user_level(STRANGER) == CREATOR_LEVEL
    assert levels.user_level(CREATOR) > 10**400 > levels.user_level(ADMIN)
    assert not levels.user_level(CREATOR) > levels.user_level(STRANGER)


def test_additional_creators_mean_nothing_before_version_12() -> None:
    assert PowerLevels.in_force(None, create(V11, additional_creators=[STRANGER])).user_level(STRANGER) == 0


@pytest.mark.parametrize("text", ["100", "000100", "+100", " 100 ", " 00100 ", " +100 ", "\t+000100\n"])
@pytest.mark.parametrize("version", versions(1, 9), ids=lambda version: version.identifier)
def test_s9_strings_are_levels_until_version_9(version: RoomVersion, text: str) -> None:
    levels = parsed(version, ban=text, users={USER: text}, events={"m.room.name": text}, notifications={"room": text})
    assert levels.ban == levels.user_level(USER) == levels.notification_level("room") == 100
    assert levels.event_level("m.room.name", is_state=True) == 100


def test_the_largest_level_in_a_string() -> None:
    assert parsed(V9, ban="9" * 308).ban == 10**308 - 1


def test_negative_levels_in_strings() -> None:
    assert parsed(V9, users={USER: " -0050 "}).user_level(USER) == -50
    assert parsed(V9, users={USER: "-0"}).user_level(USER) == 0


@pytest.mark.parametrize(
    "text", ["", " ", "+", "-", "+-1", "1 0", "+ 1", "1_000", "10.0", "1e2", "0x10", "ten", "१००", "²", "1" * 309]
)
def test_s9_strings_that_are_no_levels(text: str) -> None:
    for content in ({"ban": text}, {"users": {USER: text}}, {"events": {"m.room.name": text}}):
        with pytest.raises(Forbidden):
            PowerLevels.parse(content, V9)


@pytest.mark.parametrize("version", versions(10), ids=lambda version: version.identifier)
@pytest.mark.parametrize("value", ["100", 1.0, True, None, [], {}])
def test_s9_only_integers_are_levels_from_version_10_on(version: RoomVersion, value: Any) -> None:
    for content in (
        *({name: value} for name in LEVEL_DEFAULTS),
        {"users": {USER: value}},
        {"events": {"m.room.name": value}},
        {"notifications": {"room": value}},
    ):
        with pytest.raises(Forbidden):
            PowerLevels.parse(content, version)


@pytest.mark.parametrize("version", versions(1, 5), ids=lambda version: version.identifier)
def test_floats_are_cut_off_until_version_5(version: RoomVersion) -> None:
    levels = parsed(version, users={USER: 50.57, ADMIN: 5.114698e4, STRANGER: -1.9})
    assert [levels.user_level(user_id) for user_id in (USER, ADMIN, STRANGER)] == [50, 51146, -1]
    for value in (float("inf"), float("-inf"), float("nan")):
        with pytest.raises(Forbidden):
            parsed(version, ban=value)


@pytest.mark.parametrize("version", versions(6), ids=lambda version: version.identifier)
def test_s9_floats_are_no_levels_from_version_6_on(version: RoomVersion) -> None:
    with pytest.raises(Forbidden):
        parsed(version, users={USER: 50.0})


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.identifier)
@pytest.mark.parametrize("key", ["users", "events"])
@pytest.mark.parametrize("value", [None, [], "100", 100])
def test_maps_of_levels_must_be_objects(version: RoomVersion, key: str, value: Any) -> None:
    with pytest.raises(Forbidden):
        PowerLevels.parse({key: value}, version)


def test_no_rule_before_version_6_looks_at_notifications() -> None:
    values: list[Any] = [None, [], "room", {"room": None, "other": "60"}]
    for value in values:
        assert parsed(V5, notifications=value).notification_level("room") == 50
    assert parsed(V5, notifications={"room": [], "other": "60"}).notification_level("other") == 60
    with pytest.raises(Forbidden):
        parsed(V6, notifications={"room": []})


def test_a_long_string_is_read_in_linear_time() -> None:
    assert parsed(V1, ban="0" * 60_000 + "7").ban == 7
    for text in ("0" * 60_000 + "x", " " * 60_000 + "x", "9" * 60_000):
        with pytest.raises(Forbidden):
            parsed(V1, ban=text)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
JSON = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=3)


@settings(deadline=None)
@given(
    version=st.sampled_from(VERSIONS),
    content=st.dictionaries(st.sampled_from([*LEVEL_DEFAULTS, "users", "events", "notifications"]), JSON, max_size=5),
)
def test_any_content_is_read_or_refused(version: RoomVersion, content: dict[str, Any]) -> None:
    try:
        levels = PowerLevels.parse(content, version)
    except Forbidden:
        return
    found = [*levels.named.values(), *levels.users.values(), *levels.events.values(), *levels.notifications.values()]
    assert all(type(level) is int for level in found)


@settings(deadline=None)
@given(number=st.integers(), zeros=st.integers(0, 5), before=st.text(" \t\n"), after=st.text(" \t\n"))
def test_every_integer_can_be_a_string_in_version_9(number: int, zeros: int, before: str, after: str) -> None:
    sign = "-" if number < 0 else ""
    text = f"{before}{sign}{'0' * zeros}{abs(number)}{after}"
    assert parsed(V9, ban=text).ban == parsed(V9, ban=number).ban == number
