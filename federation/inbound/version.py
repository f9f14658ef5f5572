"""Which software this server is.

https://spec.matrix.org/v1.19/server-server-api/#server-implementation
"""

from homeserver.core.version import NAME, VERSION
from homeserver.web.endpoint import Access, Request, Response, Section


def section() -> Section:
    """The endpoint."""
    s = Section("Server implementation")

    @s.endpoint("GET", "/_matrix/federation/v1/version", access=Access.PUBLIC)
    async def get_version(_: Request) -> Response:
        """The name and the version of this software."""
        return Response({"server": {"name": NAME, "version": VERSION}})

    return s
