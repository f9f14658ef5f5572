"""The conditions of push rules, compiled, and what they are asked about: an event, its room, and who receives it.

https://spec.matrix.org/v1.19/client-server-api/#conditions-1
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from homeserver.core.canonical_json import INTEGER_MAX
from homeserver.core.errors import BadJson
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.glob import Glob, contains_words, fold_case
from homeserver.core.ids import UserId
from homeserver.core.pdu import Pdu
from homeserver.core.property_paths import ABSENT, PropertyPath, find_property, parse_property_path

PATTERN_LENGTH_MAX: Final = 512
"""How many characters a pattern may have. The effort of matching grows with the text alone, its memory with this."""

_BODY: Final = ("content", "body")


class Owner(Enum):
    """The type of `OWNER`, which stands in the server-default rules for the user id of whoever has the rule."""

    OWNER = "owner"


OWNER: Final = Owner.OWNER


class PushEvent:
    """An event as push rules see it; what was looked up is kept for the rules of the next user."""

    __slots__ = ("_folded", "_json", "_values")

    def __init__(self, json: Mapping[str, Any]) -> None:
        """Wraps an event with its `sender`, `type`, `room_id` and `content`, as a client would see it."""
        self._json = json
        self._values: dict[PropertyPath, Any] = {}
        self._folded: dict[PropertyPath, str | None] = {}

    @classmethod
    def of_pdu(cls, pdu: Pdu) -> "PushEvent":
        """Wraps an event in the form of its room version, showing the properties that clients see."""
        json = {
            "content": pdu.content,
            "event_id": pdu.event_id,
            "origin_server_ts": pdu.origin_server_ts,
            "room_id": pdu.room_id,
            "sender": pdu.sender,
            "type": pdu.type,
        }
        if pdu.state_key is not None:
            json["state_key"] = pdu.state_key
        if pdu.redacts is not None:
            json["redacts"] = pdu.redacts
        return cls(json)

    @property
    def sender(self) -> str:
        """Who sent the event."""
        sender: str = self._json["sender"]
        return sender

    def value(self, path: PropertyPath) -> Any:
        """The value of a property, or `ABSENT`."""
        if path not in self._values:
            self._values[path] = find_property(self._json, path)
        return self._values[path]

    def folded_text(self, path: PropertyPath) -> str | None:
        """The value of a property without regard to case; None if it is no string."""
        if path not in self._folded:
            value = self.value(path)
            self._folded[path] = fold_case(value) if isinstance(value, str) else None
        return self._folded[path]


@dataclass(frozen=True, slots=True)
class PushContext:
    """What rules ask about the room, at the event.

    Attributes:
        member_count: how many users are joined.
        power_levels: the power levels in force.
    """

    member_count: int
    power_levels: PowerLevels


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whose rules are evaluated.

    Attributes:
        user_id: the user.
        display_name: the user's display name in the room; only rules with `reads_display_name` look at it.
    """

    user_id: UserId
    display_name: str | None = None


class Condition(Protocol):
    """A compiled condition."""

    def holds(self, event: PushEvent, context: PushContext, recipient: Recipient | None) -> bool:
        """Whether the condition holds; a recipient of None is a user whom the event does not name."""
        ...


@dataclass(frozen=True, slots=True)
class EventMatch:
    """`event_match`: a glob over a text, in the body over any words of it."""

    path: PropertyPath
    pattern: str
    glob: Glob

    @classmethod
    def compile(cls, path: PropertyPath, pattern: str) -> "EventMatch":
        """Compiles a pattern, which is matched without regard to case."""
        folded = fold_case(pattern)
        return cls(path=path, pattern=folded, glob=Glob.compile(folded))

    def holds(self, event: PushEvent, context: PushContext, recipient: Recipient | None) -> bool:
        """Whether the property is a text that matches."""
        text = event.folded_text(self.path)
        if text is None:
            return False
        return self.glob.matches_words(text) if self.path == _BODY else self.glob.matches(text)


@dataclass(frozen=True, slots=True)
class EventPropertyIs:
    """`event_property_is`: a property has exactly this value and type."""

    path: PropertyPath
    value: str | int | bool | None

    def holds(self, event: PushEvent, context: PushContext, recipient: Recipient | None) -> bool:
        """Whether the property has the value."""
        return _same(event.value(self.path), self.value)


@dataclass(frozen=True, slots=True)
class EventPropertyContains:
    """`event_property_contains`: a list holds exactly this value."""

    path: PropertyPath
    value: str | int | bool | None

    def holds(self, event: PushEvent, context: PushContext, recipient: Recipient | None) -> bool:
        """Whether the property is a list with the value."""
        values = event.value(self.path)
        return isinstance(values, list) and any(_same(value, self.value) for value in values)


@dataclass(frozen=True, slots=True)
class EventPropertyIsOwner:
    """A property is the recipient's user id."""

    path: PropertyPath

    def holds(self, event: PushEvent, context: PushContext, recipient: Recipient | None) -> bool:
        """Whether the property is the recipient's user id."""
        return recipient is not None and event.value(self.path) == recipient.user_id


