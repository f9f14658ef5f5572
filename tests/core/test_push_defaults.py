"""The server-default push rules: what clients are shown of them, and what each of them matches."""

from typing import Any

import pytest

from homeserver.core.push_rules.conditions import PushContext, PushEvent
from homeserver.core.push_rules.evaluation import DEFAULT_RULE_SET, evaluate, matching_rule
from homeserver.core.push_rules.rule_set import RuleSet
from tests.core.push_values import (
    OTHER,
    OVERRIDE,
    OWNER,
    SENDER,
    context,
    event_match,
    message,
    push_event,
    recipient,
    rule,
    rule_set,
)

SOUND = {"set_tweak": "sound", "value": "default"}
RING = {"set_tweak": "sound", "value": "ring"}
HIGHLIGHT = {"set_tweak": "highlight"}
TWO_MEMBERS = {"kind": "room_member_count", "is": "2"}

# The specification's definitions: conditions and actions.
OVERRIDE_RULES: dict[str, tuple[list[Any], list[Any]]] = {
    ".m.rule.master": ([], []),
    ".m.rule.suppress_notices": ([event_match("content.msgtype", "m.notice")], []),
    ".m.rule.invite_for_me": (
        [
            event_match("type", "m.room.member"),
            event_match("content.membership", "invite"),
            event_match("state_key", OWNER),
        ],
        ["notify", SOUND],
    ),
    ".m.rule.member_event": ([event_match("type", "m.room.member")], []),
    ".m.rule.is_user_mention": (
        [{"kind": "event_property_contains", "key": r"content.m\.mentions.user_ids", "value": OWNER}],
        ["notify", SOUND, HIGHLIGHT],
    ),
    ".m.rule.is_room_mention": (
        [
            {"kind": "event_property_is", "key": r"content.m\.mentions.room", "value": True},
            {"kind": "sender_notification_permission", "key": "room"},
        ],
        ["notify", HIGHLIGHT],
    ),
    ".m.rule.tombstone": (
        [event_match("type", "m.room.tombstone"), event_match("state_key", "")],
        ["notify", HIGHLIGHT],
    ),
    ".m.rule.reaction": ([event_match("type", "m.reaction")], []),
    ".m.rule.room.server_acl": ([event_match("type", "m.room.server_acl"), event_match("state_key", "")], []),
    ".m.rule.suppress_edits": (
        [{"kind": "event_property_is", "key": r"content.m\.relates_to.rel_type", "value": "m.replace"}],
        [],
    ),
}
UNDERRIDE_RULES: dict[str, tuple[list[Any], list[Any]]] = {
    ".m.rule.call": ([event_match("type", "m.call.invite")], ["notify", RING]),
    ".m.rule.encrypted_room_one_to_one": (
        [TWO_MEMBERS, event_match("type", "m.room.encrypted")],
        ["notify", SOUND],
    ),
    ".m.rule.room_one_to_one": ([TWO_MEMBERS, event_match("type", "m.room.message")], ["notify", SOUND]),
    ".m.rule.message": ([event_match("type", "m.room.message")], ["notify"]),
    ".m.rule.encrypted": ([event_match("type", "m.room.encrypted")], ["notify"]),
}


@pytest.mark.parametrize(("kind", "rules"), [("override", OVERRIDE_RULES), ("underride", UNDERRIDE_RULES)])
def test_clients_are_shown_the_rules_of_the_specification_in_its_order(kind: str, rules: dict[str, Any]) -> None:
    assert RuleSet().to_json(OWNER)["global"][kind] == [
        {
            "rule_id": rule_id,
            "default": True,
            "enabled": rule_id != ".m.rule.master",
            "conditions": conditions,
            "actions": actions,
        }
        for rule_id, (conditions, actions) in rules.items()
    ]


@pytest.mark.parametrize("kind", ["content", "room", "sender"])
def test_there_are_no_default_rules_of_other_kinds(kind: str) -> None:
    assert RuleSet().to_json(OWNER)["global"][kind] == []


def match(event: PushEvent, room: PushContext | None = None, rules: RuleSet = DEFAULT_RULE_SET) -> str | None:
    matching = matching_rule(rules, event, room or context(), recipient("Owner"))
    return None if matching is None else matching.rule_id


def member_event(state_key: str, membership: str) -> PushEvent:
    return push_event("m.room.member", state_key=state_key, content={"membership": membership})


def mention(*user_ids: Any, **content: Any) -> PushEvent:
    return message(**{"m.mentions": {"user_ids": list(user_ids)}, **content})


