"""What the use cases need of the outside world, in their own words. Edges and adapters satisfy it structurally."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from homeserver.core.errors import NotFound
from homeserver.core.ids import ServerName, UserId


class RemoteProfiles(Protocol):
    """Profiles of users of other servers."""

    async def query_profile(self, user_id: UserId, *, field: str | None = None) -> Mapping[str, Any]:
        """The profile that the user's server answers with; only the one field, if it is given, and then that is there.

        Raises:
            NotFound: the server cannot be asked, or there is no such user or field.
        """
        ...


class NoRemoteProfiles:
    """For a server that does not federate."""

    async def query_profile(self, user_id: UserId, *, field: str | None = None) -> Mapping[str, Any]:
        """Knows nobody."""
        raise NotFound("There is no profile of this user")


@dataclass(frozen=True, slots=True)
class PublicRoomsRequest:
    """What is asked of a server's directory of public rooms.

    Attributes:
        limit: how many rooms at most.
        since: the token of another page.
        search_term: None if nothing is searched.
        room_types: the wanted types, where None stands for rooms without a type; None for all.
        all_networks: rooms of application services are wanted too.
        third_party_instance_id: the network whose rooms alone are wanted.
    """

    limit: int
    since: str | None = None
    search_term: str | None = None
    room_types: Sequence[str | None] | None = None
    all_networks: bool = False
    third_party_instance_id: str | None = None


class RemotePublicRooms(Protocol):
    """The directories of other servers."""

    async def public_rooms(self, server_name: ServerName, request: PublicRoomsRequest) -> Mapping[str, Any]:
        """A page of another server's public rooms, in the form of the client-server API.

        Raises:
            MatrixError: the server cannot be asked, or refuses.
        """
        ...


class NoRemotePublicRooms:
    """For a server that does not federate."""

    async def public_rooms(self, server_name: ServerName, request: PublicRoomsRequest) -> Mapping[str, Any]:
        """Knows no server."""
        raise NotFound(f"The server {server_name} cannot be asked")
