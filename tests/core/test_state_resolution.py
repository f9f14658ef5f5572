"""What holds for state resolution in any room: order, repetition, batches, bounds; and its walks over auth chains."""

from collections.abc import Mapping, Sequence, Set

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu, StateKey, StateMap
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.state_resolution.auth_chains import auth_difference, conflicted_subgraph
from homeserver.core.state_resolution.need import LoadedEvents, Need
from homeserver.core.state_resolution.ordering import (
    is_power_event,
    lexicographical_topological_sort,
    mainline_ordering,
)
from homeserver.core.state_resolution.resolve import resolve
from tests.core.random_rooms import RandomRoom, random_rooms
from tests.core.room_graph import RoomGraph
from tests.core.room_values import ADMIN, CREATOR, USER, event, versions

V2, V11, V12 = ROOM_VERSIONS["2"], ROOM_VERSIONS["11"], ROOM_VERSIONS["12"]
few = settings(max_examples=120, deadline=None)


def answer(result: StateMap | Need) -> StateMap:
    assert not isinstance(result, Need)
    return result


class Store:
    """Hands events out as they are asked for, and counts."""

    def __init__(self, graph: RoomGraph) -> None:
        self.graph = graph
        self.loaded: dict[EventId, Pdu] = {}
        self.rounds = 0

    def resolve(self, state_sets: Sequence[StateMap], *, ordinals: bool, chains: bool = False) -> StateMap:
        known = self.graph.ordinals
        while True:
            numbers: dict[EventId, int] | None = None
            if ordinals:
                shown = {event_id for state in state_sets for event_id in state.values()} | self.loaded.keys()
                numbers = {event_id: known[event_id] for event_id in shown}
            result = resolve(self.graph.version, state_sets, self.loaded, ordinals=numbers)
            if not isinstance(result, Need):
                return result
            assert result.event_ids
            assert self.loaded.keys().isdisjoint(result.event_ids)
            self.rounds += 1
            wanted = list(result.event_ids)
            while wanted:
                event_id = wanted.pop()
                self.loaded[event_id] = self.graph.events[event_id]
                if chains and result.with_auth_chains:
                    wanted.extend(self.loaded[event_id].auth_events)


@few
@given(room=random_rooms(), data=st.data())
def test_the_order_and_the_repetition_of_states_do_not_matter(room: RandomRoom, data: st.DataObject) -> None:
    resolved = room.graph.resolve(*room.state_sets)
    shuffled = data.draw(st.permutations(room.state_sets))
    assert room.graph.resolve(*shuffled) == resolved
    assert room.graph.resolve(*shuffled, shuffled[0], *room.state_sets) == resolved


@few
@given(room=random_rooms())
def test_a_resolved_state_resolves_to_itself(room: RandomRoom) -> None:
    resolved = room.graph.resolve(*room.state_sets)
    assert room.graph.resolve(resolved) == resolved
    assert room.graph.resolve(resolved, dict(resolved)) == resolved


@few
@given(room=random_rooms())
def test_the_result_holds_what_is_unconflicted_and_no_event_in_a_wrong_place(room: RandomRoom) -> None:
    resolved = room.graph.resolve(*room.state_sets)
    common = set.intersection(*(set(state.items()) for state in room.state_sets))
    assert common <= resolved.items()
    for slot, event_id in resolved.items():
        assert room.graph.events[event_id].state_slot == slot


@few
@given(room=random_rooms())
def test_the_batches_in_which_events_are_loaded_do_not_matter(room: RandomRoom) -> None:
    resolved = room.graph.resolve(*room.state_sets)
    lazy, whole_chains, ordered = Store(room.graph), Store(room.graph), Store(room.graph)
    assert lazy.resolve(room.state_sets, ordinals=False) == resolved
    assert whole_chains.resolve(room.state_sets, ordinals=False, chains=True) == resolved
    assert ordered.resolve(room.state_sets, ordinals=True) == resolved
    assert whole_chains.rounds <= lazy.rounds
    assert ordered.loaded.keys() <= room.graph.events.keys()


@few
@given(room=random_rooms())
def test_ordinals_change_no_answer(room: RandomRoom) -> None:
    graph = room.graph
    # Any numbers will do that put an event above its auth events, also some that make all else equal.
    ranks: dict[EventId, int] = {}
    for event_id, pdu in graph.events.items():
        ranks[event_id] = 1 + max((ranks[auth_id] for auth_id in pdu.auth_events), default=0)
    resolved = graph.resolve(*room.state_sets)
    for ordinals in (graph.ordinals, ranks):
        assert answer(resolve(graph.version, room.state_sets, graph.events, ordinals=ordinals)) == resolved


