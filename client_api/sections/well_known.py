"""Where clients and other servers find this server, and whom its users can ask.

https://spec.matrix.org/v1.19/client-server-api/#well-known-uris
https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver
"""

from typing import Any

from homeserver.config.schema import Config, WellKnownConfig
from homeserver.core.errors import NotFound
from homeserver.web.endpoint import Access, Request, Response, Section


def client_discovery(config: Config) -> dict[str, Any] | None:
    """Where clients find this server, as they are told it; None if the operator has not said where."""
    base_url = config.well_known.client_base_url or config.public_baseurl
    return {"m.homeserver": {"base_url": base_url}} if base_url is not None else None


def section(config: Config) -> Section:
    """The endpoints."""
    s = Section("Server discovery")
    discovery, support = client_discovery(config), _support(config.well_known)

    @s.endpoint("GET", "/.well-known/matrix/client", access=Access.PUBLIC)
    async def get_wellknown(_: Request) -> Response:
        """Where clients find this server."""
        if discovery is None:
            raise NotFound("There is nothing to discover")
        return Response(discovery)

    @s.endpoint("GET", "/.well-known/matrix/server", access=Access.PUBLIC)
    async def get_well_known(_: Request) -> Response:
        """Where other servers find this server."""
        if config.well_known.server is None:
            raise NotFound("Nothing is delegated")
        return Response({"m.server": config.well_known.server})

    @s.endpoint("GET", "/.well-known/matrix/support", access=Access.PUBLIC)
    async def get_wellknown_support(_: Request) -> Response:
        """Whom the users of this server can ask."""
        if not support:
            raise NotFound("There are no contacts")
        return Response(support)

    return s


def _support(config: WellKnownConfig) -> dict[str, Any]:
    support: dict[str, Any] = {}
    if config.support_contacts:
        support["contacts"] = [
            {
                name: value
                for name, value in (
                    ("role", contact.role),
                    ("matrix_id", contact.matrix_id),
                    ("email_address", contact.email_address),
                )
                if value is not None
            }
            for contact in config.support_contacts
        ]
    if config.support_page is not None:
        support["support_page"] = config.support_page
    return support
