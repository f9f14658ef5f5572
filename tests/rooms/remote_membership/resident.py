"""A server in a room, by value: it satisfies the ports through which ours asks others, and can be told to misbehave."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from homeserver.core.errors import NotFound, RemoteRefused, RemoteUnavailable
from homeserver.core.ids import EventId, RoomAlias, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.signing import SigningKey, VerifyKey, sign_event
from homeserver.runtime.other_servers import Remotes
from homeserver.services.no_remotes import NoRemoteDirectories, NoRemoteEvents, NoRemoteRooms
from homeserver.services.remote import EventJson, EventTemplate, KeyWish, SentJoin, ServerKey, StateEvents, StateIds
from tests.federation.peer_room import PeerRoom

RESIDENT = ServerName("resident.example")
ELSEWHERE = ServerName("elsewhere.example")
DORA = UserId("@dora:resident.example")
EMIL = UserId("@emil:resident.example")
KEY = SigningKey.from_seed("r", bytes(range(32)))
ELSEWHERE_KEY = SigningKey.from_seed("e", bytes(range(1, 33)))
FOREVER = 2**50


def unchanged(value: Any) -> Any:
    """What does nothing to an answer."""
    return value


def refused(errcode: str, status: int = 403, **extra: Any) -> RemoteRefused:
    """An error as another server answers it."""
    return RemoteRefused("No.", remote_errcode=errcode, status=status, extra=extra)


@dataclass(kw_only=True)
class Resident(NoRemoteRooms, NoRemoteEvents, NoRemoteDirectories):
    """The server.

    Attributes:
        room: its room.
        omits_members: it leaves members out of the answer to send_join if it is asked to.
        refusals: what it answers in place of doing what it is asked to, by server and method.
        template, answer, state_answer: change what it answers.
        room_state: what it tells those who knock; None for what is right.
        asked: who was asked what, in order.
    """

    room: PeerRoom
    keys: dict[tuple[ServerName, str], VerifyKey] = field(default_factory=dict)
    aliases: dict[RoomAlias, tuple[RoomId, Sequence[ServerName]]] = field(default_factory=dict)
    profiles: dict[UserId, Mapping[str, Any]] = field(default_factory=dict)
    omits_members: bool = False
    refusals: dict[tuple[ServerName, str], Exception] = field(default_factory=dict)
    template: Callable[[dict[str, Any]], Mapping[str, Any]] = unchanged
    answer: Callable[[SentJoin], SentJoin] = unchanged
    state_answer: Callable[[StateEvents], StateEvents] = unchanged
    countersign: Callable[[dict[str, Any]], EventJson] = unchanged
    room_state: Sequence[EventJson] | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    invited: list[tuple[Pdu, Sequence[EventJson]]] = field(default_factory=list)
    sent: list[Pdu] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.know(RESIDENT, KEY)
        self.know(ELSEWHERE, ELSEWHERE_KEY)

    @property
    def remotes(self) -> Remotes:
        """Our server's ways to others: this one answers under every name."""
        return Remotes(rooms=self, events=self, directories=self, keys=self, profiles=self)

    def know(self, server_name: ServerName, key: SigningKey) -> None:
        """Publishes a key."""
        self.keys[(server_name, key.key_id)] = key.verify_key

    def _asked(self, via: ServerName, method: str) -> None:
        self.asked.append((via, method))
        refusal = self.refusals.get((via, method))
        if refusal is not None:
            raise refusal
        if via not in (RESIDENT, ELSEWHERE):
            raise RemoteUnavailable(f"{via} is not there")

    def _template(self, user_id: UserId, membership: str, **content: Any) -> EventTemplate:
        event = self.room.template(user_id, membership, **content)
        return EventTemplate(room_version=self.room.version, event=self.template(event))

    async def make_join(self, via: ServerName, room_id: RoomId, user_id: UserId) -> EventTemplate:
        self._asked(via, "make_join")
        rules = self.room.current("m.room.join_rules")
        restricted = rules is not None and rules.content["join_rule"] == "restricted"
        vouching = {"join_authorised_via_users_server": DORA} if restricted else {}
        return self._template(user_id, "join", **vouching)

    async def send_join(self, via: ServerName, pdu: Pdu, *, omit_members: bool) -> SentJoin:
        self._asked(via, "send_join")
        self._take(pdu)
        state = self.room.state_before(pdu.event_id)
        chain = self.room.auth_chain([*(event.event_id for event in state), pdu.event_id])
        omitted = omit_members and self.omits_members
        if omitted:
            state = [event for event in state if event.type != "m.room.member"]
            chain = self.room.auth_chain([*(event.event_id for event in state), pdu.event_id])
        return self.answer(
            SentJoin(
                state=[event.json for event in state],
                auth_chain=[event.json for event in chain],
                event=sign_event(pdu.json, RESIDENT, KEY, pdu.room_version),
                members_omitted=omitted,
                servers_in_room=[RESIDENT, ELSEWHERE] if omitted else [],
            )
        )

    async def make_leave(self, via: ServerName, room_id: RoomId, user_id: UserId) -> EventTemplate:
        self._asked(via, "make_leave")
        return self._template(user_id, "leave")

    async def send_leave(self, via: ServerName, pdu: Pdu) -> None:
        self._asked(via, "send_leave")
        self._take(pdu)

    async def make_knock(self, via: ServerName, room_id: RoomId, user_id: UserId) -> EventTemplate:
        self._asked(via, "make_knock")
        return self._template(user_id, "knock")

    async def send_knock(self, via: ServerName, pdu: Pdu) -> Sequence[EventJson]:
        self._asked(via, "send_knock")
        self._take(pdu)
        if self.room_state is not None:
            return self.room_state
        slots = ("m.room.create", "m.room.join_rules", "m.room.name")
        return [event.json for event_type in slots if (event := self.room.current(event_type)) is not None]

    async def query_profile(self, user_id: UserId, *, field: str | None = None) -> Mapping[str, Any]:
        if user_id not in self.profiles:
            raise NotFound("There is no profile of this user")
        return self.profiles[user_id]

    async def invite(self, invited: ServerName, pdu: Pdu, *, invite_room_state: Sequence[EventJson]) -> EventJson:
        self._asked(invited, "invite")
        self.invited.append((pdu, invite_room_state))
        return self.countersign(sign_event(pdu.json, RESIDENT, KEY, pdu.room_version))

    def _take(self, pdu: Pdu) -> None:
        self.sent.append(pdu)
        self.room.receive(pdu)
        if pdu.event_id not in self.room.extremities:
            raise refused("M_FORBIDDEN")

    async def state(self, via: ServerName, room_id: RoomId, event_id: EventId) -> StateEvents:
        self._asked(via, "state")
        state = self.room.state_before(event_id)
        chain = self.room.auth_chain([event.event_id for event in state])
        return self.state_answer(StateEvents([event.json for event in state], [event.json for event in chain]))

    async def state_ids(self, via: ServerName, room_id: RoomId, event_id: EventId) -> StateIds:
        self._asked(via, "state_ids")
        state = [event.event_id for event in self.room.state_before(event_id)]
        return StateIds(state, [event.event_id for event in self.room.auth_chain(state)])

    async def event(self, via: ServerName, event_id: EventId) -> EventJson:
        self._asked(via, "event")
        return self.room.events[event_id].json

    async def event_auth(self, via: ServerName, room_id: RoomId, event_id: EventId) -> Sequence[EventJson]:
        self._asked(via, "event_auth")
        return [event.json for event in self.room.auth_chain([event_id])]

    async def get_missing_events(
        self,
        via: ServerName,
        room_id: RoomId,
        *,
        earliest: Collection[EventId],
        latest: Collection[EventId],
        limit: int,
        min_depth: int = 0,
    ) -> Sequence[EventJson]:
        self._asked(via, "get_missing_events")
        return [event.json for event in self.room.between(earliest=earliest, latest=latest, limit=limit)]

    async def find_room(self, alias: RoomAlias) -> tuple[RoomId, Sequence[ServerName]] | None:  # type: ignore[override]
        return self.aliases.get(alias)

    async def fetch(self, wishes: Collection[KeyWish]) -> Mapping[tuple[ServerName, str], ServerKey]:
        wanted = {(wish.server_name, wish.key_id) for wish in wishes}
        return {name: ServerKey(key, FOREVER) for name, key in self.keys.items() if name in wanted}


def open_room(version: str = "11", *, join_rule: str = "public", members: int = 0) -> Resident:
    """A room of Dora's, in which she may do everything, with some members of her server."""
    room = PeerRoom.create(name=RESIDENT, key=KEY, creator=DORA, version=version, join_rule=join_rule)
    room.send(DORA, "m.room.name", {"name": "Dora's"}, state_key="")
    for number in range(members):
        join(room, UserId(f"@member{number}:{RESIDENT}"))
    return Resident(room=room)


def join(room: PeerRoom, user_id: UserId) -> Pdu:
    """Lets a user of the resident server join."""
    return room.send(user_id, "m.room.member", {"membership": "join"}, state_key=user_id)


def with_state(answer: SentJoin, *events: EventJson) -> SentJoin:
    """An answer with further events in its state."""
    return replace(answer, state=[*answer.state, *events])
