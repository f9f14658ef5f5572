"""What the use cases need of other servers, in their own words; `federation/outbound/` satisfies it structurally.

What comes back is what the other server said: parsed, bounded in size and of the right JSON types at the top, but not
believed. Events are JSON objects that have still to pass the gate (`services/rooms/gate.py`).

Every method may raise `RemoteUnavailable` (the server cannot be asked now) and `RemoteRefused` (it answered with an
error).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from homeserver.core.errors import MatrixError
from homeserver.core.ids import EventId, RoomAlias, RoomId, ServerName, UserId
from homeserver.core.key_wishes import WantedDevices, WantedKeys
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import RoomVersion
from homeserver.core.signing import VerifyKey

EventJson = Mapping[str, Any]
"""An event as another server has sent it, not checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTemplate:
    """The answer to make_join, make_leave and make_knock: a proposal, not to be signed as it is."""

    room_version: RoomVersion
    event: EventJson


@dataclass(frozen=True, slots=True, kw_only=True)
class SentJoin:
    """The answer to send_join.

    Attributes:
        state: the state before the join; without most members if `members_omitted`.
        auth_chain: of that state and of the join.
        event: the join as the resident server has stored it, for restricted rooms with its signature; None: as sent.
        servers_in_room: only with `members_omitted`.
    """

    state: Sequence[EventJson]
    auth_chain: Sequence[EventJson]
    event: EventJson | None
    members_omitted: bool
    servers_in_room: Sequence[ServerName]


class RemoteRooms(Protocol):
    """Memberships in rooms that other servers are in."""

    async def make_join(self, via: ServerName, room_id: RoomId, user_id: UserId) -> EventTemplate:
        """Asks for a join to be signed; all room versions are offered."""
        ...

    async def send_join(self, via: ServerName, pdu: Pdu, *, omit_members: bool) -> SentJoin:
        """Hands a signed join in."""
        ...

    async def make_leave(self, via: ServerName, room_id: RoomId, user_id: UserId) -> EventTemplate:
        """Asks for a leave to be signed."""
        ...

    async def send_leave(self, via: ServerName, pdu: Pdu) -> None:
        """Hands a signed leave in."""
        ...

    async def make_knock(self, via: ServerName, room_id: RoomId, user_id: UserId) -> EventTemplate:
        """Asks for a knock to be signed."""
        ...

    async def send_knock(self, via: ServerName, pdu: Pdu) -> Sequence[EventJson]:
        """Hands a signed knock in; returns `knock_room_state`, stripped state or whole events."""
        ...

    async def invite(self, invited: ServerName, pdu: Pdu, *, invite_room_state: Sequence[EventJson]) -> EventJson:
        """Asks the invited user's server to sign an invitation; returns the event with its signature (v2, else v1)."""
        ...

    async def exchange_third_party_invite(self, via: ServerName, room_id: RoomId, event: EventJson) -> None:
        """Asks the inviting server to make an invitation of a third-party one."""
        ...


@dataclass(frozen=True, slots=True)
class StateIds:
    """The state before an event, and its auth chain, as ids."""

    pdu_ids: Sequence[EventId]
    auth_chain_ids: Sequence[EventId]


@dataclass(frozen=True, slots=True)
class StateEvents:
    """The state before an event, and its auth chain."""

    pdus: Sequence[EventJson]
    auth_chain: Sequence[EventJson]


class RemoteEvents(Protocol):
    """Events and states that other servers have."""

    async def event(self, via: ServerName, event_id: EventId) -> EventJson:
        """One event."""
        ...

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
        """Events between those that are known and those whose previous events are not."""
        ...

    async def backfill(
        self, via: ServerName, room_id: RoomId, event_ids: Collection[EventId], *, limit: int
    ) -> Sequence[EventJson]:
        """The given events and what precedes them."""
        ...

    async def event_auth(self, via: ServerName, room_id: RoomId, event_id: EventId) -> Sequence[EventJson]:
        """The auth chain of an event."""
        ...

    async def state_ids(self, via: ServerName, room_id: RoomId, event_id: EventId) -> StateIds:
        """The state before an event, as ids."""
        ...

    async def state(self, via: ServerName, room_id: RoomId, event_id: EventId) -> StateEvents:
        """The state before an event, whole."""
        ...

    async def timestamp_to_event(
        self, via: ServerName, room_id: RoomId, *, ts: int, direction: Literal["f", "b"]
    ) -> tuple[EventId, int]:
        """The event nearest to a time (milliseconds) in a direction, and its own time."""
        ...


