"""What a fake homeserver answers when it behaves: as the resident server of its rooms, and about its users.

https://spec.matrix.org/v1.19/server-server-api/
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from homeserver.core.errors import MatrixError
from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.signing import sign_event, verify_event
from tests.federation.peer_room import PeerRoom, now_ms
from tests.federation.signed_http import Answer, Received, SigningServer

V1 = "/_matrix/federation/v1"
V2 = "/_matrix/federation/v2"


def not_found(message: str = "Not known here") -> tuple[int, dict[str, str]]:
    """The usual refusal."""
    return 404, {"errcode": "M_NOT_FOUND", "error": message}


@dataclass(kw_only=True)
class Resident(SigningServer):
    """A server with rooms and users.

    Attributes:
        rooms: those it is in.
        transactions: the bodies of all transactions that came.
        invitations: the signed invitations of its users, by room, each with what it was told of the room.
        profiles: its users' profiles.
        aliases: where its aliases point to.
        public_rooms: its directory.
    """

    rooms: dict[RoomId, PeerRoom] = field(default_factory=dict)
    transactions: list[dict[str, Any]] = field(default_factory=list)
    invitations: dict[RoomId, tuple[dict[str, Any], Any]] = field(default_factory=dict)
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    aliases: dict[str, RoomId] = field(default_factory=dict)
    public_rooms: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answers = {
            "GET /_matrix/key/v2/server": lambda _: self.server_keys(),
            f"GET {V1}/version": {"server": {"name": "peer", "version": "1"}},
            f"PUT {V1}/send/{{txn_id}}": self.take_transaction,
            f"GET {V1}/make_join/{{room_id}}/{{user_id}}": lambda request: self.make(request, "join"),
            f"PUT {V2}/send_join/{{room_id}}/{{event_id}}": self.take_join,
            f"GET {V1}/make_leave/{{room_id}}/{{user_id}}": lambda request: self.make(request, "leave"),
            f"PUT {V2}/send_leave/{{room_id}}/{{event_id}}": self.take_leave,
            f"GET {V1}/make_knock/{{room_id}}/{{user_id}}": lambda request: self.make(request, "knock"),
            f"PUT {V1}/send_knock/{{room_id}}/{{event_id}}": self.take_knock,
            f"PUT {V2}/invite/{{room_id}}/{{event_id}}": self.take_invitation,
            f"GET {V1}/event/{{event_id}}": self.give_event,
            f"GET {V1}/state/{{room_id}}": self.give_state,
            f"GET {V1}/state_ids/{{room_id}}": self.give_state_ids,
            f"GET {V1}/event_auth/{{room_id}}/{{event_id}}": self.give_auth_chain,
            f"GET {V1}/backfill/{{room_id}}": self.give_backfill,
            f"POST {V1}/get_missing_events/{{room_id}}": self.give_missing_events,
            f"GET {V1}/query/profile": self.give_profile,
            f"GET {V1}/query/directory": self.give_alias,
            f"GET {V1}/publicRooms": lambda _: {"chunk": self.public_rooms},
            f"POST {V1}/publicRooms": lambda _: {"chunk": self.public_rooms},
        }

    @property
    def pdus(self) -> list[dict[str, Any]]:
        """All PDUs of all transactions that came, in order."""
        return [pdu for transaction in self.transactions for pdu in transaction["pdus"]]

    @property
    def edus(self) -> list[dict[str, Any]]:
        """All EDUs of all transactions that came, in order."""
        return [edu for transaction in self.transactions for edu in transaction.get("edus", [])]

    async def take_transaction(self, request: Received) -> Answer:
        """Its events become those of the rooms, if they are signed; the room judges them."""
        self.transactions.append(request.body)
        outcomes: dict[str, Any] = {}
        for event in request.body["pdus"]:
            room = self.rooms.get(event.get("room_id"))
            if room is not None:
                pdu = await self._received(room, event)
                outcomes[pdu.event_id] = {}
                room.receive(pdu)
        return {"pdus": outcomes}

    def make(self, request: Received, membership: str) -> Answer:
        """A membership to be signed by the user's server."""
        room = self.rooms.get(RoomId(request.path["room_id"]))
        if room is None:
            return not_found()
        if membership == "join" and room.version.identifier not in request.query.get("ver", ("1",)):
            error = {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "error": "-", "room_version": room.version.identifier}
            return 400, error
        event = room.template(UserId(request.path["user_id"]), membership)
        return {"room_version": room.version.identifier, "event": event}

    async def take_join(self, request: Received) -> Answer:
        """Lets a user in, and tells the state of the room."""
        room = self.rooms.get(RoomId(request.path["room_id"]))
        if room is None:
            return not_found()
        pdu = await self._received(room, request.body)
        room.receive(pdu)
        if pdu.event_id in room.rejected | room.soft_failed or pdu.event_id not in room.states_before:
            return 403, {"errcode": "M_FORBIDDEN", "error": "The rules do not allow it"}
        state = room.state_before(pdu.event_id)
        auth_chain = room.auth_chain([pdu.event_id, *(each.event_id for each in state)])
        return {"state": jsons(state), "auth_chain": jsons(auth_chain), "event": pdu.json}

    async def take_leave(self, request: Received) -> Answer:
        """Takes a leave."""
        room = self.rooms.get(RoomId(request.path["room_id"]))
        if room is None:
            return not_found()
        room.receive(await self._received(room, request.body))
        return {}

    async def take_knock(self, request: Received) -> Answer:
        """Takes a knock, and tells what one may know of the room."""
        room = self.rooms.get(RoomId(request.path["room_id"]))
        if room is None:
            return not_found()
        room.receive(await self._received(room, request.body))
        return {"knock_room_state": room.stripped_state()}

    def take_invitation(self, request: Received) -> Answer:
        """Signs an invitation of one of its users."""
        event = request.body["event"]
        signed = sign_event(event, self.name, self.key, ROOM_VERSIONS[request.body["room_version"]])
        self.invitations[RoomId(request.path["room_id"])] = signed, request.body.get("invite_room_state")
        return {"event": signed}

    def give_event(self, request: Received) -> Answer:
        """One event."""
        event_id = EventId(request.path["event_id"])
        for room in self.rooms.values():
            if event_id in room.events:
                return self._transaction([room.events[event_id]])
        return not_found()

    def give_state(self, request: Received) -> Answer:
        """The state before an event."""
        found = self._state(request)
        if found is None:
            return not_found()
        state, auth_chain = found
        return {"pdus": jsons(state), "auth_chain": jsons(auth_chain)}

    def give_state_ids(self, request: Received) -> Answer:
        """The state before an event, as ids."""
        found = self._state(request)
        if found is None:
            return not_found()
        state, auth_chain = found
        return {"pdu_ids": ids(state), "auth_chain_ids": ids(auth_chain)}

    def _state(self, request: Received) -> tuple[list[Pdu], list[Pdu]] | None:
        room, event_id = self.rooms.get(RoomId(request.path["room_id"])), EventId(request.query["event_id"][0])
        if room is None or event_id not in room.states_before:
            return None
        state = room.state_before(event_id)
        return state, room.auth_chain(each.event_id for each in state)

    def give_auth_chain(self, request: Received) -> Answer:
        """The auth chain of an event."""
        room = self.rooms.get(RoomId(request.path["room_id"]))
        if room is None:
            return not_found()
        return {"auth_chain": jsons(room.auth_chain([EventId(request.path["event_id"])]))}

    def give_backfill(self, request: Received) -> Answer:
        """Events and what precedes them."""
        room = self.rooms.get(RoomId(request.path["room_id"]))
        if room is None:
            return not_found()
        start = [EventId(event_id) for event_id in request.query.get("v", ())]
        return self._transaction(room.backfill(start, int(request.query["limit"][0])))

    def give_missing_events(self, request: Received) -> Answer:
        """Events between others."""
        room = self.rooms.get(RoomId(request.path["room_id"]))
        if room is None:
            return not_found()
        earliest, latest = request.body["earliest_events"], request.body["latest_events"]
        return {"events": jsons(room.between(earliest=earliest, latest=latest, limit=request.body.get("limit", 10)))}

    def give_profile(self, request: Received) -> Answer:
        """The profile of a user, or one field of it."""
        profile = self.profiles.get(request.query["user_id"][0])
        if profile is None:
            return not_found()
        fields = request.query.get("field")
        return profile if fields is None else {name: profile[name] for name in fields if name in profile}

    def give_alias(self, request: Received) -> Answer:
        """Where an alias points to."""
        room_id = self.aliases.get(request.query["room_alias"][0])
        return not_found() if room_id is None else {"room_id": room_id, "servers": [self.name]}

    def _transaction(self, pdus: Iterable[Pdu]) -> Mapping[str, Any]:
        return {"origin": self.name, "origin_server_ts": now_ms(), "pdus": jsons(pdus)}

    async def _received(self, room: PeerRoom, event: Any) -> Pdu:
        """An event as it came; that it does not bear its server's signature is noted as a fault."""
        try:
            pdu = room.parse(event)
        except MatrixError as error:
            self.faults.append(f"{event} is no event: {error}")
            raise
        server = pdu.sender.server_name
        for key_id in pdu.json["signatures"].get(server, {}):
            key = self.key.verify_key if server == self.name else await self.key_of(server, key_id)
            if key is not None and verify_event(pdu.json, server, key, room.version):
                return pdu
        self.faults.append(f"{pdu.event_id} is not signed by {server}")
        return pdu


def jsons(pdus: Iterable[Pdu]) -> list[Mapping[str, Any]]:
    """Events as they are sent."""
    return [pdu.json for pdu in pdus]


def ids(pdus: Iterable[Pdu]) -> list[EventId]:
    """The ids of events."""
    return [pdu.event_id for pdu in pdus]
