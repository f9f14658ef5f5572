"""OpenID tokens.

https://spec.matrix.org/v1.19/client-server-api/#openid
"""

from homeserver.core.ids import UserId
from homeserver.services.accounts.openid import OpenId
from homeserver.web.endpoint import RateLimit, Request, Response, Section


def section(openid: OpenId) -> Section:
    """The endpoints."""
    s = Section("OpenID")

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/user/{user_id}/openid/request_token",
        body={"type": "object"},
        body_required=False,
        rate_limit=RateLimit.WRITE,
    )
    async def request_open_id_token(request: Request) -> Response:
        """Makes a token by which a third party may learn who the user is."""
        token = await openid.request_token(request.requester, UserId.parse(request.path["user_id"]))
        return Response(
            {
                "access_token": token.access_token,
                "token_type": "Bearer",
                "matrix_server_name": token.server_name,
                "expires_in": token.expires_in_seconds,
            }
        )

    return s
