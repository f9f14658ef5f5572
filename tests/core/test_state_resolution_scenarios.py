"""State resolution in small rooms whose outcome can be told by hand: attacks, races, and what went wrong before 2.1."""

import pytest

from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.state_resolution.need import Need
from homeserver.core.state_resolution.resolve import resolve
from tests.core.room_graph import RoomGraph
from tests.core.room_values import CREATOR, VERSIONS, versions

ALICE, BOB, CHARLIE, MALLORY = "@alice:a.example", "@bob:b.example", "@charlie:c.example", "@mallory:m.example"

TOPIC, LEVELS, RULES = ("m.room.topic", ""), ("m.room.power_levels", ""), ("m.room.join_rules", "")
V1, V12 = ROOM_VERSIONS["1"], ROOM_VERSIONS["12"]

all_versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.identifier)
from_version_2 = pytest.mark.parametrize("version", versions(2), ids=lambda version: version.identifier)
version_2_to_11 = pytest.mark.parametrize("version", versions(2, 11), ids=lambda version: version.identifier)


def room(version: RoomVersion, *joined: str, **levels: int) -> RoomGraph:
    graph = RoomGraph(version)
    graph.begin(*joined, **levels)
    return graph


def topic(graph: RoomGraph, name: str, sender: str, *, after: list[str], ts: int | None = None) -> None:
    graph.send(name, sender, "m.room.topic", {"topic": name}, after=after, ts=ts)


@all_versions
def test_no_states_and_equal_states(version: RoomVersion) -> None:
    graph = room(version, ALICE)
    state = graph.states[graph.id("join-alice")]
    assert resolve(version, [], {}) == {}
    assert resolve(version, [state], {}) == state
    assert resolve(version, [state, dict(state), state], {}) == state


@all_versions
def test_changes_of_different_entries_are_united(version: RoomVersion) -> None:
    graph = room(version, ALICE, **{ALICE: 50})
    topic(graph, "topic", ALICE, after=["join-alice"])
    graph.member("join-bob", BOB, "join", after=["join-alice"])
    merged = graph.state_after("topic", "join-bob")
    assert merged[TOPIC] == graph.id("topic")
    assert merged["m.room.member", BOB] == graph.id("join-bob")


@from_version_2
def test_a_ban_beats_what_the_banned_did_meanwhile(version: RoomVersion) -> None:
    """The topic claims to be younger than the ban, but bans are power events and come first."""
    graph = room(version, MALLORY, **{MALLORY: 50})
    graph.member("ban", MALLORY, "ban", sender=CREATOR, after=["join-mallory"], ts=100)
    topic(graph, "topic", MALLORY, after=["join-mallory"], ts=50)
    merged = graph.state_after("ban", "topic")
    assert merged["m.room.member", MALLORY] == graph.id("ban")
    assert TOPIC not in merged


@from_version_2
def test_a_ban_beats_a_join_that_did_not_know_of_it(version: RoomVersion) -> None:
    graph = room(version, ALICE)
    graph.member("ban", MALLORY, "ban", sender=CREATOR, after=["join-alice"], ts=1000)
    graph.member("join-mallory", MALLORY, "join", after=["join-alice"], ts=2000)
    merged = graph.state_after("ban", "join-mallory")
    assert merged["m.room.member", MALLORY] == graph.id("ban")


@from_version_2
def test_of_a_ban_and_a_demotion_of_the_banner_the_mightier_sender_comes_first(version: RoomVersion) -> None:
    """The creator demotes the moderator while the moderator bans somebody: the ban is undone, whatever its time."""
    graph = room(version, ALICE, BOB, **{ALICE: 50})
    graph.levels("demotion", CREATOR, {ALICE: 0}, after=["join-bob"], ts=1000)
    graph.member("ban", BOB, "ban", sender=ALICE, after=["join-bob"], ts=1)
    merged = graph.state_after("demotion", "ban")
    assert merged[LEVELS] == graph.id("demotion")
    assert merged["m.room.member", BOB] == graph.id("join-bob")


