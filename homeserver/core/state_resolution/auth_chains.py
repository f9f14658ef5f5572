"""Walks over the graph that `auth_events` make: the auth difference and the conflicted state subgraph.

All walks are loops with a visited set, so they end on any graph, also one with cycles, and touch each edge at most once
for each state set. Where there are ordinals they turn back as soon as nothing of interest can lie below.

https://spec.matrix.org/v1.19/rooms/v12/#definitions
"""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from heapq import heapify, heappop, heappush

from homeserver.core.ids import EventId
from homeserver.core.pdu import StateKey, StateMap
from homeserver.core.state_resolution.need import LackingEvents, LoadedEvents, Need


def auth_difference(
    state_sets: Sequence[StateMap],
    events: LoadedEvents,
    *,
    unconflicted: StateMap,
    conflicted: Mapping[StateKey, Set[EventId]],
) -> set[EventId]:
    """The events that are in the auth chains of some state sets but not of all.

    An event counts as part of its own auth chain. Conflicted events are left out, for they belong to the full
    conflicted set anyway.

    COMPAT(Synapse, Dendrite): by the letter of the specification an event is not in its own auth chain, so that an
    unconflicted event could be in the difference. No known server reads it that way, and servers have to agree.

    Raises:
        LackingEvents: more events are needed.
    """
    conflicted_events = frozenset[EventId]().union(*conflicted.values())
    start: dict[EventId, int] = {}
    for index, state in enumerate(state_sets):
        for slot in conflicted:
            event_id = state.get(slot)
            if event_id is not None:
                start[event_id] = start.get(event_id, 0) | 1 << index
    everywhere = (1 << len(state_sets)) - 1
    reached = _reaching_sets(start, events, everywhere=everywhere, unconflicted=frozenset(unconflicted.values()))
    difference = {
        event_id for event_id, sets in reached.items() if sets != everywhere and event_id not in conflicted_events
    }
    # What an unconflicted event reaches is reached from every state set. Most such events in the difference are old
    # versions of an entry whose present event cites them: those are found without loading the rest of the state.
    visited: set[EventId] = set()
    same_entries = {unconflicted[slot] for slot in _slots(difference, events) if slot in unconflicted}
    _discard_reachable(difference, events, roots=same_entries, visited=visited)
    _discard_reachable(difference, events, roots=unconflicted.values(), visited=visited)
    return difference


def _slots(event_ids: Iterable[EventId], events: LoadedEvents) -> Iterable[StateKey]:
    for event_id in event_ids:
        slot = events[event_id].state_slot
        if slot is not None:
            yield slot


def _reaching_sets(
    start: Mapping[EventId, int], events: LoadedEvents, *, everywhere: int, unconflicted: Set[EventId]
) -> dict[EventId, int]:
    """From which state sets the events in the auth chains of the conflicted events can be reached.

    With ordinals the newest event is always looked at first. Then all that cite an event have been seen before it, and
    the walk can end when what is left is reached from everywhere.

    Args:
        start: for each conflicted event the state sets that hold it, as bits.
        events: what is loaded.
        everywhere: the bits of all state sets.
        unconflicted: the events that all state sets hold.

    Returns:
        The bits of each event that the walk came across.
    """
    reached = dict(start)
    queue = [(-(events.ordinal(event_id) or 0), event_id) for event_id in start]
    heapify(queue)
    queued = set(start)
    open_ends = {event_id for event_id, sets in start.items() if sets != everywhere}
    lacking: set[EventId] = set()
    while queue and (open_ends or not events.ordered):
        _, event_id = heappop(queue)
        queued.discard(event_id)
        open_ends.discard(event_id)
        event = events.find(event_id)
        if event is None:
            lacking.add(event_id)
            continue
        for auth_id in event.auth_events:
            before = reached.get(auth_id, 0)
            after = everywhere if auth_id in unconflicted else before | reached[event_id]
            if after == before:
                continue
            reached[auth_id] = after
            ordinal = events.ordinal(auth_id)
            if ordinal is None and events.ordered:
                lacking.add(auth_id)
                continue
            if auth_id not in queued:
                queued.add(auth_id)
                heappush(queue, (-(ordinal or 0), auth_id))
            if after == everywhere:
                open_ends.discard(auth_id)
            else:
                open_ends.add(auth_id)
    if lacking:
        raise LackingEvents(Need(frozenset(lacking), with_auth_chains=True))
    return reached


def _discard_reachable(
    wanted: set[EventId], events: LoadedEvents, *, roots: Collection[EventId], visited: set[EventId]
) -> None:
    """Takes out of `wanted` what is among the roots and their auth chains; `visited` is what was walked over before."""
    if not wanted:
        return
    floor = events.floor(wanted)
    stack = list(roots)
    lacking: set[EventId] = set()
    while stack and wanted:
        event_id = stack.pop()
        if event_id in visited:
            continue
        visited.add(event_id)
        wanted.discard(event_id)
        if _ends_at(floor, event_id, events):
            continue
        event = events.find(event_id)
        if event is None:
            lacking.add(event_id)
        else:
            stack.extend(event.auth_events)
    if wanted and lacking:
        raise LackingEvents(Need(frozenset(lacking), with_auth_chains=True))


def conflicted_subgraph(conflicted: Set[EventId], events: LoadedEvents) -> set[EventId]:
    """The conflicted events and all events on a path of `auth_events` from one of them to another.

    Raises:
        LackingEvents: more events are needed.
    """
    floor = events.floor(conflicted)
    cited_by: dict[EventId, list[EventId]] = {}
    visited: set[EventId] = set()
    lacking: set[EventId] = set()
    stack = list(conflicted)
    while stack:
        event_id = stack.pop()
        if event_id in visited:
            continue
        visited.add(event_id)
        if _ends_at(floor, event_id, events):
            continue
        event = events.find(event_id)
        if event is None:
            lacking.add(event_id)
            continue
        for auth_id in event.auth_events:
            cited_by.setdefault(auth_id, []).append(event_id)
            stack.append(auth_id)
    if lacking:
        raise LackingEvents(Need(frozenset(lacking), with_auth_chains=True))
    # Everything in `cited_by` is below a conflicted event; what is also above one lies on a path.
    subgraph: set[EventId] = set()
    stack = list(conflicted)
    while stack:
        event_id = stack.pop()
        if event_id not in subgraph:
            subgraph.add(event_id)
            stack.extend(cited_by.get(event_id, ()))
    return subgraph


def _ends_at(floor: int | None, event_id: EventId, events: LoadedEvents) -> bool:
    """Whether a walk can turn back at an event, as all it can reach is older than what is looked for."""
    ordinal = events.ordinal(event_id)
    return floor is not None and ordinal is not None and ordinal <= floor
