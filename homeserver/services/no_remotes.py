"""The ports to other servers (`ports`, `remote`), for a server that does not federate: nobody can be asked."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from homeserver.core.errors import NotFound, RemoteUnavailable
from homeserver.core.ids import EventId, RoomAlias, RoomId, ServerName, UserId
from homeserver.core.key_wishes import WantedDevices, WantedKeys
from homeserver.core.pdu import Pdu
from homeserver.services.ports import PublicRoomsRequest
from homeserver.services.remote import (
    EventJson,
    EventTemplate,
    HierarchyAnswer,
    KeyWish,
    SentJoin,
    ServerKey,
    StateEvents,
    StateIds,
)


def _unavailable(server_name: ServerName) -> RemoteUnavailable:
    return RemoteUnavailable(f"The server {server_name} cannot be asked: this server does not federate")


class NoRemoteRooms:
    """`RemoteRooms` of a server that does not federate."""

    async def make_join(self, via: ServerName, room_id: RoomId, user_id: UserId) -> EventTemplate:
        """Refuses."""
        raise _unavailable(via)

    async def send_join(self, via: ServerName, pdu: Pdu, *, omit_members: bool) -> SentJoin:
        """Refuses."""
        raise _unavailable(via)

    async def make_leave(self, via: ServerName, room_id: RoomId, user_id: UserId) -> EventTemplate:
        """Refuses."""
        raise _unavailable(via)

    async def send_leave(self, via: ServerName, pdu: Pdu) -> None:
        """Refuses."""
        raise _unavailable(via)

    async def make_knock(self, via: ServerName, room_id: RoomId, user_id: UserId) -> EventTemplate:
        """Refuses."""
        raise _unavailable(via)

    async def send_knock(self, via: ServerName, pdu: Pdu) -> Sequence[EventJson]:
        """Refuses."""
        raise _unavailable(via)

    async def invite(self, invited: ServerName, pdu: Pdu, *, invite_room_state: Sequence[EventJson]) -> EventJson:
        """Refuses."""
        raise _unavailable(invited)

    async def exchange_third_party_invite(self, via: ServerName, room_id: RoomId, event: EventJson) -> None:
        """Refuses."""
        raise _unavailable(via)


class NoRemoteEvents:
    """`RemoteEvents` of a server that does not federate."""

    async def event(self, via: ServerName, event_id: EventId) -> EventJson:
        """Refuses."""
        raise _unavailable(via)

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
        """Refuses."""
        raise _unavailable(via)

    async def backfill(
        self, via: ServerName, room_id: RoomId, event_ids: Collection[EventId], *, limit: int
    ) -> Sequence[EventJson]:
        """Refuses."""
        raise _unavailable(via)

    async def event_auth(self, via: ServerName, room_id: RoomId, event_id: EventId) -> Sequence[EventJson]:
        """Refuses."""
        raise _unavailable(via)

    async def state_ids(self, via: ServerName, room_id: RoomId, event_id: EventId) -> StateIds:
        """Refuses."""
        raise _unavailable(via)

    async def state(self, via: ServerName, room_id: RoomId, event_id: EventId) -> StateEvents:
        """Refuses."""
        raise _unavailable(via)

    async def timestamp_to_event(
        self, via: ServerName, room_id: RoomId, *, ts: int, direction: Literal["f", "b"]
    ) -> tuple[EventId, int]:
        """Refuses."""
        raise _unavailable(via)


class NoRemoteDirectories:
    """`RemoteDirectories` and `RemotePublicRooms` of a server that does not federate."""

    async def find_room(self, alias: RoomAlias) -> None:
        """Says that there is no such alias."""

    async def hierarchy(self, via: ServerName, room_id: RoomId, *, suggested_only: bool) -> HierarchyAnswer:
        """Refuses."""
        raise _unavailable(via)

    async def public_rooms(self, server_name: ServerName, request: PublicRoomsRequest) -> Mapping[str, Any]:
        """Knows no server."""
        raise NotFound(f"The server {server_name} cannot be asked")


class NoServerKeys:
    """`ServerKeys` of a server that does not federate: no key can be had."""

    async def fetch(self, wishes: Collection[KeyWish]) -> Mapping[tuple[ServerName, str], ServerKey]:
        """Finds nothing."""
        return {}


class NoPolicyServers:
    """`PolicyServers` of a server that does not federate."""

    async def sign(self, via: ServerName, pdu: Pdu) -> Mapping[str, Any]:
        """Refuses."""
        raise _unavailable(via)


class NoRemoteUserKeys:
    """`RemoteUserKeys` of a server that does not federate."""

    async def query(self, via: ServerName, wanted: WantedDevices) -> Mapping[str, Any]:
        """Refuses."""
        raise _unavailable(via)

    async def claim(self, via: ServerName, wanted: WantedKeys) -> Mapping[str, Any]:
        """Refuses."""
        raise _unavailable(via)

    async def devices(self, user_id: UserId) -> Mapping[str, Any]:
        """Refuses."""
        raise _unavailable(user_id.server_name)
