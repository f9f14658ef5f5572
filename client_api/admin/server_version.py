"""Which software this server is, for tools that ask as they ask Synapse.

https://element-hq.github.io/synapse/latest/admin_api/version_api.html
"""

from homeserver.core.version import NAME, VERSION
from homeserver.web.endpoint import Access, Request, Response, Section


def section() -> Section:
    """The endpoints."""
    s = Section("Server version")

    @s.endpoint("GET", "/_synapse/admin/v1/server_version", access=Access.PUBLIC)
    async def admin_get_server_version(_: Request) -> Response:
        """The name and version of the software."""
        return Response({"server_version": f"{NAME} {VERSION}"})

    return s
