"""A room as a fake server of tests holds it: a server of `tests.simulation.room`, with what others ask of it.

It judges events as the specification says, by the functions of the core; so what it says of a room's state is what a
well-behaved server would say.
"""

import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homeserver.core.event_auth.auth_events import create_event_id
from homeserver.core.event_format import parse_pdu
from homeserver.core.hashing import content_hash, event_id_of
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.signing import SigningKey, sign_event
from homeserver.core.unpadded_base64 import encode_base64
from tests.simulation.room import Server

STRIPPED_TYPES = frozenset(
    f"m.room.{name}" for name in ("create", "join_rules", "canonical_alias", "avatar", "name", "encryption", "topic")
)

NOT_IN_TEMPLATES = frozenset(("event_id", "hashes", "signatures"))


def now_ms() -> int:
    """The time, for events."""
    return time.time_ns() // 1_000_000


@dataclass(kw_only=True)
class PeerRoom(Server):
    """A room and all that one server knows of it."""

    room_id: RoomId
    users: Sequence[UserId] = ()

    @classmethod
    def create(
        cls,
        *,
        name: ServerName,
        key: SigningKey,
        creator: UserId,
        version: str = "11",
        join_rule: str = "public",
        users: Mapping[UserId, int] | None = None,
    ) -> "PeerRoom":
        """A room with its first events; `users` have other levels than 0."""
        traits = ROOM_VERSIONS[version]
        room = cls(name=name, key=key, version=traits, room_id=RoomId(f"!{secrets.token_hex(8)}:{name}"))
        content = {"room_version": version} | ({} if traits.implicit_room_creator else {"creator": creator})
        room_id = None if traits.room_id_is_create_hash else room.room_id
        created = room.make(creator, "m.room.create", content, state_key="", room_id=room_id, now=now_ms())
        room.room_id = created.room_id
        room.receive(created)
        own = {} if traits.creators_in_control else {creator: 100}
        room.send(creator, "m.room.member", {"membership": "join"}, state_key=creator)
        room.send(creator, "m.room.power_levels", {"users": {**own, **(users or {})}}, state_key="")
        room.send(creator, "m.room.join_rules", {"join_rule": join_rule}, state_key="")
        return room

    @classmethod
    def adopt(
        cls,
        *,
        name: ServerName,
        key: SigningKey,
        version: RoomVersion,
        room_id: RoomId,
        state: Iterable[Any],
        auth_chain: Iterable[Any],
        join: Any,
    ) -> "PeerRoom":
        """A room that this server has just joined, from the resident server's answer."""
        room = cls(name=name, key=key, version=version, room_id=room_id)
        own = room.parse(join)
        state_pdus = [room.parse(event) for event in state]
        for pdu in [*(room.parse(event) for event in auth_chain), *state_pdus]:
            room.events[pdu.event_id] = pdu
            room.ordinals[pdu.event_id] = len(room.ordinals)
        slots = {pdu.state_slot: pdu.event_id for pdu in state_pdus if pdu.state_slot is not None}
        assert len(slots) == len(state_pdus), "the answer has an entry of the state twice"
        # Earlier events are not here: the join is where the room begins.
        room.events[own.event_id] = own
        room.ordinals[own.event_id] = len(room.ordinals)
        room.states_before[own.event_id] = slots
        room.extremities = {own.event_id}
        return room

    def parse(self, event: Any) -> Pdu:
        """An event of this room as it came."""
        return parse_pdu(event, self.version, room_id=self.room_id)

    def draft(self, sender: UserId, event_type: str, content: Mapping[str, Any], **rest: Any) -> Pdu:
        """A signed event of this room that nobody knows yet, this server neither; `rest` as for `make`."""
        options = {"state_key": None, "room_id": self.room_id, "now": now_ms()} | rest
        return self.make(sender, event_type, content, **options)

    def send(self, sender: UserId, event_type: str, content: Mapping[str, Any], **rest: Any) -> Pdu:
        """Makes an event and takes it for its own; others are told by `Peer.send`."""
        pdu = self.draft(sender, event_type, content, **rest)
        self.receive(pdu)
        return pdu

    def say(self, sender: UserId, body: str, **rest: Any) -> Pdu:
        """Sends a text message."""
        return self.send(sender, "m.room.message", {"msgtype": "m.text", "body": body}, **rest)

    def template(self, user_id: UserId, membership: str, **content: Any) -> dict[str, Any]:
        """The event that a user of another server is to sign."""
        pdu = self.draft(user_id, "m.room.member", {"membership": membership, **content}, state_key=user_id)
        return {name: value for name, value in pdu.json.items() if name not in NOT_IN_TEMPLATES}

    def forge(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Hashes and signs whatever it is given, also what no server would."""
        bare = {name: value for name, value in event.items() if name not in ("hashes", "signatures")}
        hashed = {**bare, "hashes": {"sha256": encode_base64(content_hash(bare))}}
        return sign_event(hashed, self.name, self.key, self.version)

    def id_of(self, event: Mapping[str, Any]) -> EventId:
        """The id of an event."""
        return event_id_of(event, self.version)

    def current(self, event_type: str, state_key: str = "") -> Pdu | None:
        """The event at a slot of the current state."""
        event_id = self.current_state.get((event_type, state_key))
        return None if event_id is None else self.events[event_id]

    def membership(self, user_id: UserId) -> str:
        """The current membership of a user."""
        pdu = self.current("m.room.member", user_id)
        return (pdu.membership if pdu is not None else None) or "leave"

    @property
    def member_servers(self) -> set[ServerName]:
        """The servers of the joined users."""
        members = self.pdus(self.current_state).values()
        return {UserId(pdu.state_key or "").server_name for pdu in members if pdu.membership == "join"}

    def stripped_state(self) -> list[dict[str, Any]]:
        """What invited users are told of the room."""
        pdus = self.pdus(self.current_state).values()
        return [
            {"type": pdu.type, "state_key": pdu.state_key, "sender": pdu.sender, "content": pdu.content}
            for pdu in pdus
            if pdu.type in STRIPPED_TYPES
        ]

    def state_before(self, event_id: EventId) -> list[Pdu]:
        """The state before an event."""
        return [self.events[each] for each in self.states_before[event_id].values()]

    def auth_chain(self, event_ids: Iterable[EventId]) -> list[Pdu]:
        """All auth events of some events, and theirs."""
        found: dict[EventId, Pdu] = {}
        waiting = [auth_id for event_id in event_ids for auth_id in self._auth_ids(event_id)]
        while waiting:
            event_id = waiting.pop()
            if event_id not in found and event_id in self.events:
                found[event_id] = self.events[event_id]
                waiting += self._auth_ids(event_id)
        return list(found.values())

    def backfill(self, event_ids: Iterable[EventId], limit: int) -> list[Pdu]:
        """Some events and what precedes them, the newest first."""
        return self._back_from(event_ids, limit, stop=())

    def between(self, *, earliest: Collection[EventId], latest: Iterable[EventId], limit: int) -> list[Pdu]:
        """What lies between, oldest first."""
        start = [previous for event_id in latest if event_id in self.events for previous in self._prev_ids(event_id)]
        return self._back_from(start, limit, stop=earliest)[::-1]

    def _back_from(self, event_ids: Iterable[EventId], limit: int, *, stop: Collection[EventId]) -> list[Pdu]:
        found: dict[EventId, Pdu] = {}
        waiting = list(event_ids)
        while waiting and len(found) < limit:
            event_id = waiting.pop(0)
            known = event_id in self.states_before and event_id not in found and event_id not in stop
            if known:
                found[event_id] = self.events[event_id]
                waiting += self._prev_ids(event_id)
        return sorted(found.values(), key=lambda pdu: -pdu.depth)

    def _prev_ids(self, event_id: EventId) -> tuple[EventId, ...]:
        return self.events[event_id].prev_events

    def _auth_ids(self, event_id: EventId) -> tuple[EventId, ...]:
        pdu = self.events[event_id]
        implied = self.version.room_id_is_create_hash and pdu.type != "m.room.create"
        return (*pdu.auth_events, *([create_event_id(self.room_id)] if implied else []))