def full_chain(event_ids: Set[EventId], events: Mapping[EventId, Pdu]) -> set[EventId]:
    """The events and all their auth chains, the plain way."""
    chain = set(event_ids)
    while True:
        larger = chain.union(*(events[event_id].auth_events for event_id in chain))
        if larger == chain:
            return chain
        chain = larger


def separated(state_sets: Sequence[StateMap]) -> tuple[dict[StateKey, EventId], dict[StateKey, set[EventId]]]:
    unconflicted: dict[StateKey, EventId] = {}
    conflicted: dict[StateKey, set[EventId]] = {}
    for slot in set().union(*state_sets):
        found = {state.get(slot) for state in state_sets}
        present = {event_id for event_id in found if event_id is not None}
        if len(found) == 1:
            unconflicted[slot] = present.pop()
        else:
            conflicted[slot] = present
    return unconflicted, conflicted


@few
@given(room=random_rooms(versions(2, 12)), with_ordinals=st.booleans())
def test_the_auth_difference_is_that_of_the_full_auth_chains(room: RandomRoom, with_ordinals: bool) -> None:
    events = room.graph.events
    unconflicted, conflicted = separated(room.state_sets)
    chains = [full_chain(set(state.values()), events) for state in room.state_sets]
    common = {event_id for event_id in chains[0] if all(event_id in chain for chain in chains)}
    expected = set[EventId]().union(*chains) - common - set[EventId]().union(*conflicted.values())
    loaded = LoadedEvents(events, ordinals=room.graph.ordinals if with_ordinals else None)
    assert auth_difference(room.state_sets, loaded, unconflicted=unconflicted, conflicted=conflicted) == expected


@few
@given(room=random_rooms(versions(2, 12)), with_ordinals=st.booleans(), data=st.data())
def test_the_conflicted_subgraph_is_what_lies_between(
    room: RandomRoom, with_ordinals: bool, data: st.DataObject
) -> None:
    events = room.graph.events
    chosen = frozenset(data.draw(st.lists(st.sampled_from(sorted(events)), max_size=4)))
    below = full_chain(chosen, events)
    expected = {event_id for event_id in below if chosen & full_chain({event_id}, events)}
    loaded = LoadedEvents(events, ordinals=room.graph.ordinals if with_ordinals else None)
    assert conflicted_subgraph(chosen, loaded) == expected


def graph_of(cited: Mapping[str, str]) -> dict[EventId, Pdu]:
    """Events by one-letter names, each with the letters of those it cites."""
    return {
        EventId(f"${name}"): event(
            V11,
            "org.example",
            sender=USER,
            name=name,
            state_key=name,
            auth_events=[EventId(f"${auth}") for auth in auth],
        )
        for name, auth in cited.items()
    }


def difference_of(events: dict[EventId, Pdu], *states: str, unconflicted: str = "", ordered: bool) -> str:
    """The auth difference of states that are written as letters, in letters; the events come oldest first."""
    ordinals = {known: number for number, known in enumerate(events)} if ordered else None
    conflicted = {("org.example", name): {EventId(f"${name}")} for name in "".join(states) if name not in unconflicted}
    found = auth_difference(
        [{("org.example", name): EventId(f"${name}") for name in state} for state in states],
        LoadedEvents(events, ordinals=ordinals),
        unconflicted={("org.example", name): EventId(f"${name}") for name in unconflicted},
        conflicted=conflicted,
    )
    return "".join(sorted(event_id[1:] for event_id in found))


@pytest.mark.parametrize("ordered", [False, True])
def test_what_both_states_reach_by_different_ways_is_no_difference(ordered: bool) -> None:
    """The end of the chain is reached from one state directly, from the other only by way of what they share."""
    for end, middle, shared in ("edc", "cde", "azm"):
        events = graph_of({end: "", middle: end, shared: middle, "x": shared, "y": shared + end})
        assert difference_of(events, "x", "y", ordered=ordered) == ""