@dataclass(frozen=True, slots=True)
class EventPropertyContainsOwner:
    """A list holds the recipient's user id."""

    path: PropertyPath

    def holds(self, event: PushEvent, context: PushContext, recipient: Recipient | None) -> bool:
        """Whether the property is a list with the recipient's user id."""
        values = event.value(self.path)
        return recipient is not None and isinstance(values, list) and recipient.user_id in values


@dataclass(frozen=True, slots=True)
class ContainsDisplayName:
    """`contains_display_name`: the recipient's display name stands in the body."""

    def holds(self, event: PushEvent, context: PushContext, recipient: Recipient | None) -> bool:
        """Whether the body holds the name, as whole words and without regard to case."""
        body = event.folded_text(_BODY)
        if body is None or recipient is None or not recipient.display_name:
            return False
        return contains_words(body, fold_case(recipient.display_name))


@dataclass(frozen=True, slots=True)
class RoomMemberCount:
    """`room_member_count`: a comparison of the number of joined users."""

    compare: Callable[[int, int], bool]
    count: int

    def holds(self, event: PushEvent, context: PushContext, recipient: Recipient | None) -> bool:
        """Whether the room has so many members."""
        return self.compare(context.member_count, self.count)


@dataclass(frozen=True, slots=True)
class SenderNotificationPermission:
    """`sender_notification_permission`: the sender may trigger notifications of this kind."""

    key: str

    def holds(self, event: PushEvent, context: PushContext, recipient: Recipient | None) -> bool:
        """Whether the sender's power level suffices."""
        levels = context.power_levels
        return levels.user_level(event.sender) >= levels.notification_level(self.key)


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """A condition that this server does not know: its rule never matches."""

    def holds(self, event: PushEvent, context: PushContext, recipient: Recipient | None) -> bool:
        """False."""
        return False


_COMPARISONS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": operator.eq,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "": operator.eq,
}
_KINDS: Final = frozenset(
    (
        "event_match",
        "event_property_is",
        "event_property_contains",
        "contains_display_name",
        "room_member_count",
        "sender_notification_permission",
    )
)


def check_condition(json: object) -> None:
    """Checks a condition that a user wants to store; conditions of kinds that are not known are welcome.

    Raises:
        BadJson: it is no object with a `kind`, or a parameter of its kind is missing or wrong.
    """
    if not isinstance(json, Mapping) or not isinstance(json.get("kind"), str):
        raise BadJson("A condition must be an object with a kind")
    if json["kind"] in _KINDS and isinstance(compile_condition(json), Unrecognised):
        raise BadJson(f"A condition of the kind {json['kind']} lacks a parameter, or has a wrong one")


def compile_condition(json: Mapping[str, Any]) -> Condition:
    """Compiles a condition; one that is not understood becomes `Unrecognised`."""
    key = json.get("key")
    path = parse_property_path(key) if isinstance(key, str) else None
    match json.get("kind"):
        case "event_match" if path is not None:
            pattern = json.get("pattern")
            if pattern is OWNER:
                return EventPropertyIsOwner(path)
            if isinstance(pattern, str) and len(pattern) <= PATTERN_LENGTH_MAX:
                return EventMatch.compile(path, pattern)
        case "event_property_is" if path is not None and _is_simple(json.get("value", ABSENT)):
            return EventPropertyIs(path, json["value"])
        case "event_property_contains" if path is not None:
            value = json.get("value", ABSENT)
            if value is OWNER:
                return EventPropertyContainsOwner(path)
            if _is_simple(value):
                return EventPropertyContains(path, value)
        case "contains_display_name":
            return ContainsDisplayName()
        case "room_member_count":
            return _compile_member_count(json.get("is"))
        case "sender_notification_permission" if isinstance(key, str):
            return SenderNotificationPermission(key)
    return Unrecognised()


def _compile_member_count(text: object) -> Condition:
    if not isinstance(text, str):
        return Unrecognised()
    prefix = next(prefix for prefix in _COMPARISONS if text.startswith(prefix))
    digits = text.removeprefix(prefix)
    # No room has members beyond 15 digits, and `int()` takes its time over long texts.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15):
        return Unrecognised()
    return RoomMemberCount(_COMPARISONS[prefix], int(digits))


def _is_simple(value: object) -> bool:
    """Whether a value is one that rules may ask for: a string, an integer of canonical JSON, a boolean or null."""
    if type(value) is int:
        return -INTEGER_MAX <= value <= INTEGER_MAX
    return value is None or isinstance(value, str | bool)


def _same(value: Any, wanted: str | int | bool | None) -> bool:
    """Equality of JSON, in which `true` is not 1 and 1.0 not 1; identifiers of ours are strings."""
    if isinstance(wanted, str):
        return isinstance(value, str) and value == wanted
    return type(value) is type(wanted) and value == wanted