def room_mention(value: Any, **content: Any) -> PushEvent:
    return message(**{"m.mentions": {"room": value}, **content})


EDIT = {"m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}}
MODERATED = context(users={SENDER: 50})
PAIR = context(member_count=2)


@pytest.mark.parametrize(
    ("event", "room", "expected"),
    [
        (message(msgtype="m.notice"), None, ".m.rule.suppress_notices"),
        (mention(OWNER, msgtype="m.notice"), None, ".m.rule.suppress_notices"),
        (message(msgtype="m.notices"), None, ".m.rule.message"),
        (member_event(OWNER, "invite"), None, ".m.rule.invite_for_me"),
        (member_event(OTHER, "invite"), None, ".m.rule.member_event"),
        (member_event(OWNER, "join"), None, ".m.rule.member_event"),
        (member_event(OWNER, "ban"), PAIR, ".m.rule.member_event"),
        (mention(OWNER), None, ".m.rule.is_user_mention"),
        (mention(OTHER, None, 7, OWNER), PAIR, ".m.rule.is_user_mention"),
        (mention(OWNER, **EDIT), None, ".m.rule.is_user_mention"),
        (
            push_event("m.room.encrypted", content={"m.mentions": {"user_ids": [OWNER]}}),
            None,
            ".m.rule.is_user_mention",
        ),
        (mention(OTHER), None, ".m.rule.message"),
        (mention(OWNER.upper()), None, ".m.rule.message"),
        (mention(), None, ".m.rule.message"),
        (message(**{"m.mentions": {"user_ids": OWNER}}), None, ".m.rule.message"),
        (message(**{"m.mentions": [OWNER]}), None, ".m.rule.message"),
        (room_mention(True), MODERATED, ".m.rule.is_room_mention"),
        (room_mention(True), None, ".m.rule.message"),
        (room_mention("true"), MODERATED, ".m.rule.message"),
        (room_mention(1), MODERATED, ".m.rule.message"),
        (push_event("m.room.tombstone", state_key=""), None, ".m.rule.tombstone"),
        (push_event("m.room.tombstone"), None, None),
        (push_event("m.room.tombstone", state_key="x"), None, None),
        (push_event("m.reaction"), PAIR, ".m.rule.reaction"),
        (push_event("m.reactions"), PAIR, None),
        (push_event("m.room.server_acl", state_key=""), None, ".m.rule.room.server_acl"),
        (push_event("m.room.server_acl"), None, None),
        (message(**EDIT), PAIR, ".m.rule.suppress_edits"),
        (message(**{"m.relates_to": {"rel_type": "m.thread"}}), None, ".m.rule.message"),
        (push_event("m.call.invite"), PAIR, ".m.rule.call"),
        (push_event("m.call.answer"), PAIR, None),
        (push_event("m.room.encrypted"), PAIR, ".m.rule.encrypted_room_one_to_one"),
        (push_event("m.room.encrypted"), context(member_count=3), ".m.rule.encrypted"),
        (push_event("m.room.encrypted"), context(member_count=1), ".m.rule.encrypted"),
        (message(), PAIR, ".m.rule.room_one_to_one"),
        (message(), context(member_count=3), ".m.rule.message"),
        (push_event("m.sticker"), PAIR, None),
        (push_event("m.room.name", state_key="", content={"name": "Owner"}), PAIR, None),
    ],
)
def test_which_default_rule_matches(event: PushEvent, room: PushContext | None, expected: str | None) -> None:
    assert match(event, room) == expected


@pytest.mark.parametrize("body", ["hello Owner", "hello owner", "@owner:example.org", "@room"])
def test_the_legacy_mentions_in_the_body_are_gone(body: str) -> None:
    assert match(message(body), MODERATED) == ".m.rule.message"


def test_the_master_rule_matches_nothing_unless_it_is_enabled() -> None:
    rules = rule_set(rule(OVERRIDE, "all")).with_enabled(OVERRIDE, ".m.rule.master", enabled=True)
    assert match(message(), rules=rule_set(rule(OVERRIDE, "all"))) == "all"
    for event in (message(), mention(OWNER), member_event(OWNER, "invite"), push_event("org.example")):
        assert match(event, rules=rules) == ".m.rule.master"
        actions = evaluate(rules, event, context(), recipient())
        assert actions is not None
        assert not actions.notify


def test_a_disabled_default_rule_does_not_match() -> None:
    rules = RuleSet().with_enabled(OVERRIDE, ".m.rule.suppress_notices", enabled=False)
    assert match(message(msgtype="m.notice"), rules=rules) == ".m.rule.message"
