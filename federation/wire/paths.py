"""Paths and queries of requests to other servers, percent-encoded so that a server reads back exactly what was meant.

https://spec.matrix.org/v1.19/appendices/#security-threat-model
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias
from urllib.parse import quote, urlencode

Query: TypeAlias = Mapping[str, str | Sequence[str]]
"""The parameters of a query, each with its value or values."""


def federation_path(version: str, *segments: str) -> str:
    """A path below `/_matrix/federation`: whatever stands in a segment, slashes too, is encoded.

    Args:
        version: `v1` or `v2`.
        segments: not encoded yet.
    """
    return "/".join(("/_matrix/federation", version, *(quote(segment, safe="") for segment in segments)))


def with_query(path: str, query: Query) -> str:
    """A path and its query, as both are sent and signed."""
    return f"{path}?{urlencode(query, doseq=True, quote_via=quote)}" if query else path
