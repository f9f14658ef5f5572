"""Filters.

https://spec.matrix.org/v1.19/client-server-api/#filtering
"""

from homeserver.core.ids import UserId
from homeserver.services.accounts.filters import Filters
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section


def section(filters: Filters) -> Section:
    """The endpoints."""
    s = Section("Filtering")

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/user/{user_id}/filter",
        access=Access.GUEST,
        body={"type": "object"},
        body_bytes_max=64 * 1024,
        rate_limit=RateLimit.WRITE,
    )
    async def define_filter(request: Request) -> Response:
        """Stores a filter, to be named by its id."""
        user_id = UserId.parse(request.path["user_id"])
        return Response({"filter_id": await filters.define(request.requester, user_id, request.body)})

    @s.endpoint("GET", "/_matrix/client/v3/user/{user_id}/filter/{filter_id}", access=Access.GUEST)
    async def get_filter(request: Request) -> Response:
        """A filter that was stored."""
        user_id = UserId.parse(request.path["user_id"])
        return Response(await filters.get_definition(request.requester, user_id, request.path["filter_id"]))

    return s
