"""Where a client's access token stands in its request.

https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
"""

from collections.abc import Mapping, Sequence
from typing import Final

_SCHEME: Final = "bearer"


def access_token_of(*, headers: Mapping[str, str], query: Mapping[str, Sequence[str]]) -> str | None:
    """The access token of a request: from `Authorization: Bearer`, else from the query parameter `access_token`.

    Args:
        headers: names in lower case.
        query: each parameter with its values.
    """
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() == _SCHEME and token:
            return token
    values = query.get("access_token")
    return (values[-1] or None) if values else None