@pytest.mark.parametrize("ordered", [False, True])
def test_a_difference_is_followed_to_its_end(ordered: bool) -> None:
    events = graph_of({"a": "", "b": "a", "c": "b", "d": "c", "e": "d", "z": "a"})
    assert difference_of(events, "e", "z", ordered=ordered) == "bcd"
    assert difference_of(events, "e", "", ordered=ordered) == "abcd"
    # An unconflicted event takes itself and all below out of it.
    events |= graph_of({"u": "c"})
    assert difference_of(events, "eu", "zu", unconflicted="u", ordered=ordered) == "d"
    assert difference_of(events, "ec", "zc", unconflicted="c", ordered=ordered) == "d"


def test_power_events() -> None:
    def power(event_type: str, state_key: str | None = "", sender: str = ADMIN, membership: str = "") -> bool:
        content = {"membership": membership}
        return is_power_event(event(V11, event_type, sender=sender, state_key=state_key, content=content))

    assert power("m.room.power_levels")
    assert power("m.room.join_rules")
    assert not power("m.room.power_levels", None)
    assert not power("m.room.topic")
    assert not power("m.room.create")
    for membership in ("leave", "ban"):
        assert power("m.room.member", USER, ADMIN, membership)
        assert not power("m.room.member", USER, USER, membership)
    for membership in ("join", "invite", "knock", ""):
        assert not power("m.room.member", USER, ADMIN, membership)


def rooms_with_many_levels() -> RoomGraph:
    """Ten power levels in a row, a topic under each but the last, and three off the row that build on the sixth."""
    graph = RoomGraph(V11)
    graph.begin(ADMIN, **{ADMIN: 50})
    last = "join-admin"
    for number in range(10):
        graph.levels(f"row-{number}", CREATOR, {ADMIN: 50, USER: number}, after=[last])
        last = f"row-{number}"
        # The older the levels, the younger the topic claims to be.
        graph.send(f"topic-{number}", ADMIN, "m.room.topic", {}, after=[last], ts=1000 - number)
    last = "row-5"
    for number in range(3):
        graph.levels(f"off-{number}", CREATOR, {ADMIN: 50, USER: 50 + number}, after=[last])
        last = f"off-{number}"
    graph.send("topic-off", ADMIN, "m.room.topic", {}, after=[last], ts=1000 - 5 + 1)
    return graph


def test_the_mainline_ordering_goes_by_the_position_before_the_time() -> None:
    graph = rooms_with_many_levels()
    names = [f"topic-{number}" for number in range(6)] + ["topic-off"] + [f"topic-{number}" for number in range(6, 10)]
    expected = [graph.id(name) for name in names]
    for ordinals in (None, graph.ordinals):
        loaded = LoadedEvents(graph.events, ordinals=ordinals)
        assert mainline_ordering(sorted(expected), loaded, power_levels=graph.id("row-9")) == expected
    # Without power levels only the times are left.
    by_time = sorted(expected, key=lambda event_id: graph.events[event_id].origin_server_ts)
    assert [
        graph.events[event_id].origin_server_ts
        for event_id in mainline_ordering(expected, LoadedEvents(graph.events), power_levels=None)
    ] == [graph.events[event_id].origin_server_ts for event_id in by_time]


def test_the_mainline_is_not_followed_further_than_events_ask_for() -> None:
    graph = rooms_with_many_levels()
    old = {graph.id(name) for name in ("levels", "row-0", "row-1", "row-2", "row-3")}
    recent = {event_id: pdu for event_id, pdu in graph.events.items() if event_id not in old}
    loaded = LoadedEvents(recent, ordinals={event_id: graph.ordinals[event_id] for event_id in recent})
    topics = [graph.id("topic-off"), graph.id("topic-8")]
    ordered = mainline_ordering(topics, loaded, power_levels=graph.id("row-9"))
    assert ordered == [graph.id("topic-off"), graph.id("topic-8")]


@given(edges=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12))), keys=st.permutations(range(13)))
def test_the_topological_sort_is_the_smallest_of_all(edges: list[tuple[int, int]], keys: list[int]) -> None:
    ids = [EventId(f"${number:02}") for number in range(13)]
    before: dict[EventId, frozenset[EventId]] = {
        known: frozenset(ids[min(edge)] for edge in edges if max(edge) == number and edge[0] != edge[1])
        for number, known in enumerate(ids)
    }
    ordered = lexicographical_topological_sort(before, {known: (keys[n],) for n, known in enumerate(ids)})
    assert sorted(ordered) == ids
    # At each place stands the smallest of those whose predecessors have all come.
    for place, known in enumerate(ordered):
        done = set(ordered[:place])
        candidates = [other for other in ids if other not in done and before[other] <= done]
        assert known == min(candidates, key=lambda other: keys[ids.index(other)])


