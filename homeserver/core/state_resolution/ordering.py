"""The two orders in which state resolution applies events: reverse topological power ordering and mainline ordering.

https://spec.matrix.org/v1.19/rooms/v2/#definitions
"""

import math
from collections.abc import Collection, Iterable, Mapping, Set
from heapq import heapify, heappop, heappush
from typing import Any

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import CREATE, POWER_LEVELS, create_event_id
from homeserver.core.event_auth.power_levels import Level, PowerLevels
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from homeserver.core.state_resolution.need import LoadedEvents


class ParsedPowerLevels:
    """Keeps the power levels of each `m.room.power_levels` event of a room, so that each is read once."""

    __slots__ = ("_parsed",)

    def __init__(self) -> None:
        self._parsed: dict[EventId | None, PowerLevels | None] = {}

    def of(self, power_levels: Pdu | None, create: Pdu) -> PowerLevels | None:
        """`PowerLevels.in_force`, or None if the event does not have the form that the room version demands."""
        event_id = None if power_levels is None else power_levels.event_id
        if event_id not in self._parsed:
            try:
                self._parsed[event_id] = PowerLevels.in_force(power_levels, create)
            except Forbidden:
                self._parsed[event_id] = None
        return self._parsed[event_id]


def is_power_event(event: Pdu) -> bool:
    """Whether an event might take away somebody's ability to do something in the room."""
    if event.type == "m.room.member":
        return event.membership in ("leave", "ban") and event.sender != event.state_key
    return event.is_state and event.type in ("m.room.power_levels", "m.room.join_rules")


def power_events_with_auth_chains(full_conflicted: Set[EventId], events: LoadedEvents) -> set[EventId]:
    """The power events of the full conflicted set and those events of it that they build on."""
    selected: set[EventId] = set()
    stack = [event_id for event_id in full_conflicted if is_power_event(events[event_id])]
    while stack:
        event_id = stack.pop()
        if event_id not in selected:
            selected.add(event_id)
            stack.extend(auth_id for auth_id in events[event_id].auth_events if auth_id in full_conflicted)
    return selected


def reverse_topological_power_ordering(
    event_ids: Collection[EventId], events: LoadedEvents, parsed: ParsedPowerLevels
) -> list[EventId]:
    """Sorts events so that each comes after its auth events, and where that leaves a choice, the mighty come first.

    Raises:
        LackingEvents: more events are needed.
    """
    events.require(_cited_events([events[event_id] for event_id in event_ids]))
    selected = frozenset(event_ids)
    edges: dict[EventId, frozenset[EventId]] = {}
    keys: dict[EventId, tuple[Level, int, EventId]] = {}
    for event_id in event_ids:
        event = events[event_id]
        edges[event_id] = selected.intersection(event.auth_events) - {event_id}
        keys[event_id] = (-_sender_level(event, events, parsed), event.origin_server_ts, event_id)
    return lexicographical_topological_sort(edges, keys)


def _cited_events(cited_by: Iterable[Pdu]) -> Iterable[EventId]:
    """The auth events of events, with the create event also where it is not cited."""
    for event in cited_by:
        yield from event.auth_events
        if event.room_version.room_id_is_create_hash and event.type != CREATE[0]:
            yield create_event_id(event.room_id)


def _sender_level(event: Pdu, events: LoadedEvents, parsed: ParsedPowerLevels) -> Level:
    """The power level of an event's sender as its own auth events tell it."""
    auth_state = {events[event_id].state_slot: events[event_id] for event_id in _cited_events([event])}
    create = auth_state.get(CREATE)
    levels = None if create is None else parsed.of(auth_state.get(POWER_LEVELS), create)
    return 0 if levels is None else levels.user_level(event.sender)


