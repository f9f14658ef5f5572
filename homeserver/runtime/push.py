"""Builds what push rules are made of: the rules, their evaluation, and the counts of what is unread."""

from collections.abc import Sequence
from dataclasses import dataclass

from client_api.sections import push_rules
from homeserver.runtime.accounts import Means
from homeserver.runtime.application import BackgroundTask
from homeserver.services.push.counts import UnreadCounts
from homeserver.services.push.rule_sets import RuleChanges, RuleSets
from homeserver.services.push.rules import PushRules
from homeserver.services.push.sweep import PushSweep
from homeserver.services.rooms.push_evaluation import PushEvaluation
from homeserver.services.stream.hub import Hub
from homeserver.web.endpoint import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """What others build upon, all endpoints, and what runs beside the listeners."""

    evaluation: PushEvaluation
    rules: PushRules
    unread_counts: UnreadCounts
    sections: Sequence[Section]
    background: Sequence[BackgroundTask]


def compose_push(means: Means, *, hub: Hub) -> Push:
    """Builds the services and their endpoints."""
    db, clock = means.db, means.clock
    rule_sets = RuleSets(db=db)
    rules = PushRules(db=db, bus=means.bus, rule_sets=rule_sets)
    changes = RuleChanges(db=db, hub=hub, clock=clock, rule_sets=rule_sets)
    return Push(
        evaluation=PushEvaluation(db=db, server_name=means.config.server_name, rule_sets=rule_sets),
        rules=rules,
        unread_counts=UnreadCounts(),
        sections=(push_rules.section(rules),),
        background=(
            BackgroundTask("push_rule_changes", changes.run),
            BackgroundTask("push_sweep", PushSweep(db=db, clock=clock).run),
        ),
    )