def large_room(version: RoomVersion, members: int) -> RoomGraph:
    """A room with many members. It is put together without resolving anything, which would take long."""
    graph = RoomGraph(version)
    graph.begin(ADMIN, USER, **{ADMIN: 50, USER: 50})
    state = dict(graph.states[graph.id("join-user")])
    for number in range(members):
        user_id = f"@member{number}:m.example"
        cited = [graph.id("levels"), graph.id("rules"), *([] if version is V12 else [graph.id("create")])]
        pdu = event(
            version,
            "m.room.member",
            sender=user_id,
            name=f"member-{number}",
            state_key=user_id,
            content={"membership": "join"},
            auth_events=cited,
        )
        graph.events[pdu.event_id] = pdu
        state["m.room.member", user_id] = pdu.event_id
    graph.states[graph.id("join-user")] = state
    return graph


@pytest.mark.parametrize("version", versions(1), ids=lambda version: version.identifier)
def test_members_who_are_not_in_dispute_are_not_loaded(version: RoomVersion) -> None:
    graph = large_room(version, 300)
    graph.levels("levels2", CREATOR, {ADMIN: 50}, after=["join-user"])
    graph.send("topic-1", ADMIN, "m.room.topic", {"topic": "1"}, after=["levels2"])
    graph.send("topic-2", USER, "m.room.topic", {"topic": "2"}, after=["join-user"])
    graph.send("kick", CREATOR, "m.room.member", {"membership": "leave"}, after=["topic-2"], state_key=USER)
    states = [graph.states[graph.id(name)] for name in ("topic-1", "kick")]
    store = Store(graph)
    assert store.resolve(states, ordinals=True) == graph.resolve(*states)
    assert len(store.loaded) < 20
    assert store.rounds < 6


@pytest.mark.parametrize("version", versions(2), ids=lambda version: version.identifier)
def test_members_who_came_before_the_fork_are_not_loaded_for_the_difference(version: RoomVersion) -> None:
    """The levels in between are in no state, so they could be in the auth chain of any member who came after them."""
    graph = large_room(version, 300)
    graph.levels("levels2", CREATOR, {ADMIN: 50, USER: 60}, after=["join-user"])
    graph.levels("levels3", CREATOR, {ADMIN: 50}, after=["levels2"])
    graph.send("name", ADMIN, "m.room.name", {"name": "x"}, after=["join-user"])
    states = [graph.states[graph.id(name)] for name in ("levels3", "name")]
    store = Store(graph)
    assert store.resolve(states, ordinals=True) == graph.resolve(*states)
    assert graph.id("levels2") in store.loaded
    assert len(store.loaded) < 20


def test_s13_a_deep_fork_takes_few_rounds_where_chains_come_at_once() -> None:
    """Each of a thousand changes of a profile cites the one before."""
    graph = RoomGraph(V12)
    graph.begin(USER)
    last = "join-user"
    for number in range(200):
        name = f"profile-{number}"
        graph.member(name, USER, "join", after=[last], content={"displayname": name})
        last = name
    graph.send("name", CREATOR, "m.room.name", {"name": "x"}, after=["join-user"])
    states = [graph.states[graph.id(name)] for name in (last, "name")]
    store = Store(graph)
    assert store.resolve(states, ordinals=True, chains=True)["m.room.member", USER] == graph.id(last)
    assert store.rounds < 6


def test_s13_a_graph_with_very_many_paths_is_walked_once() -> None:
    """Layers of events that each cite all of the layer before: 3 to the power of 60 paths."""
    events: dict[EventId, Pdu] = {}
    layer: list[EventId] = []
    for depth in range(60):
        above = [
            event(V2, "m.room.member", sender=USER, name=f"e{depth}-{n}", state_key=f"@{n}:x", auth_events=layer)
            for n in range(3)
        ]
        events |= {pdu.event_id: pdu for pdu in above}
        layer = [pdu.event_id for pdu in above]
    ends = frozenset(layer) | {EventId("$e0-0:one.example")}
    assert len(conflicted_subgraph(ends, LoadedEvents(events))) == 3 * 59 + 1
    slot, other = ("m.room.member", "@0:x"), ("m.room.member", "@1:x")
    states = [{slot: layer[0]}, {slot: layer[1]}]
    conflicted = {slot: {layer[0], layer[1]}}
    assert auth_difference(states, LoadedEvents(events), unconflicted={}, conflicted=conflicted) == set()
    one_sided = [{slot: layer[0]}, {other: EventId("$e0-0:one.example")}]
    conflicted = {slot: {layer[0]}, other: {EventId("$e0-0:one.example")}}
    difference = auth_difference(one_sided, LoadedEvents(events), unconflicted={}, conflicted=conflicted)
    assert len(difference) == 3 * 59 - 1