def lexicographical_topological_sort(
    edges: Mapping[EventId, Set[EventId]], keys: Mapping[EventId, tuple[Any, ...]]
) -> list[EventId]:
    """Kahn's algorithm, which takes the smallest of the candidates at each step.

    Args:
        edges: for each event those that have to come before it, all of them keys of `edges` too.
        keys: what to compare candidates by.

    Returns:
        The events in order; those on or above a cycle are left out.
    """
    waiting_for = {event_id: len(before) for event_id, before in edges.items()}
    followers: dict[EventId, list[EventId]] = {}
    for event_id, before in edges.items():
        for earlier in before:
            followers.setdefault(earlier, []).append(event_id)
    candidates = [(keys[event_id], event_id) for event_id, count in waiting_for.items() if count == 0]
    heapify(candidates)
    ordered = []
    while candidates:
        _, event_id = heappop(candidates)
        ordered.append(event_id)
        for follower in followers.get(event_id, ()):
            waiting_for[follower] -= 1
            if waiting_for[follower] == 0:
                heappush(candidates, (keys[follower], follower))
    return ordered


class Mainline:
    """The mainline of an `m.room.power_levels` event, followed only as far back as events ask for."""

    __slots__ = ("_events", "_oldest", "_positions")

    def __init__(self, power_levels: EventId | None, events: LoadedEvents) -> None:
        self._events = events
        # The position of every power levels event met so far, on the mainline or off it.
        self._positions: dict[EventId, float] = {} if power_levels is None else {power_levels: 0}
        # The last event of the mainline so far with its position; None at the mainline's end.
        self._oldest: tuple[EventId, int] | None = None if power_levels is None else (power_levels, 0)

    def position(self, event: Pdu) -> float:
        """The mainline position of an event: 0 is the latest, infinity is off the mainline for good.

        Raises:
            LackingEvents: more events are needed.
        """
        off_mainline: list[EventId] = []
        power_levels = self._cited_power_levels(event)
        while power_levels is not None and not self._is_placed(power_levels):
            # A cycle would lead back here, and find this.
            self._positions[power_levels] = math.inf
            off_mainline.append(power_levels)
            power_levels = self._cited_power_levels(self._events[power_levels])
        position = math.inf if power_levels is None else self._positions[power_levels]
        for event_id in off_mainline:
            self._positions[event_id] = position
        return position

    def _is_placed(self, power_levels: EventId) -> bool:
        """Follows the mainline back until it meets an event or has passed it; whether its position is known then."""
        while power_levels not in self._positions and self._oldest is not None:
            oldest, index = self._oldest
            if self._has_passed(power_levels, oldest):
                return False
            earlier = self._cited_power_levels(self._events[oldest])
            if earlier is None or earlier in self._positions:
                self._oldest = None
            else:
                self._oldest = (earlier, index + 1)
                self._positions[earlier] = index + 1
        return power_levels in self._positions

    def _has_passed(self, power_levels: EventId, oldest: EventId) -> bool:
        ordinal, oldest_ordinal = self._events.ordinal(power_levels), self._events.ordinal(oldest)
        return ordinal is not None and oldest_ordinal is not None and oldest_ordinal < ordinal

    def _cited_power_levels(self, event: Pdu) -> EventId | None:
        self._events.require(event.auth_events, with_auth_chains=True)
        for auth_id in event.auth_events:
            if self._events[auth_id].state_slot == POWER_LEVELS:
                return auth_id
        return None


def mainline_ordering(
    event_ids: Collection[EventId], events: LoadedEvents, *, power_levels: EventId | None
) -> list[EventId]:
    """Sorts events by the mainline of a power levels event, those that build on an older part of it first.

    Raises:
        LackingEvents: more events are needed.
    """
    if not event_ids:
        return []
    unsorted = [events[event_id] for event_id in event_ids]
    events.require(_cited_events(unsorted))
    mainline = Mainline(power_levels, events)
    return sorted(
        event_ids,
        key=lambda event_id: (-mainline.position(events[event_id]), events[event_id].origin_server_ts, event_id),
    )
