"""Who asks, for endpoints that only other servers may call."""

from homeserver.core.ids import ServerName
from homeserver.web.endpoint import Request


def origin_of(request: Request) -> ServerName:
    """The server whose signature the request bears; there is one wherever an endpoint's access is `SERVER`."""
    assert request.origin is not None, f"{request.operation} is for servers, there must be one"
    return request.origin
