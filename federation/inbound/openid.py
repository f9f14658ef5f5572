"""OpenID tokens: whom they name. Third parties ask, who are no servers: the token is all they show.

https://spec.matrix.org/v1.19/server-server-api/#openid
"""

from homeserver.core.errors import MissingToken
from homeserver.services.accounts.openid import OpenId
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section


def section(openid: OpenId) -> Section:
    """The endpoint over its use case."""
    s = Section("OpenID")

    @s.endpoint("GET", "/_matrix/federation/v1/openid/userinfo", access=Access.PUBLIC, rate_limit=RateLimit.FEDERATION)
    async def exchange_open_id_token(request: Request) -> Response:
        """The user who made a token."""
        # The transport has taken the parameter out of the query, as it does with the tokens of clients.
        if request.access_token is None:
            raise MissingToken("Missing query parameter access_token")
        return Response({"sub": await openid.user_of(request.access_token)})

    return s
