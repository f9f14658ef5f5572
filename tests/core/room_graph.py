"""A room as a graph of events that tests grow by hand: each event cites what its place in the graph says."""

from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.core.event_auth.auth_events import auth_event_slots
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu, StateKey, StateMap
from homeserver.core.room_versions import RoomVersion
from homeserver.core.state_resolution.need import Need
from homeserver.core.state_resolution.resolve import resolve
from tests.core.room_values import CREATOR, create, event, event_id


class RoomGraph:
    """All events of a room by their names, and the state after each."""

    def __init__(self, version: RoomVersion, **create_content: Any) -> None:
        self.version = version
        self.events: dict[EventId, Pdu] = {}
        self.states: dict[EventId, StateMap] = {}
        self._add(create(version, **create_content), {})

    def id(self, name: str) -> EventId:
        """The id of the event with a name."""
        return event_id(name, self.version)

    def named(self, name: str) -> Pdu:
        """The event with a name."""
        return self.events[self.id(name)]

    @property
    def ordinals(self) -> dict[EventId, int]:
        """The order in which the events came, which is a topological one."""
        return {known: number for number, known in enumerate(self.events)}

    def send(
        self,
        name: str,
        sender: str,
        event_type: str,
        content: Mapping[str, Any] | None = None,
        *,
        after: Sequence[str],
        state_key: str | None = "",
        ts: int | None = None,
        cites: Sequence[str] | None = None,
    ) -> None:
        """Adds an event that the rules allow.

        Args:
            after: the names of the previous events.
            ts: the time that the event claims; by default it is younger than all before it.
            cites: the names of its auth events, if they are not those that the state before it says.

        Raises:
            Forbidden: the state before it does not allow it.
        """
        before = self.state_after(*after)
        slots = auth_event_slots(
            event_type=event_type,
            sender=sender,
            state_key=state_key,
            content=content or {},
            room_version=self.version,
        )
        cited = [before[slot] for slot in sorted(slots) if slot in before]
        pdu = event(
            self.version,
            event_type,
            sender=sender,
            name=name,
            state_key=state_key,
            content=content,
            prev_events=[self.id(previous) for previous in after],
            auth_events=cited if cites is None else [self.id(other) for other in cites],
            origin_server_ts=len(self.events) if ts is None else ts,
            depth=1 + max(self.named(previous).depth for previous in after),
        )
        check_auth(pdu, {slot: self.events[known] for slot, known in before.items()})
        self._add(pdu, before)

    def member(
        self, name: str, user_id: str, membership: str, *, after: Sequence[str], sender: str | None = None, **rest: Any
    ) -> None:
        """Adds a change of membership."""
        content = {"membership": membership, **rest.pop("content", {})}
        self.send(name, sender or user_id, "m.room.member", content, after=after, state_key=user_id, **rest)

    def levels(self, name: str, sender: str, users: Mapping[str, int], *, after: Sequence[str], **rest: Any) -> None:
        """Adds power levels; the creator keeps its 100 where it needs an entry."""
        own: dict[str, int] = {} if self.version.creators_in_control else {CREATOR: 100}
        content = {"users": {**own, **users}, **rest.pop("content", {})}
        self.send(name, sender, "m.room.power_levels", content, after=after, **rest)

    def begin(self, *joined: str, **levels: int) -> None:
        """Adds the usual first events: the creator's join, `levels`, `rules`, and a `join-<name>` of each user."""
        self.member("join-creator", CREATOR, "join", after=["create"])
        self.levels("levels", CREATOR, levels, after=["join-creator"])
        self.send("rules", CREATOR, "m.room.join_rules", {"join_rule": "public"}, after=["levels"])
        last = "rules"
        for user_id in joined:
            name = f"join-{user_id[1:].partition(':')[0]}"
            self.member(name, user_id, "join", after=[last])
            last = name

    def state_after(self, *names: str) -> StateMap:
        """The state that an event after these would have before it."""
        return self.resolve(*(self.states[self.id(name)] for name in names))

    def resolve(self, *state_sets: StateMap) -> StateMap:
        """Resolves states with all events at hand."""
        resolved = resolve(self.version, state_sets, self.events)
        assert not isinstance(resolved, Need)
        return resolved

    def changed(self, state: StateMap, *names: str, without: Sequence[StateKey] = ()) -> StateMap:
        """A state with some events put into it and some entries taken out."""
        kept = {slot: known for slot, known in state.items() if slot not in without}
        added = [self.named(name) for name in names]
        return kept | {pdu.state_slot: pdu.event_id for pdu in added if pdu.state_slot is not None}

    def _add(self, pdu: Pdu, before: StateMap) -> None:
        assert pdu.event_id not in self.events
        self.events[pdu.event_id] = pdu
        change = {} if pdu.state_slot is None else {pdu.state_slot: pdu.event_id}
        self.states[pdu.event_id] = {**before, **change}
