"""Rooms that grow at random: forks, kicks, bans, promotions and topics, as far as the rules allow them."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from homeserver.core.errors import Forbidden
from homeserver.core.pdu import StateMap
from homeserver.core.room_versions import RoomVersion
from tests.core.room_graph import RoomGraph
from tests.core.room_values import CREATOR, versions

USERS = (CREATOR, "@alice:a.example", "@bob:b.example", "@charlie:c.example")
# Those who can do something try more often.
ACTORS = (CREATOR, CREATOR, USERS[1], USERS[1], *USERS[2:])
ACTIONS = ("topic", "topic", "name", "levels", "levels", "join", "leave", "kick", "ban", "invite", "rules", "message")

# One of each kind of state resolution, and the two whose rules differ most within a kind.
REPRESENTATIVES: Sequence[RoomVersion] = (*versions(1, 2), *versions(11, 12))


@dataclass(frozen=True)
class Step:
    """What somebody tries: `parents` count back from the latest event, `value` is whatever the action makes of it."""

    action: str
    actor: str
    target: str
    value: int
    ts: int
    parents: tuple[int, ...]


STEPS = st.builds(
    Step,
    action=st.sampled_from(ACTIONS),
    actor=st.sampled_from(ACTORS),
    target=st.sampled_from(USERS),
    value=st.integers(0, 3),
    ts=st.integers(0, 20),
    parents=st.tuples(st.integers(0, 4))
    | st.tuples(st.integers(0, 1))
    | st.tuples(st.integers(0, 2), st.integers(0, 5)),
)


@dataclass(frozen=True)
class RandomRoom:
    """A room and the states after some of its events, which are to be merged."""

    graph: RoomGraph
    state_sets: list[StateMap]


def grow(version: RoomVersion, steps: Sequence[Step]) -> RandomRoom:
    """Makes a room and lets the steps happen that are allowed where they stand."""
    graph = RoomGraph(version)
    graph.begin(*USERS[1:3], **{USERS[1]: 50})
    names = ["join-bob"]
    for number, step in enumerate(steps):
        name = f"{number}-{step.action}"
        after = sorted({names[-1 - parent % len(names)] for parent in step.parents})
        try:
            _take(graph, name, step, after)
        except Forbidden:
            continue
        names.append(name)
    followed = {previous for pdu in graph.events.values() for previous in pdu.prev_events}
    tips = [event_id for event_id in graph.events if event_id not in followed]
    return RandomRoom(graph, [graph.states[event_id] for event_id in (*tips[-3:], graph.id(names[len(names) // 2]))])


def _take(graph: RoomGraph, name: str, step: Step, after: Sequence[str]) -> None:
    match step.action:
        case "topic" | "name":
            graph.send(name, step.actor, f"m.room.{step.action}", {step.action: name}, after=after, ts=step.ts)
        case "levels":
            users = {USERS[1]: 50} | ({} if step.target == CREATOR else {step.target: 25 * step.value})
            content = {"events": {"m.room.power_levels": 50 if step.value else 75}, "kick": 25, "ban": 25}
            graph.levels(name, step.actor, users, after=after, ts=step.ts, content=content)
        case "join" | "leave":
            graph.member(name, step.actor, step.action, after=after, ts=step.ts)
        case "kick":
            graph.member(name, step.target, "leave", sender=step.actor, after=after, ts=step.ts)
        case "ban" | "invite":
            graph.member(name, step.target, step.action, sender=step.actor, after=after, ts=step.ts)
        case "rules":
            join_rule = "public" if step.value % 2 else "invite"
            graph.send(name, step.actor, "m.room.join_rules", {"join_rule": join_rule}, after=after, ts=step.ts)
        case _:
            graph.send(name, step.actor, "m.room.message", after=after, state_key=None, ts=step.ts)


def random_rooms(room_versions: Sequence[RoomVersion] = REPRESENTATIVES) -> st.SearchStrategy[RandomRoom]:
    """Rooms of some versions."""
    return st.builds(grow, st.sampled_from(room_versions), st.lists(STEPS, min_size=12, max_size=24))
