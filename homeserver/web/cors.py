"""Cross-origin resource sharing: every response may be read by pages of any origin, for tokens are never in cookies.

https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

CORS_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
        "Access-Control-Allow-Headers": "X-Requested-With, Content-Type, Authorization",
    }
)
"""The headers that the specification recommends, on all responses."""

CORS_HEADERS_RAW: Final = tuple((name.lower().encode(), value.encode()) for name, value in CORS_HEADERS.items())
"""The same in the form of ASGI."""