@from_version_2
def test_power_levels_of_equals_are_applied_by_their_time(version: RoomVersion) -> None:
    """The later one wins, unless the earlier one took the power for it away."""
    both, content = {ALICE: 60, BOB: 60}, {"events": {"m.room.power_levels": 60}}
    graph = room(version, ALICE, BOB)
    graph.levels("open", CREATOR, both, after=["join-bob"], content=content)
    graph.levels("by-alice", ALICE, both, after=["open"], content=content | {"ban": 60}, ts=200)
    graph.levels("by-bob", BOB, both, after=["open"], content=content | {"invite": 60}, ts=100)
    assert graph.state_after("by-alice", "by-bob")[LEVELS] == graph.id("by-alice")
    graph.levels("bob-resigns", BOB, {ALICE: 60}, after=["open"], content=content, ts=50)
    assert graph.state_after("by-bob", "bob-resigns")[LEVELS] == graph.id("bob-resigns")


@from_version_2
def test_a_topic_conflict_goes_to_the_one_that_builds_on_younger_power_levels(version: RoomVersion) -> None:
    """Mainline ordering: the topic under newer levels is applied last and wins, though its time is older."""
    graph = room(version, ALICE, BOB, **{ALICE: 50, BOB: 50})
    topic(graph, "old-levels", ALICE, after=["join-bob"], ts=900)
    graph.levels("levels2", CREATOR, {ALICE: 50, BOB: 50, CHARLIE: 10}, after=["join-bob"])
    topic(graph, "new-levels", BOB, after=["levels2"], ts=100)
    assert graph.state_after("old-levels", "new-levels")[TOPIC] == graph.id("new-levels")


@from_version_2
def test_a_topic_conflict_on_the_same_levels_goes_to_the_later_time(version: RoomVersion) -> None:
    graph = room(version, ALICE, BOB, **{ALICE: 50, BOB: 50})
    topic(graph, "first", ALICE, after=["join-bob"], ts=900)
    topic(graph, "second", BOB, after=["join-bob"], ts=100)
    assert graph.state_after("first", "second")[TOPIC] == graph.id("first")
    # At the same time the greater event id wins.
    topic(graph, "third", BOB, after=["join-bob"], ts=900)
    assert graph.state_after("first", "third")[TOPIC] == graph.id("third")


@from_version_2
def test_who_lost_the_power_loses_the_topic(version: RoomVersion) -> None:
    graph = room(version, ALICE, BOB, **{ALICE: 50, BOB: 50})
    topic(graph, "before", BOB, after=["join-bob"])
    graph.levels("demotion", CREATOR, {BOB: 50}, after=["before"])
    topic(graph, "meanwhile", ALICE, after=["before"])
    assert graph.state_after("demotion", "meanwhile")[TOPIC] == graph.id("before")


@from_version_2
def test_a_self_promotion_on_a_side_branch_is_worth_nothing(version: RoomVersion) -> None:
    """Somebody lost their power; a branch from before, in which they promote a friend, does not bring it back."""
    graph = room(version, MALLORY, BOB, **{MALLORY: 50})
    graph.levels("open", CREATOR, {MALLORY: 50}, after=["join-bob"], content={"events": {"m.room.power_levels": 50}})
    graph.levels("demotion", CREATOR, {}, after=["open"], ts=500)
    graph.levels(
        "promotion",
        MALLORY,
        {MALLORY: 50, BOB: 50},
        after=["open"],
        content={"events": {"m.room.power_levels": 50}},
        ts=1,
    )
    topic(graph, "topic", BOB, after=["promotion"])
    merged = graph.state_after("demotion", "topic")
    assert merged[LEVELS] == graph.id("demotion")
    assert TOPIC not in merged


