"""Relationships between events."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.ids import EventId, RoomId
from homeserver.core.pdu import Pdu
from homeserver.core.redaction import redact
from homeserver.core.relations import (
    Relation,
    ThreadSummary,
    bundle_relations,
    is_valid_replacement,
    may_be_annotated,
    may_start_thread,
    relation_of,
    replacement_order,
    reply_of,
    thread_root_of,
)
from homeserver.core.room_versions import DEFAULT_ROOM_VERSION
from tests.core.room_values import ADMIN, USER, VERSIONS, event

PARENT = EventId("$parent")


def relating(rel_type: str, **members: Any) -> dict[str, Any]:
    """A content that relates to `PARENT`."""
    return {"m.relates_to": {"rel_type": rel_type, "event_id": PARENT, **members}}


def message(*, sender: str = USER, **members: Any) -> Pdu:
    members = {"content": {"body": "hello"}, **members}
    return event(DEFAULT_ROOM_VERSION, members.pop("type", "m.room.message"), sender=sender, **members)


NEW_CONTENT = {**relating("m.replace"), "m.new_content": {"body": "hello again"}}


def test_the_relationships_of_the_specification() -> None:
    assert relation_of(relating("m.annotation", key="👍")) == Relation("m.annotation", PARENT, key="👍")
    assert relation_of(relating("m.replace")) == Relation("m.replace", PARENT)
    assert relation_of(relating("m.reference")) == Relation("m.reference", PARENT)
    assert relation_of(relating("org.example.relationship")) == Relation("org.example.relationship", PARENT)
    assert relation_of(relating("m.thread")) == Relation("m.thread", PARENT)
    fallback = {"m.in_reply_to": {"event_id": "$target"}, "is_falling_back": True}
    assert relation_of(relating("m.thread", **fallback)) == Relation(
        "m.thread", PARENT, is_falling_back=True, in_reply_to=EventId("$target")
    )


def test_a_rich_reply_alone_is_no_relationship() -> None:
    content = {"m.relates_to": {"m.in_reply_to": {"event_id": "$target"}}}
    assert relation_of(content) is None
    assert reply_of(content) == "$target"
    assert reply_of(relating("m.thread")) is None
    assert reply_of({}) is None


@pytest.mark.parametrize(
    "relates_to",
    [
        None,
        [],
        "m.thread",
        {},
        {"rel_type": "m.thread"},
        {"event_id": "$a"},
        {"rel_type": "m.thread", "event_id": "a"},
        {"rel_type": "m.thread", "event_id": "$"},
        {"rel_type": "m.thread", "event_id": "$a\0"},
        {"rel_type": "m.thread", "event_id": "$" + "a" * 255},
        {"rel_type": "m.thread", "event_id": ["$a"]},
        {"rel_type": 7, "event_id": "$a"},
        {"rel_type": "", "event_id": "$a"},
        {"rel_type": "a\0b", "event_id": "$a"},
        {"rel_type": "\ud800", "event_id": "$a"},
        {"rel_type": "ä" * 128, "event_id": "$a"},
    ],
)
def test_relationships_of_a_wrong_form_are_none(relates_to: Any) -> None:
    assert relation_of({"m.relates_to": relates_to}) is None


@pytest.mark.parametrize("wrong", [7, None, {}, ["👍"], "a\0b", "\ud800"])
def test_wrong_members_beside_a_relationship_are_left_out(wrong: Any) -> None:
    content = relating("m.annotation", **{"key": wrong, "is_falling_back": wrong, "m.in_reply_to": wrong})
    assert relation_of(content) == Relation("m.annotation", PARENT)
    assert relation_of(relating("m.thread", **{"m.in_reply_to": {"event_id": wrong}})) == Relation("m.thread", PARENT)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["rel_type", "event_id", "key", "m.in_reply_to"]), inner, max_size=4)
        ),
    )
)
def test_any_content_is_read(relates_to: Any) -> None:
    relation = relation_of({"m.relates_to": relates_to})
    assert relation is None or relation.event_id.startswith("$")


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.identifier)
@pytest.mark.parametrize("rel_type", ["m.annotation", "m.replace", "m.reference", "m.thread", "org.example"])
def test_redaction_breaks_every_relationship(version: Any, rel_type: str) -> None:
    json = {"type": "m.room.message", "content": relating(rel_type)}
    assert relation_of(redact(json, version)["content"]) is None


def test_a_valid_replacement() -> None:
    assert is_valid_replacement(original=message(), replacement=message(content=NEW_CONTENT))
    reply = message(content={"body": "hi", "m.relates_to": {"m.in_reply_to": {"event_id": "$target"}}})
    assert is_valid_replacement(original=reply, replacement=message(content=NEW_CONTENT))
    in_thread = message(content=relating("m.thread"))
    assert is_valid_replacement(original=in_thread, replacement=message(content=NEW_CONTENT))


def test_the_new_content_of_an_encrypted_replacement_is_not_asked_for() -> None:
    encrypted = message(type="m.room.encrypted")
    assert is_valid_replacement(
        original=encrypted, replacement=message(type="m.room.encrypted", content=relating("m.replace"))
    )


@pytest.mark.parametrize(
    ("original", "replacement"),
    [
        ({"room": RoomId("!other")}, {}),
        ({"sender": ADMIN}, {}),
        ({"type": "m.room.encrypted"}, {}),
        ({"type": "m.sticker"}, {}),
        ({"state_key": ""}, {}),
        ({}, {"state_key": ""}),
        ({"state_key": ""}, {"state_key": ""}),
        ({"content": relating("m.replace")}, {}),
        ({}, {"content": relating("m.replace")}),
        ({}, {"content": {**relating("m.replace"), "m.new_content": "hello again"}}),
    ],
)
def test_invalid_replacements(original: dict[str, Any], replacement: dict[str, Any]) -> None:
    changed = message(**{"content": NEW_CONTENT, **replacement})
    assert not is_valid_replacement(original=message(**original), replacement=changed)


def test_the_most_recent_replacement() -> None:
    candidates = [(5, "$b"), (7, "$a"), (7, "$b"), (6, "$z")]
    assert max(replacement_order(origin_server_ts=ts, event_id=event_id) for ts, event_id in candidates) == (7, "$b")


@pytest.mark.parametrize(
    ("content", "annotated", "thread"),
    [
        ({}, True, True),
        ({"m.relates_to": {"m.in_reply_to": {"event_id": "$a"}}}, True, True),
        (relating("m.annotation"), False, False),
        (relating("m.replace"), False, False),
        (relating("m.thread"), True, False),
        (relating("m.reference"), True, False),
        (relating("org.example"), True, False),
    ],
)
def test_what_may_be_annotated_and_start_a_thread(content: dict[str, Any], annotated: bool, thread: bool) -> None:
    assert may_be_annotated(content) is annotated
    assert may_start_thread(content) is thread


def test_threads() -> None:
    in_thread, reaction = Relation("m.thread", PARENT), Relation("m.annotation", PARENT)
    root = EventId("$root")
    assert thread_root_of(None, thread_root_of_parent=None) is None
    assert thread_root_of(in_thread, thread_root_of_parent=None) == PARENT
    # What relates to the root in another way stays in the main timeline, as the root does.
    assert thread_root_of(reaction, thread_root_of_parent=None) is None
    assert thread_root_of(reaction, thread_root_of_parent=root) == root
    # There is no thread in a thread.
    assert thread_root_of(in_thread, thread_root_of_parent=root) == root


THREAD = ThreadSummary(latest_event={"event_id": "$latest"}, count=7, current_user_participated=True)


def test_bundled_aggregations() -> None:
    replacement = {"event_id": "$edit"}
    assert bundle_relations(
        is_state=False, is_redacted=False, replacement=replacement, thread=THREAD, references=["$one", "$two"]
    ) == {
        "m.replace": replacement,
        "m.thread": {"latest_event": {"event_id": "$latest"}, "count": 7, "current_user_participated": True},
        "m.reference": {"chunk": [{"event_id": "$one"}, {"event_id": "$two"}]},
    }


def test_nothing_to_bundle() -> None:
    assert bundle_relations(is_state=False, is_redacted=False) == {}


def test_state_events_get_no_aggregations() -> None:
    bundled = bundle_relations(is_state=True, is_redacted=False, replacement={}, thread=THREAD, references=["$one"])
    assert bundled == {}


def test_a_redacted_event_loses_its_replacement_alone() -> None:
    bundled = bundle_relations(is_state=False, is_redacted=True, replacement={}, thread=THREAD, references=["$one"])
    assert bundled.keys() == {"m.thread", "m.reference"}
