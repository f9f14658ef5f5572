"""What follows from events for the tables around them: current state, memberships, summary, relations, push rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from homeserver.core.client_event import client_event
from homeserver.core.errors import InvalidParam
from homeserver.core.ids import ServerName, UserId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.relations import relation_of
from homeserver.services.rooms.drafts import Draft, PushOutcome, Rewrite
from homeserver.services.rooms.event_chain import ChainedEvent, client_json, federation_json
from homeserver.services.rooms.heads import Head
from storage.append import Batch, NewRelation, PushException, ReplacedEvent, StateChange

# Column of room_summaries and member of the content, by event type; the state key is empty.
_SUMMARIZED: Final[Mapping[str, tuple[str, str]]] = {
    "m.room.name": ("name", "name"),
    "m.room.topic": ("topic", "topic"),
    "m.room.avatar": ("avatar_url", "url"),
    "m.room.canonical_alias": ("canonical_alias", "alias"),
    "m.room.join_rules": ("join_rule", "join_rule"),
    "m.room.history_visibility": ("history_visibility", "history_visibility"),
    "m.room.guest_access": ("guest_access", "guest_access"),
    "m.room.create": ("room_type", "type"),
    "m.room.encryption": ("encryption", "algorithm"),
}
SUMMARIZED_SLOTS: Final[Sequence[StateKey]] = tuple((event_type, "") for event_type in _SUMMARIZED)
"""The entries of a room's state that its summary tells."""


def state_changes(events: Sequence[Pdu], server_name: ServerName) -> list[StateChange]:
    """How the current state changes if the n-th event becomes its newest part: one entry for each slot."""
    changes: dict[StateKey, StateChange] = {}
    for number, pdu in enumerate(events, start=1):
        slot = pdu.state_slot
        if slot is not None:
            changes[slot] = state_change(pdu, event=-number, server_name=server_name)
    return list(changes.values())


def state_change(pdu: Pdu, *, event: int, server_name: ServerName) -> StateChange:
    """The change of the current state by which an event takes its slot; `event` refers to it as in `NewEvent`."""
    member = member_of(pdu)
    return StateChange(
        type=pdu.type,
        state_key=pdu.state_key or "",
        event=event,
        membership=None if member is None else pdu.membership,
        sender=pdu.sender,
        is_local=member is not None and member.server_name == server_name,
    )


def member_of(pdu: Pdu) -> UserId | None:
    """The user whose membership an event sets; None if it sets none."""
    if pdu.membership is None or pdu.state_key is None:
        return None
    try:
        return UserId.parse(pdu.state_key)
    except InvalidParam:
        return None


def summary_changes(events: Sequence[Pdu], *, emptied: Sequence[StateKey] = ()) -> list[tuple[str, str | None]]:
    """The columns of the room's summary that events of the new current state set, or that empty slots unset."""
    changes: dict[str, str | None] = {
        _SUMMARIZED[event_type][0]: None
        for event_type, state_key in emptied
        if not state_key and event_type in _SUMMARIZED
    }
    for pdu in events:
        if pdu.state_key == "" and pdu.type in _SUMMARIZED:
            column, member = _SUMMARIZED[pdu.type]
            changes[column] = _storable(pdu.content.get(member))
    return list(changes.items())


def _storable(value: object) -> str | None:
    """A text as a database column takes it; None for what is no text."""
    return value.replace("\0", "") if isinstance(value, str) else None


def relations(events: Sequence[Pdu]) -> list[NewRelation]:
    """What the n-th event says by `m.relates_to`."""
    found = []
    for number, pdu in enumerate(events, start=1):
        relation = relation_of(pdu.content)
        if relation is not None:
            found.append(NewRelation(-number, relation.event_id, relation.rel_type, relation.key))
    return found


def replaced_event(rewrite: Rewrite, cause: Pdu) -> ReplacedEvent:
    """A stored event with the text that it gets by the event `cause`."""
    unsigned = rewrite.unsigned
    if rewrite.is_target:
        unsigned = {**unsigned, "redacted_because": client_event(cause)}
    return ReplacedEvent(
        event_nid=rewrite.event_nid,
        revision=rewrite.revision,
        redacted_by=cause.event_id if rewrite.is_target else None,
        client_json=client_json(rewrite.pdu, unsigned),
        federation_json=federation_json(rewrite.pdu),
    )


def push_exceptions(outcomes: Sequence[PushOutcome]) -> list[PushException]:
    """The rows of those for whom the n-th event does something else than for most."""
    return [
        PushException(-number, recipient.user_id, recipient.actions, recipient.notify, recipient.highlight)
        for number, outcome in enumerate(outcomes, start=1)
        for recipient in outcome.exceptions
    ]


def make_batch(
    head: Head,
    chain: Sequence[ChainedEvent],
    outcomes: Sequence[PushOutcome],
    drafts: Sequence[Draft],
    *,
    server_name: ServerName,
) -> Batch:
    """What is written to add events of our own to a room.

    Args:
        head: the room that they were made on.
        chain: the events.
        outcomes: what each does to the members.
        drafts: what each was made of.
        server_name: ours.
    """
    events = [link.pdu for link in chain]
    rewrites = [(rewrite, pdu) for pdu, draft in zip(events, drafts, strict=True) for rewrite in draft.rewrites]
    rewritten_state = [rewrite.pdu for rewrite, _ in rewrites if rewrite.is_current]
    return Batch(
        room_nid=head.room_nid,
        state_version=head.state_version,
        # A change of state follows all that is in the room.
        extremities=[end.event_nid for end in head.extremities] if any(pdu.is_state for pdu in events) else None,
        events=[
            replace(link.new_event, push_actions_id=outcome.actions_id)
            for link, outcome in zip(chain, outcomes, strict=True)
        ],
        # Not forked, but those who remember the state must read it again.
        is_state_forked=bool(rewritten_state),
        state_changes=state_changes(events, server_name),
        summary_changes=summary_changes([*rewritten_state, *events]),
        relations=relations(events),
        replaced_events=[replaced_event(rewrite, cause) for rewrite, cause in rewrites],
        push_exceptions=push_exceptions(outcomes),
    )