@from_version_2
def test_closing_the_room_beats_a_join_that_did_not_know_of_it(version: RoomVersion) -> None:
    graph = room(version, ALICE)
    graph.send("closed", CREATOR, "m.room.join_rules", {"join_rule": "invite"}, after=["join-alice"], ts=999)
    graph.member("join-bob", BOB, "join", after=["join-alice"], ts=1)
    merged = graph.state_after("closed", "join-bob")
    assert merged[RULES] == graph.id("closed")
    assert ("m.room.member", BOB) not in merged


@from_version_2
def test_the_auth_difference_brings_in_what_is_in_no_state(version: RoomVersion) -> None:
    """One branch made Alice a moderator and took it back. Her topic stands only if that first step is replayed."""
    graph = room(version, ALICE)
    graph.levels("promotion", CREATOR, {ALICE: 50}, after=["join-alice"])
    topic(graph, "topic", ALICE, after=["promotion"])
    graph.levels("demotion", CREATOR, {}, after=["topic"])
    graph.send("name", CREATOR, "m.room.name", {"name": "x"}, after=["join-alice"])
    merged = graph.state_after("demotion", "name")
    assert merged[LEVELS] == graph.id("demotion")
    # Now the topic is replayed after the demotion, and lost: this algorithm is as it is, and all servers agree on it.
    assert TOPIC not in merged
    assert merged["m.room.name", ""] == graph.id("name")


@from_version_2
def test_an_unconflicted_entry_that_builds_on_an_old_event_keeps_it_out_of_the_difference(version: RoomVersion) -> None:
    """Alice was demoted in both states. Her topic under the old levels does not bring those levels back into play."""
    graph = room(version, ALICE, BOB, **{ALICE: 50, BOB: 50})
    topic(graph, "first", BOB, after=["join-bob"], ts=900)
    graph.levels("levels2", CREATOR, {ALICE: 60, BOB: 50}, after=["first"])
    topic(graph, "second", ALICE, after=["levels2"], ts=100)
    graph.levels("levels3", CREATOR, {BOB: 50}, after=["levels2"])
    with_first = graph.states[graph.id("levels3")]
    with_second = graph.changed(with_first, "second")
    merged = graph.resolve(with_first, with_second)
    assert merged[LEVELS] == graph.id("levels3")
    assert merged[TOPIC] == graph.id("first")


def member_that_one_state_lost(version: RoomVersion) -> bool:
    """Charlie joined while the room was public; it was closed since. One of two states has lost the membership.

    Returns whether Charlie is in the room in the end.
    """
    graph = room(version, ALICE)
    graph.member("join-charlie", CHARLIE, "join", after=["join-alice"])
    graph.send("closed", CREATOR, "m.room.join_rules", {"join_rule": "invite"}, after=["join-charlie"])
    whole = graph.states[graph.id("closed")]
    merged = graph.resolve(whole, graph.changed(whole, without=[("m.room.member", CHARLIE)]))
    assert merged[RULES] == graph.id("closed")
    return ("m.room.member", CHARLIE) in merged


@version_2_to_11
def test_version_2_judges_a_join_by_join_rules_that_came_later(version: RoomVersion) -> None:
    """The flaw that revision 2.1 mends: the replay starts from a state that the replayed events never saw."""
    assert not member_that_one_state_lost(version)


def test_revision_2_1_starts_from_the_empty_state_and_keeps_the_member() -> None:
    assert member_that_one_state_lost(V12)


def levels_with_a_gap(version: RoomVersion) -> tuple[RoomGraph, str]:
    """Two states with the first and the third power levels, both of which have the second in their auth chains.

    Only the second gave Alice the power for the third. The name is the one of the levels that are left.
    """
    graph = room(version, ALICE, BOB)
    graph.levels(
        "levels2", CREATOR, {ALICE: 80, BOB: 50}, after=["join-bob"], content={"events": {"m.room.power_levels": 80}}
    )
    topic(graph, "topic", BOB, after=["levels2"])
    graph.levels(
        "levels3",
        ALICE,
        {ALICE: 80, BOB: 60},
        after=["topic"],
        content={"events": {"m.room.power_levels": 80}},
    )
    latest = graph.states[graph.id("levels3")]
    earlier = graph.changed(latest, "levels")
    merged = graph.resolve(earlier, latest)
    return graph, graph.events[merged[LEVELS]].event_id


