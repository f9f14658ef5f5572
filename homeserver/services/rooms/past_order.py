"""Where fetched events stand in a room's history: before all that follows them, in the numbers that are free there.

A gap is named by the number of the event behind it. What is fetched into it is numbered from there downwards, so that
what is fetched later, being older, comes before it. So an event has to wait while one may still be fetched that follows
it. Should the numbers between two events run out, several events get the same one: those with the same number stand in
the order in which they were stored.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu

ISLAND_DISTANCE: Final = 2**19
"""How far before the first known event one stands of which only its time is known; half of what a gap has room for."""


def find_gaps(events: Sequence[Pdu], missing: Mapping[EventId, int]) -> dict[EventId, int]:
    """Into which gap each of some events belongs; those that nothing leads to are absent.

    Args:
        events: in the order of the graph, oldest first.
        missing: the gaps that events are missing in, by the number of what stands behind.
    """
    gaps: dict[EventId, int] = {}
    for event in reversed(events):
        gap = gaps.get(event.event_id)
        if event.event_id in missing:
            gap = missing[event.event_id] if gap is None else min(gap, missing[event.event_id])
        if gap is None:
            continue
        gaps[event.event_id] = gap
        for prev_id in event.prev_events:
            gaps[prev_id] = min(gap, gaps.get(prev_id, gap))
    return {event.event_id: gaps[event.event_id] for event in events if event.event_id in gaps}


def can_be_placed(events: Sequence[Pdu], missing: Mapping[EventId, int], *, wanted: Collection[EventId]) -> list[Pdu]:
    """Those of some events which nothing that is missing can follow.

    An event has a larger `depth` than all that it follows. Servers may lie about that; then the order suffers.

    Args:
        events: in the order of the graph, oldest first.
        missing: the depths of what they follow and what is not here.
        wanted: what was asked for. The latest of these is always placed, so that it goes on.
    """
    latest = max((pdu.depth for pdu in events if pdu.event_id in wanted), default=0)
    line = min(max(missing.values(), default=0), latest)
    return [pdu for pdu in events if pdu.depth >= line]


def number_events(
    event_ids: Sequence[EventId],
    gaps: Mapping[EventId, int],
    floors: Mapping[int, int],
    *,
    unshown: Collection[EventId],
) -> dict[EventId, int]:
    """The numbers of events.

    Args:
        event_ids: the events, in the order of the graph, oldest first.
        gaps: the gap of each, by `find_gaps`.
        floors: the number of what stands before each gap; absent for the gap at the beginning of what is known.
        unshown: those that only hold the graph together. They get no number of their own but that of what follows them,
            for before that stands what they follow.
    """
    used: dict[int, int] = {}
    numbers: dict[EventId, int] = {}
    for event_id in reversed(event_ids):
        gap = gaps[event_id]
        used[gap] = used.get(gap, 0) + (event_id not in unshown)
        number = gap - used[gap]
        floor = floors.get(gap)
        if floor is not None and used[gap]:
            number = max(number, min(floor + 1, gap - 1))
        numbers[event_id] = number
    return numbers


def island_number(gap: int, floor: int | None) -> int:
    """The number of an event that belongs somewhere into a gap: there is room on both sides of it.

    Args:
        gap: the number of what stands behind the gap.
        floor: that of what stands before it; None at the beginning of what is known.
    """
    return gap - ISLAND_DISTANCE if floor is None else max((gap + floor) // 2, min(floor + 1, gap - 1))
