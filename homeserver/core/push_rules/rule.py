"""One push rule: its kind, its actions, and its form in JSON.

https://spec.matrix.org/v1.19/client-server-api/#push-rules
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from homeserver.core.canonical_json import encode_strict
from homeserver.core.errors import BadJson, InvalidParam, MissingParam, TooLarge
from homeserver.core.push_rules.conditions import (
    OWNER,
    PATTERN_LENGTH_MAX,
    Condition,
    EventMatch,
    EventPropertyIs,
    Unrecognised,
    check_condition,
    compile_condition,
)
from homeserver.core.text import is_storable

RULE_ID_BYTES_MAX: Final = 255
RULE_BYTES_MAX: Final = 16_384
"""How large the conditions and the actions of one rule may be together, encoded."""

_HISTORICAL_ACTIONS: Final = frozenset(("dont_notify", "coalesce"))


class PushRuleKind(StrEnum):
    """The kinds of rules, in the order in which they are checked."""

    OVERRIDE = "override"
    CONTENT = "content"
    ROOM = "room"
    SENDER = "sender"
    UNDERRIDE = "underride"

    @classmethod
    def parse(cls, value: str) -> "PushRuleKind":
        """Reads a kind.

        Raises:
            InvalidParam: there is no such kind.
        """
        if value not in _KINDS:
            raise InvalidParam("Not a kind of push rules")
        return cls(value)

    @property
    def has_conditions(self) -> bool:
        """Whether rules of this kind list their conditions themselves."""
        return self in (PushRuleKind.OVERRIDE, PushRuleKind.UNDERRIDE)


_KINDS: Final = frozenset(PushRuleKind)


@dataclass(frozen=True, slots=True)
class Actions:
    """What happens with an event that a rule matches.

    Attributes:
        json: the actions as they were given, historical ones too, which have no effect.
        notify: the event is a notification.
        tweaks: what push gateways are told, such as `sound` and `highlight`.
    """

    json: tuple[Any, ...]
    notify: bool = field(init=False)
    tweaks: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        tweaks = {}
        for action in self.json:
            if isinstance(action, Mapping) and isinstance(name := action.get("set_tweak"), str):
                if "value" in action:
                    tweaks[name] = action["value"]
                elif name == "highlight":
                    tweaks[name] = True
        object.__setattr__(self, "notify", "notify" in self.json)
        object.__setattr__(self, "tweaks", tweaks)

    @classmethod
    def parse(cls, json: object) -> "Actions":
        """Checks actions that a user wants to store.

        Raises:
            BadJson: they are no list of strings and objects, or cannot be stored.
            InvalidParam: an action is not known.
            TooLarge: they are larger than `RULE_BYTES_MAX`.
        """
        if not isinstance(json, list):
            raise BadJson("actions must be a list")
        for action in json:
            if isinstance(action, str):
                if action != "notify" and action not in _HISTORICAL_ACTIONS:
                    raise InvalidParam("Not a known action")
            elif not isinstance(action, Mapping):
                raise BadJson("An action must be a string or an object")
            elif not isinstance(action.get("set_tweak"), str):
                raise InvalidParam("Not a known action")
        _check_storable(json)
        return cls(tuple(json))

    @property
    def highlight(self) -> bool:
        """Whether the event is a notification that is highlighted."""
        return self.notify and self.tweaks.get("highlight") is True


@dataclass(frozen=True, slots=True)
class PushRule:
    """A rule of one user or of the server.

    Attributes:
        kind: decides when the rule is checked.
        rule_id: unique within the kind; for `room` and `sender` the room and the sender that the rule is for.
        actions: what happens with matching events.
        conditions_json: the conditions as they were given, for `override` and `underride`.
        pattern: the glob that words of the body must match, for `content`.
        is_default: a rule of the server.
        enabled: a disabled rule never matches.
        conditions: all that must hold of an event, compiled.
    """

    kind: PushRuleKind
    rule_id: str
    actions: Actions
    conditions_json: tuple[Mapping[str, Any], ...] = ()
    pattern: str | None = None
    is_default: bool = False
    enabled: bool = True
    conditions: tuple[Condition, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", self._compile_conditions())

    def _compile_conditions(self) -> tuple[Condition, ...]:
        match self.kind:
            case PushRuleKind.ROOM:
                return (EventPropertyIs(("room_id",), self.rule_id),)
            case PushRuleKind.SENDER:
                return (EventPropertyIs(("sender",), self.rule_id),)
            case PushRuleKind.CONTENT:
                pattern = self.pattern
                return (Unrecognised() if pattern is None else EventMatch.compile(("content", "body"), pattern),)
            case PushRuleKind.OVERRIDE | PushRuleKind.UNDERRIDE:
                return tuple(compile_condition(json) for json in self.conditions_json)

    @classmethod
    def parse(cls, kind: PushRuleKind, rule_id: str, body: Mapping[str, Any]) -> "PushRule":
        """Reads a rule that a user wants to store.

        Args:
            kind: of the rule.
            rule_id: its name, as given by the user.
            body: with `actions`, and as the kind asks `conditions` or `pattern`; other members are passed over.

        Raises:
            BadJson: a member has a wrong type, or a condition lacks a parameter.
            InvalidParam: the name is not allowed, or an action not known.
            MissingParam: `actions` or `pattern` is absent.
            TooLarge: the rule is larger than `RULE_BYTES_MAX`.
        """
        _check_rule_id(rule_id)
        if "actions" not in body:
            raise MissingParam("A push rule needs actions")
        actions = Actions.parse(body["actions"])
        if kind is PushRuleKind.CONTENT:
            return cls(kind, rule_id, actions, pattern=_parse_pattern(body))
        if not kind.has_conditions:
            return cls(kind, rule_id, actions)
        conditions = body.get("conditions", [])
        if not isinstance(conditions, list):
            raise BadJson("conditions must be a list")
        for condition in conditions:
            check_condition(condition)
        _check_storable([conditions, body["actions"]])
        return cls(kind, rule_id, actions, conditions_json=tuple(conditions))

    def to_json(self, user_id: str) -> dict[str, Any]:
        """The rule as the user with this id sees it."""
        json: dict[str, Any] = {
            "rule_id": self.rule_id,
            "default": self.is_default,
            "enabled": self.enabled,
            "actions": list(self.actions.json),
        }
        if self.kind.has_conditions:
            json["conditions"] = [_with_owner(condition, user_id) for condition in self.conditions_json]
        if self.pattern is not None:
            json["pattern"] = self.pattern
        return json

    def to_storage(self) -> dict[str, Any]:
        """A rule of a user in a compact form for `from_storage()`, which needs the kind besides."""
        json: dict[str, Any] = {"rule_id": self.rule_id, "actions": list(self.actions.json)}
        if self.conditions_json:
            json["conditions"] = list(self.conditions_json)
        if self.pattern is not None:
            json["pattern"] = self.pattern
        if not self.enabled:
            json["enabled"] = False
        return json

    @classmethod
    def from_storage(cls, kind: PushRuleKind, json: Mapping[str, Any]) -> "PushRule":
        """Reads what `to_storage()` made."""
        return cls(
            kind,
            json["rule_id"],
            Actions(tuple(json["actions"])),
            conditions_json=tuple(json.get("conditions", ())),
            pattern=json.get("pattern"),
            enabled=json.get("enabled", True),
        )


def _check_rule_id(rule_id: str) -> None:
    if not rule_id or rule_id.startswith("."):
        raise InvalidParam("The name of a push rule is not empty and does not start with a dot")
    if "/" in rule_id or "\\" in rule_id or not is_storable(rule_id):
        raise InvalidParam("The name of a push rule has a character that is not allowed")
    if len(rule_id.encode()) > RULE_ID_BYTES_MAX:
        raise InvalidParam(f"The name of a push rule is longer than {RULE_ID_BYTES_MAX} bytes")


def _parse_pattern(body: Mapping[str, Any]) -> str:
    if "pattern" not in body:
        raise MissingParam("A content rule needs a pattern")
    pattern = body["pattern"]
    if not isinstance(pattern, str) or not is_storable(pattern):
        raise BadJson("pattern must be a string")
    if len(pattern) > PATTERN_LENGTH_MAX:
        raise InvalidParam(f"pattern is longer than {PATTERN_LENGTH_MAX} characters")
    return pattern


def _check_storable(json: Sequence[Any]) -> None:
    encoded = encode_strict(json)
    if len(encoded) > RULE_BYTES_MAX:
        raise TooLarge(f"A push rule is larger than {RULE_BYTES_MAX} bytes")
    # A NUL, but not a backslash that is followed by the text "u0000".
    if b"\\u0000" in encoded.replace(rb"\\", b""):
        raise BadJson("A push rule has a character that is not allowed")


def _with_owner(condition: Mapping[str, Any], user_id: str) -> dict[str, Any]:
    return {name: user_id if value is OWNER else value for name, value in condition.items()}
