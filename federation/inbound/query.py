"""Queries: profiles, and the aliases of this server.

https://spec.matrix.org/v1.19/server-server-api/#querying-for-information
"""

from federation.inbound.origin import origin_of
from homeserver.core.errors import Unrecognized
from homeserver.core.ids import RoomAlias, UserId
from homeserver.services.accounts.profiles import Profiles
from homeserver.services.rooms.directory import RoomDirectory
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section


def section(profiles: Profiles, directory: RoomDirectory) -> Section:
    """The endpoints over their use cases."""
    s = Section("Querying for information")

    @s.endpoint("GET", "/_matrix/federation/v1/query/directory", access=Access.SERVER, rate_limit=RateLimit.FEDERATION)
    async def query_room_directory(request: Request) -> Response:
        """The room that an alias points to, and servers through which it can be joined."""
        found = await directory.resolve_own(RoomAlias.parse(request.query_required("room_alias")))
        return Response({"room_id": found.room_id, "servers": found.servers})

    @s.endpoint("GET", "/_matrix/federation/v1/query/profile", access=Access.SERVER, rate_limit=RateLimit.FEDERATION)
    async def query_profile(request: Request) -> Response:
        """A user's profile, or one field of it."""
        user_id = UserId.parse(request.query_required("user_id"))
        profile = await profiles.for_server(origin_of(request), user_id, name=request.query_text("field"))
        return Response(profile)

    @s.endpoint(
        "GET", "/_matrix/federation/v1/query/{query_type}", access=Access.SERVER, rate_limit=RateLimit.FEDERATION
    )
    async def query_info(request: Request) -> Response:
        """Any other query: there is none that this server knows."""
        raise Unrecognized("There is no such query")

    return s
