"""Secrets that the server gives out and recognises by their hash alone.

They carry 256 bits from the operating system, so a plain hash is enough to store them: there is nothing to guess.
"""

import hashlib
import secrets
from typing import Final

REFRESH_TOKEN_PREFIX: Final = "hlr_"  # noqa: S105 - a prefix, by which leaked tokens can be found
LOGIN_TOKEN_PREFIX: Final = "hll_"  # noqa: S105
OPENID_TOKEN_PREFIX: Final = "hlo_"  # noqa: S105


def new_token(prefix: str = "") -> str:
    """A new secret, safe in URLs."""
    return prefix + secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """What is stored of a secret. Any text has a hash: one that cannot be encoded is simply not known."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
