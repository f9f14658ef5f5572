"""The push rules of one user: the server's default rules, what the user changed of them, and rules of the user's own.

https://spec.matrix.org/v1.19/client-server-api/#push-rules-api
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import InvalidParam, NotFound, TooLarge, Unknown
from homeserver.core.glob import fold_case
from homeserver.core.property_paths import PropertyPath
from homeserver.core.push_rules.conditions import (
    Condition,
    ContainsDisplayName,
    EventMatch,
    EventPropertyIs,
    PushEvent,
)
from homeserver.core.push_rules.defaults import DEFAULT_RULES, MASTER
from homeserver.core.push_rules.rule import Actions, PushRule, PushRuleKind

RULES_MAX: Final = 1000
"""How many rules of their own users may have."""
RULE_SET_BYTES_MAX: Final = 262_144
"""How large all rules and changes of a user may be together, encoded; each sync after a change repeats them."""

_ANCHOR_PATHS: Final[tuple[PropertyPath, ...]] = (("room_id",), ("sender",), ("content", "msgtype"), ("type",))

_Anchor: TypeAlias = tuple[PropertyPath, str]
_Ranked: TypeAlias = tuple[int, PushRule]


@dataclass(frozen=True, slots=True)
class DefaultChange:
    """What a user changed of a default rule; None where it is as the server has it."""

    enabled: bool | None = None
    actions: Actions | None = None


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of one user. Immutable: a change makes another set.

    Attributes:
        user_rules: the user's own rules by kind, the most important first.
        default_changes: the changes of default rules by `rule_id`.
        reads_display_name: whether a rule needs the recipient's display name.
    """

    user_rules: Mapping[PushRuleKind, tuple[PushRule, ...]] = field(default_factory=dict)
    default_changes: Mapping[str, DefaultChange] = field(default_factory=dict)
    reads_display_name: bool = field(init=False, repr=False, compare=False)
    # Enabled rules with their rank. Rules that can only match events with a certain room, sender or type are found by
    # that, so that the many rooms a user has muted cost nothing in the others.
    _anchored: dict[_Anchor, list[_Ranked]] = field(init=False, repr=False, compare=False)
    _unanchored: list[_Ranked] = field(init=False, repr=False, compare=False)
    # The anchors of the rules that are not as the server has them; None if one of them has none.
    _own_anchors: frozenset[_Anchor] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        anchored: dict[_Anchor, list[_Ranked]] = {}
        unanchored: list[_Ranked] = []
        enabled = [rule for kind in PushRuleKind for rule in self.rules(kind) if rule.enabled]
        for ranked in enumerate(enabled):
            anchor = _anchor(ranked[1].conditions)
            (unanchored if anchor is None else anchored.setdefault(anchor, [])).append(ranked)
        conditions = (condition for rule in enabled for condition in rule.conditions)
        reads_display_name = any(isinstance(condition, ContainsDisplayName) for condition in conditions)
        object.__setattr__(self, "reads_display_name", reads_display_name)
        object.__setattr__(self, "_anchored", anchored)
        object.__setattr__(self, "_unanchored", unanchored)
        own = [rule for rules in self.user_rules.values() for rule in rules if rule.enabled]
        changed = [rule for kind in PushRuleKind for rule in self.rules(kind) if rule.rule_id in self.default_changes]
        anchors = {_anchor(rule.conditions) for rule in (*own, *changed)}
        object.__setattr__(self, "_own_anchors", None if None in anchors else frozenset(anchors))

    @property
    def is_default(self) -> bool:
        """Whether the user has changed nothing."""
        return not self.default_changes and not self.user_rules

    def rules(self, kind: PushRuleKind) -> list[PushRule]:
        """All rules of a kind, enabled or not, the most important first."""
        rules = [*self.user_rules.get(kind, ()), *map(self._as_changed, DEFAULT_RULES.get(kind, ()))]
        return [self._as_changed(MASTER), *rules] if kind is PushRuleKind.OVERRIDE else rules

    def candidates(self, event: PushEvent) -> Sequence[PushRule]:
        """The enabled rules that might match an event, the most important first."""
        ranked = self._unanchored
        for path in _ANCHOR_PATHS:
            text = event.folded_text(path)
            if text is not None and (found := self._anchored.get((path, text))):
                ranked = ranked + found
        return [rule for _, rule in sorted(ranked, key=_rank)]

    def may_deviate(self, event: PushEvent) -> bool:
        """Whether the outcome for an event may be another than that of the default rules."""
        if self._own_anchors is None:
            return True
        return any((path, event.folded_text(path)) in self._own_anchors for path in _ANCHOR_PATHS)

    def get_rule(self, kind: PushRuleKind, rule_id: str) -> PushRule:
        """One of the rules.

        Raises:
            NotFound: there is no such rule.
        """
        for rule in self.rules(kind):
            if rule.rule_id == rule_id:
                return rule
        raise NotFound("The push rule was not found")

    def with_rule(self, rule: PushRule, *, before: str | None = None, after: str | None = None) -> "RuleSet":
        """Adds a rule, or updates the rule of the same name, which stays enabled or disabled.

        Args:
            rule: from `PushRule.parse()`.
            before: the `rule_id` of the user's rule that comes right after it. It counts more than `after`.
            after: the `rule_id` of the user's rule that comes right before it. Without both, a new rule becomes the
                first of its kind, and another stays where it is.

        Raises:
            Unknown: `before` or `after` is not the name of another rule that the user made.
            InvalidParam: there are too many rules.
            TooLarge: the rules have become too large.
        """
        rules = self.user_rules.get(rule.kind, ())
        names = [each.rule_id for each in rules]
        index = names.index(rule.rule_id) if rule.rule_id in names else None
        if index is not None:
            rule = replace(rule, enabled=rules[index].enabled)
        elif sum(map(len, self.user_rules.values())) >= RULES_MAX:
            raise InvalidParam(f"There are {RULES_MAX} push rules already")
        others = [each for each in rules if each.rule_id != rule.rule_id]
        positions = {each.rule_id: position for position, each in enumerate(others)}
        if any(reference is not None and reference not in positions for reference in (before, after)):
            raise Unknown("before/after rule not found")
        if before is not None:
            index = positions[before]
        elif after is not None:
            index = positions[after] + 1
        others.insert(index or 0, rule)
        return self._with_rules(rule.kind, others)._checked()

    def without_rule(self, kind: PushRuleKind, rule_id: str) -> "RuleSet":
        """Removes a rule.

        Raises:
            NotFound: the user has made no such rule; default rules cannot be removed.
        """
        rules = self.user_rules.get(kind, ())
        others = [rule for rule in rules if rule.rule_id != rule_id]
        if len(others) == len(rules):
            raise NotFound("The push rule was not found")
        return self._with_rules(kind, others)

    def with_enabled(self, kind: PushRuleKind, rule_id: str, *, enabled: bool) -> "RuleSet":
        """Enables or disables a rule.

        Raises:
            NotFound: there is no such rule.
        """
        return self._with_changed(replace(self.get_rule(kind, rule_id), enabled=enabled))

    def with_actions(self, kind: PushRuleKind, rule_id: str, actions: Actions) -> "RuleSet":
        """Gives a rule other actions.

        Raises:
            NotFound: there is no such rule.
            TooLarge: the rules have become too large.
        """
        return self._with_changed(replace(self.get_rule(kind, rule_id), actions=actions))._checked()

    def to_json(self, user_id: str) -> dict[str, Any]:
        """All rules as the user with this id sees them: the answer of `GET /pushrules/`."""
        return {"global": {kind.value: [rule.to_json(user_id) for rule in self.rules(kind)] for kind in PushRuleKind}}

    def to_storage(self) -> dict[str, Any]:
        """What the user made and changed, as JSON for `from_storage()`."""
        rules = {kind.value: [rule.to_storage() for rule in rules] for kind, rules in self.user_rules.items()}
        changes = {}
        for rule_id, change in self.default_changes.items():
            changes[rule_id] = {
                **({} if change.enabled is None else {"enabled": change.enabled}),
                **({} if change.actions is None else {"actions": list(change.actions.json)}),
            }
        return {**({"rules": rules} if rules else {}), **({"defaults": changes} if changes else {})}

    @classmethod
    def from_storage(cls, json: Mapping[str, Any]) -> "RuleSet":
        """Reads what `to_storage()` made, also of a version of this server that had other default rules."""
        rules = {
            PushRuleKind(kind): tuple(PushRule.from_storage(PushRuleKind(kind), rule) for rule in rules)
            for kind, rules in json.get("rules", {}).items()
        }
        changes = {}
        for rule_id, change in json.get("defaults", {}).items():
            actions = Actions(tuple(change["actions"])) if "actions" in change else None
            changes[rule_id] = DefaultChange(enabled=change.get("enabled"), actions=actions)
        return cls(rules, changes)

    def _as_changed(self, rule: PushRule) -> PushRule:
        """A default rule with what the user changed of it."""
        change = self.default_changes.get(rule.rule_id)
        if change is None:
            return rule
        return replace(
            rule,
            enabled=rule.enabled if change.enabled is None else change.enabled,
            actions=rule.actions if change.actions is None else change.actions,
        )

    def _with_changed(self, rule: PushRule) -> "RuleSet":
        """Puts a rule in the place of the one of the same name."""
        if not rule.is_default:
            rules = self.user_rules[rule.kind]
            return self._with_rules(rule.kind, [rule if each.rule_id == rule.rule_id else each for each in rules])
        default = RuleSet().get_rule(rule.kind, rule.rule_id)
        change = DefaultChange(
            enabled=None if rule.enabled == default.enabled else rule.enabled,
            actions=None if rule.actions == default.actions else rule.actions,
        )
        changes = {rule_id: each for rule_id, each in self.default_changes.items() if rule_id != rule.rule_id}
        if change != DefaultChange():
            changes[rule.rule_id] = change
        return RuleSet(self.user_rules, changes)

    def _checked(self) -> "RuleSet":
        if len(encode_canonical(self.to_storage())) > RULE_SET_BYTES_MAX:
            raise TooLarge(f"The push rules are larger than {RULE_SET_BYTES_MAX} bytes")
        return self

    def _with_rules(self, kind: PushRuleKind, rules: Sequence[PushRule]) -> "RuleSet":
        changed = {**self.user_rules, kind: tuple(rules)}
        return RuleSet({kind: rules for kind, rules in changed.items() if rules}, self.default_changes)


def _rank(ranked: _Ranked) -> int:
    return ranked[0]


def _anchor(conditions: Sequence[Condition]) -> _Anchor | None:
    """A property and its text, without regard to case, without which the conditions cannot hold."""
    texts: dict[PropertyPath, str] = {}
    for condition in conditions:
        if isinstance(condition, EventMatch) and not set(condition.pattern) & set("*?"):
            texts[condition.path] = condition.pattern
        elif isinstance(condition, EventPropertyIs) and isinstance(condition.value, str):
            texts[condition.path] = fold_case(condition.value)
    return next(((path, texts[path]) for path in _ANCHOR_PATHS if path in texts), None)