def cyclic_room(version: RoomVersion) -> tuple[dict[EventId, Pdu], list[StateMap]]:
    """Events with chosen ids, as versions 1 and 2 have them, that cite each other in a circle."""
    graph = RoomGraph(version)
    graph.begin(ADMIN, **{ADMIN: 50})
    base = graph.states[graph.id("join-admin")]
    events = dict(graph.events)
    names = ("circle-1", "circle-2", "circle-3")
    for number, name in enumerate(names):
        cited = [graph.id(other) for other in ("create", "join-creator")] + [graph.id(names[number - 1])]
        pdu = event(
            version,
            "m.room.power_levels",
            sender=CREATOR,
            name=name,
            state_key="",
            content={"users": {CREATOR: 100}},
            auth_events=cited,
        )
        events[pdu.event_id] = pdu
    topic = event(
        version,
        "m.room.topic",
        sender=CREATOR,
        name="topic",
        state_key="",
        auth_events=[graph.id(name) for name in ("create", "join-creator", "circle-1")],
    )
    events[topic.event_id] = topic
    slot = ("m.room.power_levels", "")
    return events, [
        {**base, slot: graph.id("circle-1"), ("m.room.topic", ""): topic.event_id},
        {**base, slot: graph.id("circle-2")},
        base,
    ]


def test_s14_auth_events_in_a_circle_end() -> None:
    events, states = cyclic_room(V2)
    resolved = answer(resolve(V2, states, events))
    # None of the circle can come before the others, so none of it is taken.
    assert resolved["m.room.power_levels", ""] == EventId("$levels:one.example")
    assert resolved["m.room.topic", ""] == EventId("$topic:one.example")
    assert answer(resolve(V2, states[::-1], events)) == resolved


def test_s14_a_mainline_in_a_circle_ends() -> None:
    events, states = cyclic_room(V2)
    topic = states[0]["m.room.topic", ""]
    loaded = LoadedEvents(events)
    for start in ("$circle-2:one.example", "$levels:one.example"):
        ordered = mainline_ordering([topic, states[0]["m.room.member", ADMIN]], loaded, power_levels=EventId(start))
        assert set(ordered) == {topic, states[0]["m.room.member", ADMIN]}


def test_s10_auth_events_of_another_room_authorize_nothing() -> None:
    """They are refused on arrival; should one slip in all the same, the replay does not use it."""
    graph = RoomGraph(V11)
    graph.begin(ADMIN, **{ADMIN: 50})
    elsewhere = RoomGraph(V11)
    elsewhere.begin(USER, **{USER: 100})
    foreign = event(
        V11,
        "m.room.member",
        sender=USER,
        name="foreign-join",
        state_key=USER,
        content={"membership": "join"},
        room=elsewhere.named("create").room_id + "x",  # type: ignore[arg-type]
    )
    topic = event(
        V11,
        "m.room.topic",
        sender=USER,
        name="topic",
        state_key="",
        auth_events=[graph.id("create"), foreign.event_id],
    )
    base = graph.states[graph.id("rules")]
    without_levels = {slot: known for slot, known in base.items() if slot[0] != "m.room.power_levels"}
    with_topic = {**without_levels, ("m.room.topic", ""): topic.event_id}
    events = {**graph.events, foreign.event_id: foreign, topic.event_id: topic}
    resolved = answer(resolve(V11, [without_levels, with_topic], events))
    assert ("m.room.topic", "") not in resolved


def test_what_is_needed_is_named_at_once() -> None:
    graph = RoomGraph(V11)
    graph.begin(ADMIN, USER, **{ADMIN: 50, USER: 50})
    graph.send("topic-1", ADMIN, "m.room.topic", {"topic": "1"}, after=["join-user"])
    graph.send("topic-2", USER, "m.room.topic", {"topic": "2"}, after=["join-user"])
    states = [graph.states[graph.id(name)] for name in ("topic-1", "topic-2")]
    need = resolve(V11, states, {})
    assert need == Need(frozenset({graph.id("topic-1"), graph.id("topic-2")}), with_auth_chains=True)
