"""The power levels of a room as a typed value, read the way the room's version says.

Versions 1 to 9 also accept strings, versions 1 to 5 floats as well, version 10 and later integers alone. From version
12 on the creators stand above every number.

https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from homeserver.core.errors import Forbidden
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import RoomVersion

Level: TypeAlias = int | float
"""A power level: an integer, or `CREATOR_LEVEL`."""

CREATOR_LEVEL: Final = math.inf
"""The level of a creator in version 12 and later: equal to itself and above every integer."""

LEVEL_DEFAULTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "users_default": 0,
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "redact": 50,
        "kick": 50,
        "invite": 0,
    }
)
"""The single levels of `m.room.power_levels`, each with the value that holds where it is absent."""

_NOTIFICATION_LEVEL_DEFAULT: Final = 50
_CREATOR_LEVEL_WITHOUT_POWER_LEVELS: Final = 100

# What a binary64 holds: the bound that versions 1 to 5 set for numbers. It also keeps `int()` of long strings cheap.
_LEVEL_DIGITS_MAX: Final = 308


def _parse_level(value: object, room_version: RoomVersion) -> int | None:
    """Reads one level; None if it is none in this room version."""
    if type(value) is int:
        return value
    if room_version.integer_power_levels:
        return None
    if isinstance(value, str):
        return _parse_level_string(value)
    if isinstance(value, float) and not room_version.strict_canonical_json and math.isfinite(value):
        return math.trunc(value)
    return None


def _parse_level_string(text: str) -> int | None:
    """Reads a level in a string: white space, a sign, zeros and digits. `int()` would take more than that."""
    text = text.strip()
    digits = text[1:] if text.startswith(("+", "-")) else text
    if not (digits.isascii() and digits.isdigit()):
        return None
    digits = digits.lstrip("0") or "0"
    if len(digits) > _LEVEL_DIGITS_MAX:
        return None
    return -int(digits) if text.startswith("-") else int(digits)


def _parse_levels(content: Mapping[str, Any], key: str, room_version: RoomVersion) -> Mapping[str, int]:
    """Reads a map of levels in the content, which is empty where it is absent.

    Raises:
        Forbidden: it is no map of levels.
    """
    levels = content.get(key, {})
    if not isinstance(levels, Mapping):
        raise Forbidden(f"'{key}' in the power levels must be an object")
    if all(type(level) is int for level in levels.values()):
        return levels
    parsed = {}
    for entry, value in levels.items():
        level = _parse_level(value, room_version)
        if level is None:
            raise Forbidden(f"'{key}' in the power levels holds something that is not a level")
        parsed[entry] = level
    return parsed


def _parse_notifications(content: Mapping[str, Any], room_version: RoomVersion) -> Mapping[str, int]:
    """Reads `notifications`, which no rule of versions 1 to 5 looks at: there, what is no level is left out."""
    if room_version.notifications_levels_checked:
        return _parse_levels(content, "notifications", room_version)
    levels = content.get("notifications")
    if not isinstance(levels, Mapping):
        return {}
    parsed = {entry: _parse_level(value, room_version) for entry, value in levels.items()}
    return {entry: level for entry, level in parsed.items() if level is not None}


@dataclass(frozen=True, slots=True)
class PowerLevels:
    """The power levels of a room at some moment. Immutable, so callers may keep one for each event.

    Attributes:
        named: those of the single levels (`ban`, `state_default`, ...) that are present.
        users: the levels of users by user id.
        events: the levels that event types require.
        notifications: the levels that notifications require, by kind (`room`).
        creators: the users who have `creator_level` whatever the rest says.
        creator_level: what the creators have.
    """

    named: Mapping[str, int]
    users: Mapping[str, int]
    events: Mapping[str, int]
    notifications: Mapping[str, int]
    creators: frozenset[str] = frozenset()
    creator_level: Level = CREATOR_LEVEL

    @classmethod
    def parse(
        cls, content: Mapping[str, Any], room_version: RoomVersion, *, creators: frozenset[str] = frozenset()
    ) -> "PowerLevels":
        """Reads the content of an `m.room.power_levels` event.

        Args:
            content: of the event.
            room_version: of the room.
            creators: who stands above all numbers; only in version 12 and later is there anybody.

        Raises:
            Forbidden: the content does not have the form that the room version demands.
        """
        named = {}
        for name in LEVEL_DEFAULTS:
            if name in content:
                level = _parse_level(content[name], room_version)
                if level is None:
                    raise Forbidden(f"'{name}' in the power levels is not a level")
                named[name] = level
        return cls(
            named=named,
            users=_parse_levels(content, "users", room_version),
            events=_parse_levels(content, "events", room_version),
            notifications=_parse_notifications(content, room_version),
            creators=creators,
        )

    @classmethod
    def in_force(cls, power_levels: Pdu | None, create: Pdu) -> "PowerLevels":
        """The power levels of a room whose state holds these two events.

        Args:
            power_levels: the `m.room.power_levels` event of the state, if there is one.
            create: the room's `m.room.create` event.

        Raises:
            Forbidden: the power levels event does not have the form that the room version demands.
        """
        room_version = create.room_version
        if power_levels is not None:
            creators = room_creators(create) if room_version.creators_in_control else frozenset()
            return cls.parse(power_levels.content, room_version, creators=creators)
        level = CREATOR_LEVEL if room_version.creators_in_control else _CREATOR_LEVEL_WITHOUT_POWER_LEVELS
        return cls(named={}, users={}, events={}, notifications={}, creators=room_creators(create), creator_level=level)

    def user_level(self, user_id: str) -> Level:
        """The level of a user."""
        if user_id in self.creators:
            return self.creator_level
        level = self.users.get(user_id)
        return self.named_level("users_default") if level is None else level

    def event_level(self, event_type: str, *, is_state: bool) -> int:
        """The required power level of an event type."""
        level = self.events.get(event_type)
        if level is not None:
            return level
        return self.named_level("state_default" if is_state else "events_default")

    def notification_level(self, kind: str) -> int:
        """The level that a notification of a kind (`room`) requires of the sender."""
        return self.notifications.get(kind, _NOTIFICATION_LEVEL_DEFAULT)

    def named_level(self, name: str) -> int:
        """One of the single levels, or its default."""
        return self.named.get(name, LEVEL_DEFAULTS[name])

    @property
    def ban(self) -> int:
        """The ban level."""
        return self.named_level("ban")

    @property
    def invite(self) -> int:
        """The invite level."""
        return self.named_level("invite")

    @property
    def kick(self) -> int:
        """The kick level."""
        return self.named_level("kick")

    @property
    def redact(self) -> int:
        """The redact level."""
        return self.named_level("redact")


def room_creator(create: Pdu) -> str | None:
    """The one creator that the rules of versions 1 to 11 know; None if the create event names none."""
    creator = create.sender if create.room_version.implicit_room_creator else create.content.get("creator")
    return creator if isinstance(creator, str) else None


def room_creators(create: Pdu) -> frozenset[str]:
    """The creators of a room: one until version 11, from version 12 on also the `additional_creators`."""
    creator = room_creator(create)
    creators = frozenset() if creator is None else frozenset({creator})
    additional = create.content.get("additional_creators")
    if create.room_version.creators_in_control and isinstance(additional, list):
        creators |= {user_id for user_id in additional if isinstance(user_id, str)}
    return creators
