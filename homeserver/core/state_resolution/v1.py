"""State resolution of room version 1.

https://spec.matrix.org/v1.19/rooms/v1/#state-resolution
"""

import hashlib
from collections.abc import Collection, Sequence, Set

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import authorizing_slots
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu, StateKey, StateMap
from homeserver.core.state_resolution.need import LoadedEvents


def resolve_v1(state_sets: Sequence[StateMap], events: LoadedEvents, *, rejected: Set[EventId]) -> StateMap:
    """Merges states in passes: power levels, join rules, memberships, then the rest.

    An entry that some of the states lack is no conflict in this version.

    Raises:
        LackingEvents: more events are needed.
    """
    resolved, conflicted = _separate(state_sets)
    if not conflicted:
        return resolved
    events.require(event_id for event_ids in conflicted.values() for event_id in event_ids)
    accepted = {
        slot: [events[event_id] for event_id in event_ids if event_id not in rejected]
        for slot, event_ids in conflicted.items()
    }
    needed = {slot for competing in accepted.values() for event in competing for slot in authorizing_slots(event)}
    events.require(resolved[slot] for slot in needed if slot in resolved)
    state = {slot: events[resolved[slot]] for slot in needed if slot in resolved}

    for event_type in ("m.room.power_levels", "m.room.join_rules", "m.room.member"):
        # The members are judged by the state before any of them was resolved, so that their order does not matter.
        entries = {
            slot: _last_allowed(slot, competing, state)
            for slot, competing in accepted.items()
            if slot[0] == event_type and competing
        }
        state |= entries
        resolved |= {slot: event.event_id for slot, event in entries.items()}
    for slot, competing in accepted.items():
        if slot not in resolved and competing:
            resolved[slot] = _first_allowed(competing, state).event_id
    return resolved


def _separate(state_sets: Sequence[StateMap]) -> tuple[dict[StateKey, EventId], dict[StateKey, set[EventId]]]:
    """The union of the states without the conflicts, and the conflicts."""
    united: dict[StateKey, EventId] = {}
    conflicted: dict[StateKey, set[EventId]] = {}
    for state in state_sets:
        # Set operations on the items find the few differences between large states without a loop over all entries.
        for slot, event_id in state.items() - united.items():
            if slot in united:
                conflicted.setdefault(slot, {united[slot]}).add(event_id)
            else:
                united[slot] = event_id
    for slot in conflicted:
        del united[slot]
    return united, conflicted


def _age_order(competing: Collection[Pdu]) -> list[Pdu]:
    """By ascending depth, then descending SHA-1 of the event id."""
    by_hash = sorted(
        competing, key=lambda event: hashlib.sha1(event.event_id.encode(), usedforsecurity=False).digest(), reverse=True
    )
    return sorted(by_hash, key=lambda event: event.depth)


def _last_allowed(slot: StateKey, competing: Collection[Pdu], state: dict[StateKey, Pdu]) -> Pdu:
    """Applies the events in order, each to a state with the one before, up to the first that is not allowed."""
    winner, *others = _age_order(competing)
    for event in others:
        if not _is_allowed(event, {**state, slot: winner}):
            break
        winner = event
    return winner


def _first_allowed(competing: Collection[Pdu], state: dict[StateKey, Pdu]) -> Pdu:
    """The youngest event that is allowed.

    COMPAT(Synapse): the specification does not say what becomes of an entry of which no event is allowed, for example
    as those who set the topic have left. It keeps the oldest.
    """
    youngest_first = _age_order(competing)[::-1]
    return next((event for event in youngest_first if _is_allowed(event, state)), youngest_first[-1])


def _is_allowed(event: Pdu, state: dict[StateKey, Pdu]) -> bool:
    try:
        check_auth(event, state)
    except Forbidden:
        return False
    return True
