"""State resolution of room version 2 and later, and its revision 2.1 of room version 12.

https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
"""

from collections.abc import Iterable, Sequence, Set

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import CREATE, POWER_LEVELS, authorizing_slots, create_event_id
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu, StateKey, StateMap
from homeserver.core.room_versions import StateResolution
from homeserver.core.state_resolution.auth_chains import auth_difference, conflicted_subgraph
from homeserver.core.state_resolution.need import LoadedEvents
from homeserver.core.state_resolution.ordering import (
    ParsedPowerLevels,
    mainline_ordering,
    power_events_with_auth_chains,
    reverse_topological_power_ordering,
)


def resolve_v2(
    state_sets: Sequence[StateMap], events: LoadedEvents, *, rejected: Set[EventId], revision: StateResolution
) -> StateMap:
    """Merges states by replaying all that is in dispute, power events first.

    COMPAT(Synapse): an event that this server rejected stays out of the state, though the specification would let it in
    if it were allowed on replay. Rejection is for good here.

    Args:
        state_sets: the states, each as a map from entry to event.
        events: what is loaded of the room.
        rejected: at least those rejected events that are loaded.
        revision: `V2`, or `V2_1`, which replays on an empty state and takes the conflicted state subgraph with it.

    Raises:
        LackingEvents: more events are needed.
    """
    unconflicted, conflicted = _separate(state_sets)
    if not conflicted:
        return unconflicted
    full_conflicted = auth_difference(state_sets, events, unconflicted=unconflicted, conflicted=conflicted)
    conflicted_events = frozenset[EventId]().union(*conflicted.values())
    full_conflicted |= conflicted_events
    replay = _Replay({} if revision is StateResolution.V2_1 else unconflicted, events, rejected)
    if revision is StateResolution.V2_1:
        full_conflicted |= conflicted_subgraph(conflicted_events, events)
    events.require(full_conflicted)
    # 1 and 2
    power_events = power_events_with_auth_chains(full_conflicted, events)
    replay.apply(reverse_topological_power_ordering(power_events, events, replay.parsed))
    # 3 and 4
    others = full_conflicted - power_events
    replay.apply(mainline_ordering(others, events, power_levels=replay.state.get(POWER_LEVELS)))
    # 5
    return replay.state | unconflicted


def _separate(state_sets: Sequence[StateMap]) -> tuple[dict[StateKey, EventId], dict[StateKey, set[EventId]]]:
    """The unconflicted state map, and the conflicted state set by entry."""
    # Set operations on the items find the few differences between large states without a loop over all entries.
    common = set(state_sets[0].items())
    union = set(common)
    for state in state_sets[1:]:
        common.intersection_update(state.items())
        union.update(state.items())
    conflicted: dict[StateKey, set[EventId]] = {}
    for slot, event_id in union - common:
        conflicted.setdefault(slot, set()).add(event_id)
    return dict(common), conflicted


class _Replay:
    """The iterative auth checks algorithm and the state it builds."""

    __slots__ = ("_events", "_rejected", "parsed", "state")

    def __init__(self, state: StateMap, events: LoadedEvents, rejected: Set[EventId]) -> None:
        self.state = dict(state)
        self.parsed = ParsedPowerLevels()
        self._events = events
        self._rejected = rejected

    def apply(self, event_ids: Sequence[EventId]) -> None:
        """Puts each event into the state, if it is allowed there.

        Raises:
            LackingEvents: more events are needed.
        """
        replayed = [self._events[event_id] for event_id in event_ids if event_id not in self._rejected]
        self._events.require(event_id for event in replayed for event_id in self._looked_at(event))
        for event in replayed:
            if event.state_slot is not None and self._is_allowed(event):
                self.state[event.state_slot] = event.event_id

    def _looked_at(self, event: Pdu) -> Iterable[EventId]:
        """The events that decide about an event, as far as that can be told beforehand."""
        yield from event.auth_events
        if event.room_version.room_id_is_create_hash and event.type != CREATE[0]:
            yield create_event_id(event.room_id)
        for slot in authorizing_slots(event):
            if slot in self.state:
                yield self.state[slot]

    def _is_allowed(self, event: Pdu) -> bool:
        # What the state lacks comes from the event's own auth events; what it has goes over them.
        auth_state: dict[StateKey, Pdu] = {}
        for event_id in self._looked_at(event):
            found = self._events[event_id]
            if found.state_slot is not None and event_id not in self._rejected and found.room_id == event.room_id:
                auth_state[found.state_slot] = found
        create = auth_state.get(CREATE)
        levels = None if create is None else self.parsed.of(auth_state.get(POWER_LEVELS), create)
        try:
            check_auth(event, auth_state, power_levels=levels)
        except Forbidden:
            return False
        return True
