"""Which versions of the specification this server speaks, and which features before they are specified.

https://spec.matrix.org/v1.19/client-server-api/#api-versions
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from homeserver.web.endpoint import Access, Request, Response, Section

# Clients look for the one version that has what they want, so each is listed.
VERSIONS: Final = (
    *("r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1"),
    *(f"v1.{minor}" for minor in range(1, 20)),
)

UNSTABLE_FEATURES: Final[Mapping[str, bool]] = MappingProxyType(
    {
        "org.heliograph.ws": True,
        # Dehydrated devices.
        "org.matrix.msc3814": True,
        # Login tokens.
        "org.matrix.msc3882": True,
        # Profile fields.
        "uk.tcpip.msc4133": True,
        "uk.tcpip.msc4133.stable": True,
        # Locking and suspending accounts.
        "uk.timedout.msc4323": True,
        "uk.timedout.msc4323.stable": True,
    }
)
"""What is true of this server; whoever adds a feature adds its name."""


def section() -> Section:
    """The endpoints."""
    s = Section("API versions")

    @s.endpoint("GET", "/_matrix/client/versions", access=Access.PUBLIC)
    async def get_versions(_: Request) -> Response:
        """The versions of the specification and the unstable features that this server supports."""
        return Response(
            {"versions": VERSIONS, "unstable_features": dict(UNSTABLE_FEATURES)},
            headers={"Cache-Control": "public, max-age=600"},
        )

    return s
