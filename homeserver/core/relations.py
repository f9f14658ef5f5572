"""Relationships between events: reading `m.relates_to`, the rules of each type, and bundled aggregations.

https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from homeserver.core.errors import InvalidParam
from homeserver.core.ids import EventId
from homeserver.core.text import is_storable

ANNOTATION: Final = "m.annotation"
REFERENCE: Final = "m.reference"
REPLACE: Final = "m.replace"
THREAD: Final = "m.thread"

_REL_TYPE_BYTES_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class Relation:
    """What an event says about its parent.

    Attributes:
        rel_type: the type of the relationship, of any namespace.
        event_id: the parent; nothing says that it exists or is in the same room.
        key: what an annotation annotates with; None if there is no such string.
        is_falling_back: the rich reply beside a thread is only there for clients that know no threads.
        in_reply_to: the event that a rich reply beside the relationship answers.
    """

    rel_type: str
    event_id: EventId
    key: str | None = None
    is_falling_back: bool = False
    in_reply_to: EventId | None = None


class RelatedEvent(Protocol):
    """What the rules ask of an event; `Pdu` has it."""

    @property
    def room_id(self) -> str:
        """The event's room."""
        ...

    @property
    def type(self) -> str:
        """The event's type."""
        ...

    @property
    def sender(self) -> str:
        """Who sent it."""
        ...

    @property
    def state_key(self) -> str | None:
        """Its state key; None if it is no state event."""
        ...

    @property
    def content(self) -> Mapping[str, Any]:
        """Its content."""
        ...


def relation_of(content: Mapping[str, Any]) -> Relation | None:
    """Reads the relationship in an event's content; None if there is none, or none of the right form.

    A rich reply without a `rel_type` is no such relationship, see `reply_of()`. Redaction keeps no relationship of any
    type in any room version, so a redacted event has none.
    """
    relates_to = content.get("m.relates_to")
    if not isinstance(relates_to, Mapping):
        return None
    rel_type = _text(relates_to.get("rel_type"))
    event_id = _event_id(relates_to.get("event_id"))
    if not rel_type or len(rel_type.encode()) > _REL_TYPE_BYTES_MAX or event_id is None:
        return None
    return Relation(
        rel_type=rel_type,
        event_id=event_id,
        key=_text(relates_to.get("key")),
        is_falling_back=relates_to.get("is_falling_back") is True,
        in_reply_to=reply_of(content),
    )


def reply_of(content: Mapping[str, Any]) -> EventId | None:
    """The event that an event's content answers as a rich reply, with or without another relationship beside it."""
    relates_to = content.get("m.relates_to")
    in_reply_to = relates_to.get("m.in_reply_to") if isinstance(relates_to, Mapping) else None
    return _event_id(in_reply_to.get("event_id")) if isinstance(in_reply_to, Mapping) else None


def _event_id(value: object) -> EventId | None:
    try:
        return EventId.parse(value)
    except InvalidParam:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and is_storable(value) else None


def is_valid_replacement(*, original: RelatedEvent, replacement: RelatedEvent) -> bool:
    """Whether an `m.replace` event may replace the event that it points to.

    The caller has found the original by the replacement's relationship. Of encrypted events only the part outside of
    the encryption is judged.

    https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events
    """
    if replacement.room_id != original.room_id or replacement.sender != original.sender:
        return False
    if replacement.type != original.type:
        return False
    if replacement.state_key is not None or original.state_key is not None:
        return False
    original_relation = relation_of(original.content)
    if original_relation is not None and original_relation.rel_type == REPLACE:
        return False
    return replacement.type == "m.room.encrypted" or isinstance(replacement.content.get("m.new_content"), Mapping)


def replacement_order(*, origin_server_ts: int, event_id: str) -> tuple[int, str]:
    """The sort key of the replacements of one event: the largest is the most recent, the one that holds."""
    return (origin_server_ts, event_id)


def may_be_annotated(content: Mapping[str, Any]) -> bool:
    """Whether annotations of the event with this content count: not those of annotations and replacements."""
    relation = relation_of(content)
    return relation is None or relation.rel_type not in (ANNOTATION, REPLACE)


def may_start_thread(content: Mapping[str, Any]) -> bool:
    """Whether the event with this content can be the root of a thread: only if it is nobody's child itself."""
    return relation_of(content) is None


def thread_root_of(relation: Relation | None, *, thread_root_of_parent: EventId | None) -> EventId | None:
    """The root of the thread that an event belongs to; None for the main timeline, to which the roots belong too.

    As each event keeps the answer, what relates to an event of a thread is found in it without walking on.

    Args:
        relation: the event's own.
        thread_root_of_parent: the same of the event that it relates to; None if that is not known.

    https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts
    """
    if relation is None:
        return None
    if thread_root_of_parent is None and relation.rel_type == THREAD:
        return relation.event_id
    return thread_root_of_parent


@dataclass(frozen=True, slots=True)
class ThreadSummary:
    """A thread as one reader sees it: without the events of users that the reader ignores.

    Attributes:
        latest_event: the most recent event, in the form in which the root is served, with its own bundled aggregations.
        count: the number of events that relate to the root as `m.thread`.
        current_user_participated: the reader has sent the root, or one of them.
    """

    latest_event: Any
    count: int
    current_user_participated: bool


def bundle_relations(
    *,
    is_state: bool,
    is_redacted: bool,
    replacement: Any = None,
    thread: ThreadSummary | None = None,
    references: Sequence[str] = (),
) -> dict[str, Any]:
    """Makes `unsigned.m.relations` of an event; empty if it gets none.

    Annotations are never bundled, and state events get no aggregations. A redacted event keeps its thread and its
    references but not its replacement.

    Args:
        is_state: the parent is a state event.
        is_redacted: the parent has been redacted.
        replacement: the most recent valid replacement in the form in which the parent is served.
        thread: the thread that the parent is the root of.
        references: the ids of the events that refer to the parent as `m.reference`.
    """
    if is_state:
        return {}
    bundled: dict[str, Any] = {}
    if replacement is not None and not is_redacted:
        bundled[REPLACE] = replacement
    if thread is not None:
        bundled[THREAD] = {
            "latest_event": thread.latest_event,
            "count": thread.count,
            "current_user_participated": thread.current_user_participated,
        }
    if references:
        bundled[REFERENCE] = {"chunk": [{"event_id": event_id} for event_id in references]}
    return bundled
