"""Who calls an endpoint for clients: from the request's access token to its `caller`.

https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
"""

from dataclasses import replace

from homeserver.services.accounts.authentication import Authentication
from homeserver.web.dispatch import Authenticate
from homeserver.web.endpoint import Endpoint, Request


def client_authenticator(authentication: Authentication) -> Authenticate:
    """What the dispatcher asks about requests that carry an access token."""

    async def authenticate(endpoint: Endpoint, request: Request) -> Request:
        assert request.access_token is not None, "the dispatcher asks only for requests with a token"
        requester = await authentication.authenticate(
            request.access_token,
            ip=request.ip,
            user_agent=request.user_agent,
            locked_allowed=endpoint.locked_allowed,
        )
        return replace(request, caller=requester)

    return authenticate
