"""The rooms that a user is in.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms
"""

from homeserver.services.rooms.membership import Memberships
from homeserver.web.endpoint import RateLimit, Request, Response, Section


def section(memberships: Memberships) -> Section:
    """The endpoint over its use case."""
    s = Section("Joined rooms")

    @s.endpoint(
        "GET",
        "/_matrix/client/v3/joined_rooms",
        aliases=("/_matrix/client/r0/joined_rooms",),
        rate_limit=RateLimit.READ,
    )
    async def get_joined_rooms(request: Request) -> Response:
        """The rooms that the user is joined to."""
        return Response({"joined_rooms": await memberships.list_joined(request.requester)})

    return s
