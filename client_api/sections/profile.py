"""Profiles.

https://spec.matrix.org/v1.19/client-server-api/#profiles
"""

from homeserver.core.errors import MissingParam
from homeserver.core.ids import UserId
from homeserver.services.accounts.profiles import Profiles
from homeserver.web.endpoint import EMPTY, Access, RateLimit, Request, Response, Section

_FIELD = "/_matrix/client/v3/profile/{user_id}/{key_name}"
_FIELD_ALIASES = ("/_matrix/client/unstable/uk.tcpip.msc4133/profile/{user_id}/{key_name}",)


def section(profiles: Profiles) -> Section:
    """The endpoints."""
    s = Section("Profiles")

    @s.endpoint(
        "GET",
        "/_matrix/client/v3/profile/{user_id}",
        aliases=("/_matrix/client/unstable/uk.tcpip.msc4133/profile/{user_id}",),
        access=Access.OPTIONAL,
    )
    async def get_user_profile(request: Request) -> Response:
        """All fields of a user's profile."""
        user_id = UserId.parse(request.path["user_id"])
        return Response(dict(await profiles.get(request.caller, user_id)))

    @s.endpoint("GET", _FIELD, aliases=_FIELD_ALIASES, access=Access.OPTIONAL)
    async def get_profile_field(request: Request) -> Response:
        """One field of a user's profile."""
        user_id, name = UserId.parse(request.path["user_id"]), request.path["key_name"]
        return Response({name: await profiles.get_field(request.caller, user_id, name)})

    @s.endpoint(
        "PUT",
        _FIELD,
        aliases=_FIELD_ALIASES,
        access=Access.GUEST,
        body={"type": "object"},
        body_bytes_max=256 * 1024,
        rate_limit=RateLimit.WRITE,
        suspended_allowed=False,
    )
    async def set_profile_field(request: Request) -> Response:
        """Sets a field of one's own profile."""
        user_id, name = UserId.parse(request.path["user_id"]), request.path["key_name"]
        if name not in request.body:
            raise MissingParam("The body must hold the field that the path names")
        await profiles.set_field(request.requester, user_id, name, request.body[name])
        return EMPTY

    @s.endpoint(
        "DELETE",
        _FIELD,
        aliases=_FIELD_ALIASES,
        access=Access.GUEST,
        rate_limit=RateLimit.WRITE,
        suspended_allowed=False,
    )
    async def delete_profile_field(request: Request) -> Response:
        """Removes a field of one's own profile."""
        user_id = UserId.parse(request.path["user_id"])
        await profiles.remove_field(request.requester, user_id, request.path["key_name"])
        return EMPTY

    return s
