"""What the server tells about itself."""

from dataclasses import dataclass
from typing import Literal

from homeserver.config.values import HttpUrl


@dataclass(frozen=True, slots=True)
class SupportContactConfig:
    """Somebody who can be reached about this server."""

    role: Literal["m.role.admin", "m.role.security", "m.role.dpo"]
    """What for."""
    matrix_id: str | None = None
    """A Matrix user."""
    email_address: str | None = None
    """An e-mail address."""


@dataclass(frozen=True, slots=True)
class WellKnownConfig:
    """What `/.well-known/matrix/*` answers."""

    client_base_url: HttpUrl | None = None
    """Where clients find this server; `null`: `public_baseurl`."""
    server: str | None = None
    """Where other servers find this server, `host:port`; `null`: nothing is said."""
    support_contacts: tuple[SupportContactConfig, ...] = ()
    """Contacts: `[{role: m.role.admin, matrix_id: "@admin:example.org"}]`."""
    support_page: HttpUrl | None = None
    """A page that helps."""
