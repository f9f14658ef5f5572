"""Where events stand in history, whatever the graph is like and however few numbers are free."""

import random
from collections.abc import Sequence

import pytest

from homeserver.core.ids import EventId, RoomId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.services.rooms.past_order import can_be_placed, find_gaps, island_number, number_events

VERSION = ROOM_VERSIONS["11"]


def event(number: int, *prev_events: int, depth: int | None = None) -> Pdu:
    json = {
        "type": "m.room.message",
        "sender": "@a:b.org",
        "content": {},
        "origin_server_ts": number,
        "depth": number if depth is None else depth,
        "prev_events": [f"${each}" for each in prev_events],
        "auth_events": [],
    }
    return Pdu.trusted(json, EventId(f"${number}"), VERSION, RoomId("!room"))


def places(events: Sequence[Pdu], missing: dict[str, int], floors: dict[int, int]) -> dict[str, int]:
    gaps = find_gaps(events, {EventId(event_id): gap for event_id, gap in missing.items()})
    event_ids = [pdu.event_id for pdu in events if pdu.event_id in gaps]
    return dict(number_events(event_ids, gaps, floors, unshown=()))


def test_a_line_is_numbered_downwards() -> None:
    line = [event(number, number - 1) for number in range(1, 5)]
    assert places(line, {"$4": 1}, {}) == {"$1": -3, "$2": -2, "$3": -1, "$4": 0}


def test_what_nothing_leads_to_has_no_place() -> None:
    assert places([event(1), event(2, 1), event(3)], {"$2": 10}, {}) == {"$1": 8, "$2": 9}


def test_an_event_stands_before_all_that_follows_it() -> None:
    """Also where that stands in different gaps."""
    events = [event(1), event(2, 1), event(3, 1)]
    assert places(events, {"$2": 100, "$3": 10}, {100: 50, 10: 0}) == {"$1": 8, "$2": 99, "$3": 9}


def test_events_that_are_not_shown_use_no_number() -> None:
    events = [event(1), event(2, 1), event(3, 2)]
    gaps = find_gaps(events, {EventId("$3"): 10})
    numbers = number_events([pdu.event_id for pdu in events], gaps, {}, unshown={EventId("$2"), EventId("$3")})
    assert numbers == {"$1": 9, "$2": 10, "$3": 10}


@pytest.mark.parametrize(("floor", "numbers"), [(5, [6, 7, 8, 9]), (7, [8, 8, 8, 9]), (8, [9] * 4), (9, [9] * 4)])
def test_where_the_numbers_run_out(floor: int, numbers: list[int]) -> None:
    """Never before what stands before the gap."""
    line = [event(number, number - 1) for number in range(1, 5)]
    assert list(places(line, {"$4": 10}, {10: floor}).values()) == numbers[::-1]


def test_what_is_older_than_something_missing_waits() -> None:
    events = [event(1, depth=3), event(2, 9, depth=8), event(3, 2, 1, depth=9)]
    placed = can_be_placed(events, {EventId("$9"): 7}, wanted={EventId("$3")})
    assert [pdu.event_id for pdu in placed] == ["$2", "$3"]
    assert can_be_placed(events, {}, wanted={EventId("$3")}) == events


def test_whatever_depths_are_told_it_goes_on() -> None:
    events = [event(1, depth=3), event(2, 1, 9, depth=5)]
    for wanted, placed in (({"$1"}, ["$1", "$2"]), ({"$2"}, ["$2"])):
        found = can_be_placed(events, {EventId("$9"): 2**60}, wanted={EventId(each) for each in wanted})
        assert [pdu.event_id for pdu in found] == placed


@pytest.mark.parametrize(("gap", "floor"), [(1, None), (2**20, 0), (10, 8), (10, 9), (-5, -9)])
def test_an_island_lies_within_its_gap(gap: int, floor: int | None) -> None:
    number = island_number(gap, floor)
    assert number < gap
    assert floor is None or number >= floor


@pytest.mark.parametrize("seed", range(20))
def test_any_graph_fetched_bit_by_bit(seed: int) -> None:
    """However it is cut into pieces, each event comes after those that it follows."""
    chance = random.Random(seed)
    graph: dict[str, Pdu] = {}
    for number in range(1, 120):
        prev = chance.sample(range(max(number - 12, 1), number), min(chance.choice((1, 1, 2, 3)), number - 1))
        depth = 1 + max((graph[f"${each}"].depth for each in prev), default=0)
        graph[f"${number}"] = event(number, *prev, depth=depth)
    missing, placed = {"$119": 1}, dict[str, int]()
    rounds = 0
    while missing:
        rounds += 1
        assert rounds < 200
        wanted = set(chance.sample(sorted(missing), chance.randint(1, len(missing))))
        wanted.add(max(missing, key=lambda each: graph[each].depth))
        answer = _back_from(graph, wanted, placed, len(wanted) + chance.randint(0, 30))
        here = {pdu.event_id for pdu in answer} | placed.keys()
        cited = {each for pdu in answer for each in pdu.prev_events}
        lacking = {EventId(each): graph[each].depth for each in {*cited, *missing} - here}
        kept = can_be_placed(answer, lacking, wanted={EventId(each) for each in wanted})
        numbers = places(kept, missing, {})
        assert numbers, "it goes on"
        placed |= numbers
        lowest = min(placed.values())
        missing = {each: lowest for pdu in graph.values() if pdu.event_id in placed for each in pdu.prev_events}
        missing = {each: lowest for each in missing if each not in placed}
    for event_id, number in placed.items():
        assert all(placed[prev_id] < number for prev_id in graph[event_id].prev_events)


def _back_from(graph: dict[str, Pdu], wanted: set[str], placed: dict[str, int], limit: int) -> list[Pdu]:
    found: dict[str, Pdu] = {}
    waiting = sorted(wanted)
    while waiting and len(found) < limit:
        event_id = waiting.pop(0)
        if event_id not in found and event_id not in placed:
            found[event_id] = graph[event_id]
            waiting += graph[event_id].prev_events
    return sorted(found.values(), key=lambda pdu: pdu.origin_server_ts)
