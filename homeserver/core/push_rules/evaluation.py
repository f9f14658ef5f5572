"""Evaluating push rules: for a user, and once for all users who have the default rules.

Events of the user's own and of users whom the user ignores are never to be evaluated; that is the caller's business.

https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from dataclasses import dataclass, field
from typing import Final

from homeserver.core.ids import UserId
from homeserver.core.push_rules.conditions import PushContext, PushEvent, Recipient
from homeserver.core.push_rules.rule import Actions, PushRule
from homeserver.core.push_rules.rule_set import RuleSet

DEFAULT_RULE_SET: Final = RuleSet()
"""The rules of a user who has changed nothing."""

_MENTIONED: Final = ("content", "m.mentions", "user_ids")


@dataclass(frozen=True, slots=True)
class DefaultOutcome:
    """What the default rules make of one event.

    Attributes:
        everyone: the actions for users whom the event does not name; None if no rule matches.
        named: the user ids, valid or not, that the event names: for these alone the outcome may differ.
    """

    everyone: Actions | None
    named: frozenset[str]
    _event: PushEvent = field(repr=False, compare=False)
    _context: PushContext = field(repr=False, compare=False)

    def for_user(self, user_id: UserId) -> Actions | None:
        """The actions for one user with the default rules; None if no rule matches."""
        if user_id not in self.named:
            return self.everyone
        return evaluate(DEFAULT_RULE_SET, self._event, self._context, Recipient(user_id))


def matching_rule(
    rule_set: RuleSet, event: PushEvent, context: PushContext, recipient: Recipient | None
) -> PushRule | None:
    """Finds the most important rule that matches; the arguments are those of `evaluate()`."""
    for rule in rule_set.candidates(event):
        if all(condition.holds(event, context, recipient) for condition in rule.conditions):
            return rule
    return None


def evaluate(rule_set: RuleSet, event: PushEvent, context: PushContext, recipient: Recipient | None) -> Actions | None:
    """What a user's rules make of an event.

    Args:
        rule_set: the recipient's rules.
        event: the event; share the value between recipients.
        context: of the room at the event.
        recipient: the owner of the rules; None is one whom the event does not name.

    Returns:
        The actions of the most important rule that matches, which may be none; None if no rule matches. Either way,
        without `notify` in them nobody is to be notified.
    """
    rule = matching_rule(rule_set, event, context, recipient)
    return None if rule is None else rule.actions


def evaluate_defaults(event: PushEvent, context: PushContext) -> DefaultOutcome:
    """Evaluates the default rules once for everybody in a room, however many there are."""
    mentioned = event.value(_MENTIONED)
    named = {user_id for user_id in mentioned if isinstance(user_id, str)} if isinstance(mentioned, list) else set()
    state_key = event.value(("state_key",))
    if isinstance(state_key, str):
        named.add(state_key)
    return DefaultOutcome(
        everyone=evaluate(DEFAULT_RULE_SET, event, context, None),
        named=frozenset(named),
        _event=event,
        _context=context,
    )
