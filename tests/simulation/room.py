"""A room on several servers, simulated without any I/O: servers are plain values, and the network is a list.

Everything happens by one seed. Users talk, join, kick, ban, promote, close the room and redact; some branch off from
old places of the room or send what they may not. The network delivers late, twice, out of order, or not at all until
asked. Each server judges each event by itself, as the specification says, with the functions that the real server uses.
At rest all must have come to the same conclusions.

https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import (
    auth_event_slots,
    authorizing_slots,
    check_auth_events,
    create_event_id,
    state_from_auth_events,
)
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.event_auth.redactions import redaction_applies
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.event_builder import EventBuilder
from homeserver.core.event_format import PREV_EVENTS_MAX, parse_pdu
from homeserver.core.hashing import reference_hash
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu, StateKey, StateMap
from homeserver.core.room_versions import RoomVersion
from homeserver.core.signing import SigningKey
from homeserver.core.state_resolution.need import Need
from homeserver.core.state_resolution.resolve import resolve
from homeserver.core.unpadded_base64 import encode_base64

CREATE: StateKey = ("m.room.create", "")
POWER_LEVELS: StateKey = ("m.room.power_levels", "")


@dataclass
class Server:
    """What one server knows of the room.

    Attributes:
        events: all events that it has judged, in the order in which it did so.
        states_before: the state before each of them.
        rejected: those that break the rules where they stand.
        soft_failed: those that only break them by the state at the time they arrived.
        extremities: what its next event will cite as previous.
        waiting: events that came before those they refer to.
    """

    name: ServerName
    version: RoomVersion
    key: SigningKey
    users: Sequence[UserId]
    events: dict[EventId, Pdu] = field(default_factory=dict)
    states_before: dict[EventId, StateMap] = field(default_factory=dict)
    rejected: set[EventId] = field(default_factory=set)
    soft_failed: set[EventId] = field(default_factory=set)
    extremities: set[EventId] = field(default_factory=set)
    waiting: dict[EventId, Pdu] = field(default_factory=dict)
    ordinals: dict[EventId, int] = field(default_factory=dict)

    def receive(self, pdu: Pdu) -> None:
        """Judges an event, and those that waited for it; or lets it wait itself."""
        if pdu.event_id in self.events:
            return
        self.waiting[pdu.event_id] = pdu
        ready = [pdu]
        while ready:
            for event in ready:
                if not self._lacking(event):
                    del self.waiting[event.event_id]
                    self._judge(event)
            ready = [event for event in self.waiting.values() if not self._lacking(event)]

    @property
    def missing(self) -> set[EventId]:
        """What the waiting events wait for."""
        return {lacking for pdu in self.waiting.values() for lacking in self._lacking(pdu)} - self.waiting.keys()

    def state_after(self, *event_ids: EventId) -> StateMap:
        """The state that an event after these has before it. Events are loaded for it only as they are asked for."""
        state_sets = [self._state_after_one(event_id) for event_id in event_ids]
        loaded: dict[EventId, Pdu] = {}
        while True:
            result = resolve(self.version, state_sets, loaded, rejected=self.rejected, ordinals=self.ordinals)
            if not isinstance(result, Need):
                return result
            loaded |= {event_id: self.events[event_id] for event_id in result.event_ids}

    @property
    def current_state(self) -> StateMap:
        """The state after all extremities."""
        return self.state_after(*sorted(self.extremities))

    def pdus(self, state: StateMap) -> dict[StateKey, Pdu]:
        """The events of a state."""
        return {slot: self.events[event_id] for slot, event_id in state.items()}

    def _state_after_one(self, event_id: EventId) -> StateMap:
        before, slot = self.states_before[event_id], self.events[event_id].state_slot
        return before if slot is None or event_id in self.rejected else {**before, slot: event_id}

    def _lacking(self, pdu: Pdu) -> set[EventId]:
        return {*pdu.prev_events, *pdu.auth_events} - self.events.keys()

    def _judge(self, pdu: Pdu) -> None:
        before = self.state_after(*pdu.prev_events)
        known = {event_id: self.events[event_id] for event_id in pdu.auth_events}
        if self.version.room_id_is_create_hash and pdu.type != CREATE[0]:
            create_id = create_event_id(pdu.room_id)
            known[create_id] = self.events[create_id]
        self.events[pdu.event_id] = pdu
        self.ordinals[pdu.event_id] = len(self.ordinals)
        self.states_before[pdu.event_id] = before
        try:
            check_auth_events(pdu, known, rejected=self.rejected)
            check_auth(pdu, state_from_auth_events(pdu, known))
            check_auth(pdu, self._deciding(pdu, before))
        except Forbidden:
            self.rejected.add(pdu.event_id)
            return
        try:
            if self.extremities:
                check_auth(pdu, self._deciding(pdu, self.current_state))
        except Forbidden:
            self.soft_failed.add(pdu.event_id)
            return
        self.extremities.difference_update(pdu.prev_events)
        self.extremities.add(pdu.event_id)

    def _deciding(self, pdu: Pdu, state: StateMap) -> dict[StateKey, Pdu]:
        return {slot: self.events[state[slot]] for slot in authorizing_slots(pdu) if slot in state}

    def make(
        self,
        sender: UserId,
        event_type: str,
        content: Mapping[str, Any],
        *,
        state_key: str | None,
        room_id: RoomId | None,
        now: int,
        redacts: EventId | None = None,
        prev_events: Sequence[EventId] | None = None,
        cites: StateMap | None = None,
    ) -> Pdu:
        """Builds an event.

        Args:
            prev_events: by default the extremities.
            cites: the state to take auth events from, if it is not the one before the event.
        """
        after = sorted(self.extremities)[:PREV_EVENTS_MAX] if prev_events is None else prev_events
        state = self.state_after(*after) if cites is None else cites
        slots = auth_event_slots(
            event_type=event_type, sender=sender, state_key=state_key, content=content, room_version=self.version
        )
        auth_events = [state[slot] for slot in sorted(slots) if slot in state]
        cited = {*after, *auth_events}
        builder = EventBuilder(
            room_version=self.version,
            room_id=room_id,
            type=event_type,
            sender=sender,
            content=content,
            origin_server_ts=now,
            depth=1 + max((self.events[event_id].depth for event_id in after), default=0),
            prev_events=after,
            auth_events=auth_events,
            state_key=state_key,
            redacts=redacts,
            reference_hashes={
                event_id: encode_base64(reference_hash(self.events[event_id].json, self.version)) for event_id in cited
            },
        )
        return builder.build(server_name=self.name, key=self.key)

    @property
    def redacted(self) -> set[EventId]:
        """The events that redactions have taken the content of."""
        accepted = [pdu for pdu in self.events.values() if pdu.event_id not in self.rejected]
        found = set()
        for redaction in accepted:
            target = self.events.get(redaction.redacts) if redaction.redacts else None
            if target is not None and target.event_id not in self.rejected:
                state = self.pdus(self.states_before[redaction.event_id])
                levels = PowerLevels.in_force(state.get(POWER_LEVELS), state[CREATE])
                if redaction_applies(redaction=redaction, target=target, power_levels=levels):
                    found.add(target.event_id)
        return found


class Simulation:
    """One room, its servers, and the network between them."""

    def __init__(self, version: RoomVersion, seed: int, *, servers: int = 3, users_per_server: int = 2) -> None:
        self.version = version
        self._random = Random(f"{version.identifier}-{seed}")
        self.servers = [_new_server(version, number, users_per_server) for number in range(servers)]
        self.users = [user_id for server in self.servers for user_id in server.users]
        self.creator = self.users[0]
        self._in_flight: list[tuple[Server, Pdu]] = []
        self._clock = 1_000
        self.room_id: RoomId | None = None
        self._open_room()

    def run(self, steps: int) -> None:
        """Lets things happen, then brings everything to rest."""
        for _ in range(steps):
            if self._random.random() < 0.5:
                self._act(self._random.choice(self.servers))
            else:
                self._deliver()
        self.come_to_rest()

    def come_to_rest(self) -> None:
        """Delivers all that is in flight, and lets servers ask for what they miss, until nobody misses anything."""
        while self._in_flight:
            self._deliver()
        everything = {event_id: pdu for server in self.servers for event_id, pdu in server.events.items()}
        for server in self.servers:
            while missing := server.missing:
                for event_id in sorted(missing):
                    server.receive(self._transmitted(everything[event_id]))
            # What was lost and is referred to by nothing comes with the next event in a real room; here it comes now.
            for event_id in sorted(everything.keys() - server.events.keys()):
                server.receive(self._transmitted(everything[event_id]))

    def _transmitted(self, pdu: Pdu) -> Pdu:
        """The event as it is read at the other end; it must be the same one there."""
        received = parse_pdu(dict(pdu.json), self.version, room_id=self.room_id)
        assert received == pdu
        return received

    def _deliver(self) -> None:
        """Delivers one event, not the oldest one necessarily; now and then it comes again, or is lost."""
        if not self._in_flight:
            return
        place = self._random.randrange(min(len(self._in_flight), 12))
        server, pdu = self._in_flight[place]
        fate = self._random.random()
        if fate > 0.1:
            del self._in_flight[place]
        if fate < 0.95:
            server.receive(self._transmitted(pdu))

    def _send(self, server: Server, pdu: Pdu) -> None:
        server.receive(pdu)
        self._in_flight += [(other, pdu) for other in self.servers if other is not server]

    def _make(self, server: Server, sender: UserId, event_type: str, content: Any, **rest: Any) -> Pdu:
        # Clocks are wrong by much more than it takes to say something.
        self._clock += 10
        now = self._clock + self._random.randrange(-200, 200)
        return server.make(sender, event_type, content, room_id=self.room_id, now=now, **rest)

    def _open_room(self) -> None:
        """Makes the first events, and lets every server have them."""
        first, version = self.servers[0], self.version
        if not version.room_id_is_create_hash:
            self.room_id = RoomId(f"!room:{first.name}")
        content: dict[str, Any] = {"room_version": version.identifier}
        content |= {} if version.implicit_room_creator else {"creator": self.creator}
        created = self._make(first, self.creator, "m.room.create", content, state_key="", prev_events=[])
        self.room_id = created.room_id
        first.receive(created)
        levels = {self.users[1]: 60, self.users[2]: 50} | ({} if version.creators_in_control else {self.creator: 100})
        for event_type, state_key, content in (
            ("m.room.member", self.creator, {"membership": "join"}),
            ("m.room.power_levels", "", {"users": levels, "events": {"m.room.power_levels": 50}}),
            ("m.room.join_rules", "", {"join_rule": "public"}),
        ):
            first.receive(self._make(first, self.creator, event_type, content, state_key=state_key))
        for server in self.servers:
            for pdu in first.events.values():
                server.receive(pdu)
        for server in self.servers:
            user_id = server.users[0]
            if user_id != self.creator:
                pdu = self._make(server, user_id, "m.room.member", {"membership": "join"}, state_key=user_id)
                for other in self.servers:
                    other.receive(pdu)

    def _act(self, server: Server) -> None:
        """Lets a user of a server do something, mostly what the user may do."""
        random = self._random
        sender, target = random.choice(server.users), random.choice(self.users)
        event_type, content, rest = self._idea(server, sender, target)
        mood = random.random()
        if mood < 0.12:
            # From an old place in the room, for example from before a ban.
            rest["prev_events"] = [random.choice([*server.events][4:])]
        elif mood < 0.17:
            # With the permissions of an old place.
            rest["cites"] = server.states_before[random.choice([*server.events][4:])]
        pdu = self._make(server, sender, event_type, content, **rest)
        if mood < 0.93:
            try:
                check_auth(pdu, server.pdus(server.state_after(*pdu.prev_events)))
            except Forbidden:
                return
        self._send(server, pdu)

    def _idea(self, server: Server, sender: UserId, target: UserId) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Something to do: a type, a content, and what else the event has."""
        random = self._random
        match random.choice(("message", "topic", "topic", "join", "join", "leave", "kick", "ban", "invite", "levels",
                             "levels", "rules", "redaction", "knock")):  # fmt: skip
            case "topic":
                return "m.room.topic", {"topic": str(random.random())}, {"state_key": ""}
            case "join" | "knock" | "leave" as membership:
                return "m.room.member", {"membership": membership}, {"state_key": sender}
            case "kick" | "ban" | "invite" as action:
                content = {"membership": "leave" if action == "kick" else action}
                return "m.room.member", content, {"state_key": target}
            case "levels":
                return "m.room.power_levels", self._changed_levels(server, target), {"state_key": ""}
            case "rules":
                join_rule = random.choice(("public", "public", "invite", "knock"))
                return "m.room.join_rules", {"join_rule": join_rule}, {"state_key": ""}
            case "redaction":
                target_id = random.choice([*server.events])
                return "m.room.redaction", {}, {"state_key": None, "redacts": target_id}
            case _:
                return "m.room.message", {"body": str(random.random())}, {"state_key": None}

    def _changed_levels(self, server: Server, target: UserId) -> dict[str, Any]:
        """The current power levels with another level for somebody or something."""
        # There may be none: until version 11 state resolution loses them when their sender has left in all states.
        current = server.pdus(server.current_state).get(POWER_LEVELS)
        content = {} if current is None else dict(current.content)
        level = self._random.choice((0, 10, 50, 60, 90))
        if self._random.random() < 0.3:
            return content | {self._random.choice(("ban", "kick", "invite", "state_default")): level}
        return content | {"users": {**content.get("users", {}), target: level}}


def _new_server(version: RoomVersion, number: int, users: int) -> Server:
    name = ServerName(f"s{number}.example")
    return Server(
        name=name,
        version=version,
        key=SigningKey.from_seed("1", bytes([number]) * 32),
        users=[UserId(f"@u{user}:{name}") for user in range(users)],
    )