@dataclass(frozen=True, slots=True)
class HierarchyAnswer:
    """A room and its children, each in the specification's form of a room in a hierarchy."""

    room: Mapping[str, Any]
    children: Sequence[Mapping[str, Any]]
    inaccessible_children: Sequence[RoomId]


class RemoteDirectories(Protocol):
    """What other servers know of rooms that this one is not in; profiles and room lists are in `ports`."""

    async def find_room(self, alias: RoomAlias) -> tuple[RoomId, Sequence[ServerName]] | None:
        """Where an alias points to, and which servers are in the room; None if it does not exist or cannot be asked."""
        ...

    async def hierarchy(self, via: ServerName, room_id: RoomId, *, suggested_only: bool) -> HierarchyAnswer:
        """A room and, if it is a space, its direct children."""
        ...


@dataclass(frozen=True, slots=True)
class ServerKey:
    """A signing key of a server.

    Attributes:
        valid_until_ts: until when (milliseconds) the server has promised to use it; for a retired key when it expired.
        is_retired: it is one of `old_verify_keys`: events before `valid_until_ts` are good, requests are not.
    """

    key: VerifyKey
    valid_until_ts: int
    is_retired: bool = False


@dataclass(frozen=True, slots=True)
class KeyWish:
    """A key that is needed to check a signature.

    Attributes:
        key_id: such as `ed25519:auto`.
        valid_at_ts: when it must have been valid, in milliseconds; None if that does not matter (room versions 1-4).
    """

    server_name: ServerName
    key_id: str
    valid_at_ts: int | None


class ServerKeys(Protocol):
    """The signing keys of other servers, from memory, the database, themselves, or notaries. It raises nothing."""

    async def fetch(self, wishes: Collection[KeyWish]) -> Mapping[tuple[ServerName, str], ServerKey]:
        """The keys that could be had, by server and key id. Several are fetched side by side, within a limit of time.

        A key that is only known with too early a `valid_until_ts` is fetched anew first; what is returned may still be
        too old, which is the caller's to check. Denied keys are never returned.
        """
        ...


class PolicyServers(Protocol):
    """Servers that rooms have chosen to look at each event."""

    async def sign(self, via: ServerName, pdu: Pdu) -> Mapping[str, Any]:
        """Asks a policy server for its signature; returns the answer, signatures by server and key id."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UserKeys:
    """The published keys of a user of another server, as that server has told them.

    Attributes:
        devices: the identity keys, with `unsigned`, by device id.
    """

    devices: Mapping[str, Mapping[str, Any]]
    master_key: Mapping[str, Any] | None = None
    self_signing_key: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class QueriedKeys:
    """Keys of users, and the servers that could not be asked. Users who do not exist are absent."""

    users: Mapping[UserId, UserKeys]
    failures: Mapping[ServerName, MatrixError]


@dataclass(frozen=True, slots=True)
class ClaimedRemoteKeys:
    """Claimed keys by user, device and name, and the servers that could not be asked."""

    keys: Mapping[UserId, Mapping[str, Mapping[str, Any]]]
    failures: Mapping[ServerName, MatrixError]


class RemoteUserKeys(Protocol):
    """The published keys of users, asked of the users' own servers; each answer is the JSON object that came."""

    async def query(self, via: ServerName, wanted: WantedDevices) -> Mapping[str, Any]:
        """The keys of some of its users: `device_keys`, `master_keys` and `self_signing_keys`."""
        ...

    async def claim(self, via: ServerName, wanted: WantedKeys) -> Mapping[str, Any]:
        """One-time keys of its users' devices: `one_time_keys`."""
        ...

    async def devices(self, user_id: UserId) -> Mapping[str, Any]:
        """All devices of a user, its cross-signing keys, and the number of the update that this agrees with."""
        ...


class RemoteKeys(Protocol):
    """The keys of users of other servers, as far as they can be had now, however that is. It raises nothing."""

    async def query(self, requester_id: UserId, wanted: WantedDevices, *, timeout_ms: int) -> QueriedKeys:
        """The keys of users (of their devices that are named, or of all); servers are asked side by side."""
        ...

    async def claim(self, wanted: WantedKeys, *, timeout_ms: int) -> ClaimedRemoteKeys:
        """One key of an algorithm for each device."""
        ...