@version_2_to_11
def test_version_2_resets_power_levels_across_a_gap(version: RoomVersion) -> None:
    graph, left = levels_with_a_gap(version)
    assert left == graph.id("levels")


def test_revision_2_1_fills_the_gap_with_the_conflicted_state_subgraph() -> None:
    graph, left = levels_with_a_gap(V12)
    assert left == graph.id("levels3")


@from_version_2
def test_s12_a_state_that_is_only_a_small_part_does_not_reset_the_room(version: RoomVersion) -> None:
    """A server that claims an almost empty state makes everything conflicted, and it is all replayed and kept."""
    graph = room(version, ALICE, BOB, **{ALICE: 50})
    topic(graph, "topic", ALICE, after=["join-bob"])
    whole = graph.states[graph.id("topic")]
    small = {slot: known for slot, known in whole.items() if slot[0] == "m.room.create"}
    assert graph.resolve(whole, small) == whole
    assert graph.resolve(small, whole, {}) == whole


@all_versions
def test_a_rejected_event_does_not_get_into_the_state(version: RoomVersion) -> None:
    graph = room(version, ALICE, BOB, **{ALICE: 50, BOB: 50})
    topic(graph, "first", ALICE, after=["join-bob"], ts=1)
    topic(graph, "second", BOB, after=["join-bob"], ts=2)
    states = [graph.states[graph.id(name)] for name in ("first", "second")]
    for loser, winner in (("first", "second"), ("second", "first")):
        resolved = resolve(version, states, graph.events, rejected=frozenset({graph.id(loser)}))
        assert not isinstance(resolved, Need)
        assert resolved[TOPIC] == graph.id(winner)


@from_version_2
def test_a_rejected_auth_event_authorizes_nothing(version: RoomVersion) -> None:
    """What the state lacks is taken from an event's own auth events, but not from rejected ones."""
    graph = room(version, ALICE)
    graph.send("closed", CREATOR, "m.room.join_rules", {"join_rule": "invite"}, after=["join-alice"])
    graph.member("invite-bob", BOB, "invite", sender=ALICE, after=["closed"])
    graph.member("join-bob", BOB, "join", after=["invite-bob"])
    with_bob = graph.states[graph.id("join-bob")]
    without_bob = graph.states[graph.id("closed")]
    allowed = resolve(version, [with_bob, without_bob], graph.events)
    assert not isinstance(allowed, Need)
    assert allowed["m.room.member", BOB] == graph.id("join-bob")
    refused = resolve(version, [with_bob, without_bob], graph.events, rejected=frozenset({graph.id("invite-bob")}))
    assert not isinstance(refused, Need)
    assert ("m.room.member", BOB) not in refused


def test_version_1_prefers_the_youngest_topic_by_depth() -> None:
    graph = room(V1, ALICE, BOB, **{ALICE: 50, BOB: 50})
    topic(graph, "shallow", ALICE, after=["join-bob"], ts=900)
    graph.send("message", BOB, "m.room.message", after=["join-bob"], state_key=None)
    topic(graph, "deep", BOB, after=["message"], ts=1)
    assert graph.state_after("shallow", "deep")[TOPIC] == graph.id("deep")


def test_version_1_at_the_same_depth_takes_the_smallest_hash() -> None:
    graph = room(V1, ALICE, BOB, **{ALICE: 50, BOB: 50})
    topic(graph, "topic-a", ALICE, after=["join-bob"])
    topic(graph, "topic-b", BOB, after=["join-bob"])
    # SHA-1 of $topic-a:one.example begins with ae, of $topic-b:one.example with 47.
    assert graph.state_after("topic-a", "topic-b")[TOPIC] == graph.id("topic-b")


