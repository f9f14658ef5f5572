"""What memberships need where this server cannot decide alone, and what they find if there are no other servers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

from homeserver.core.errors import Forbidden, NotFound, RemoteUnavailable
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.services.rooms.membership_changes import MembershipChange


class JoinsElsewhere(Protocol):
    """Joining with the help of other servers (`RemoteJoins`)."""

    async def join(
        self, user_id: UserId, room_id: RoomId, *, via: Sequence[ServerName], content: Mapping[str, Any]
    ) -> EventId | None:
        """Joins a room that this server is not in; None if by now it is."""
        ...

    async def join_vouched(
        self, user_id: UserId, room_id: RoomId, *, via: Sequence[ServerName], content: Mapping[str, Any]
    ) -> EventId:
        """Joins a restricted room that this server is in, where only a user of another server can vouch."""
        ...


class MembershipsElsewhere(Protocol):
    """What else other servers have to help with (`RemoteMemberships`)."""

    async def knock(
        self, user_id: UserId, room_id: RoomId, *, via: Sequence[ServerName], content: Mapping[str, Any]
    ) -> EventId:
        """Knocks at a room that this server is not in."""
        ...

    async def leave(self, user_id: UserId, room_id: RoomId, *, content: Mapping[str, Any]) -> EventId:
        """Rejects an invitation to a room that this server is not in, or takes back a knock."""
        ...

    async def invite(self, change: MembershipChange, room_id: RoomId, target: UserId) -> EventId:
        """Invites a user of another server."""
        ...

    async def profile(self, user_id: UserId) -> Mapping[str, str]:
        """What stands in the member events of a user of another server: the name and the picture, as far as known."""
        ...


class Completeness(Protocol):
    """Knows which rooms' members are not all known yet (`PartialStates`)."""

    async def wait_until_complete(self, room_id: RoomId) -> None:
        """Waits until all members of a room are known.

        Raises:
            UnavailableForNow: that takes too long.
        """
        ...


class NoOtherServers:
    """For a server that does not federate."""

    async def join(
        self, user_id: UserId, room_id: RoomId, *, via: Sequence[ServerName], content: Mapping[str, Any]
    ) -> NoReturn:
        """Knows no server."""
        raise NotFound("No known server is in the room")

    async def join_vouched(
        self, user_id: UserId, room_id: RoomId, *, via: Sequence[ServerName], content: Mapping[str, Any]
    ) -> NoReturn:
        """Knows no server."""
        raise NotFound("No known server is in the room")

    async def knock(
        self, user_id: UserId, room_id: RoomId, *, via: Sequence[ServerName], content: Mapping[str, Any]
    ) -> NoReturn:
        """Knows no server."""
        raise NotFound("No known server is in the room")

    async def leave(self, user_id: UserId, room_id: RoomId, *, content: Mapping[str, Any]) -> NoReturn:
        """Knows of no invitation from outside."""
        raise Forbidden("You are not in the room")

    async def invite(self, change: MembershipChange, room_id: RoomId, target: UserId) -> NoReturn:
        """Reaches nobody."""
        raise RemoteUnavailable(f"The server {target.server_name} cannot be asked: this server does not federate")

    async def profile(self, user_id: UserId) -> Mapping[str, str]:
        """Knows nobody."""
        return {}

    async def wait_until_complete(self, room_id: RoomId) -> None:
        """Finds nothing lacking."""


NO_OTHER_SERVERS: Final = NoOtherServers()