def test_version_1_keeps_the_oldest_of_topics_that_nobody_may_set_any_more() -> None:
    graph = room(V1, ALICE, **{ALICE: 50})
    topic(graph, "first", ALICE, after=["join-alice"])
    graph.send("message", ALICE, "m.room.message", after=["join-alice"], state_key=None)
    topic(graph, "second", ALICE, after=["message"])
    graph.levels("demotion", CREATOR, {}, after=["join-alice"])
    states = [graph.changed(graph.states[graph.id("demotion")], name) for name in ("first", "second")]
    assert graph.resolve(*states)[TOPIC] == graph.id("first")


def test_version_1_power_levels_stop_at_the_first_that_is_not_allowed() -> None:
    graph = room(V1, ALICE, BOB, **{ALICE: 90, BOB: 50})
    graph.levels("open", CREATOR, {ALICE: 90}, after=["join-bob"], content={"events": {"m.room.power_levels": 50}})
    graph.levels("demotion", CREATOR, {ALICE: 0, BOB: 50}, after=["open"])
    graph.send("message", ALICE, "m.room.message", after=["open"], state_key=None)
    graph.levels("by-alice", ALICE, {ALICE: 90, BOB: 90}, after=["message"])
    assert graph.state_after("demotion", "by-alice")[LEVELS] == graph.id("demotion")


def test_version_1_judges_topics_by_the_power_levels_that_won() -> None:
    graph = room(V1, ALICE)
    topic(graph, "first", CREATOR, after=["join-alice"])
    topic(graph, "second", CREATOR, after=["first"])
    graph.levels("promotion", CREATOR, {ALICE: 50}, after=["first"])
    graph.send("message", ALICE, "m.room.message", after=["promotion"], state_key=None)
    topic(graph, "by-alice", ALICE, after=["message"])
    merged = graph.state_after("second", "by-alice")
    assert merged[LEVELS] == graph.id("promotion")
    assert merged[TOPIC] == graph.id("by-alice")


def test_version_1_judges_memberships_by_the_join_rules_that_won() -> None:
    graph = room(V1, ALICE, BOB)
    graph.send("closed", CREATOR, "m.room.join_rules", {"join_rule": "invite"}, after=["join-bob"])
    graph.member("bob-leaves", BOB, "leave", after=["closed"])
    graph.send("open", CREATOR, "m.room.join_rules", {"join_rule": "public"}, after=["bob-leaves"])
    graph.member("bob-returns", BOB, "join", after=["open"])
    graph.send("message", CREATOR, "m.room.message", after=["bob-leaves"], state_key=None)
    merged = graph.state_after("message", "bob-returns")
    assert merged[RULES] == graph.id("open")
    assert merged["m.room.member", BOB] == graph.id("bob-returns")


def test_version_1_memberships_do_not_see_each_other() -> None:
    """A kick counts for nothing while the kicker's own membership is in conflict, whichever is looked at first."""
    graph = room(V1, ALICE, BOB, **{ALICE: 50})
    graph.member("bob-renamed", BOB, "join", after=["join-bob"], content={"displayname": "B"})
    graph.send("message", ALICE, "m.room.message", after=["join-bob"], state_key=None)
    graph.member("kick", BOB, "leave", sender=ALICE, after=["message"])
    graph.member("alice-leaves", ALICE, "leave", after=["kick"])
    merged = graph.state_after("alice-leaves", "bob-renamed")
    assert merged["m.room.member", ALICE] == graph.id("alice-leaves")
    assert merged["m.room.member", BOB] == graph.id("bob-renamed")


def test_version_1_a_missing_entry_is_no_conflict() -> None:
    graph = room(V1, ALICE, BOB)
    state = graph.states[graph.id("join-bob")]
    assert resolve(V1, [state, {}], {}) == state
