"""This server's own keys: those it signs with, and those that it used to sign with.

https://spec.matrix.org/v1.19/server-server-api/#publishing-keys
"""

from dataclasses import dataclass
from typing import Any

from homeserver.core.ids import ServerName
from homeserver.core.signing import SigningKey, VerifyKey, sign_json


@dataclass(frozen=True, slots=True)
class RetiredKey:
    """A key that nothing is signed with any more since a time (milliseconds)."""

    key: VerifyKey
    expired_ts: int


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """All keys of this server.

    Attributes:
        active: at least one; the first signs events and requests, all are published.
        retired: published too, so that what they have signed can be checked.
    """

    active: tuple[SigningKey, ...]
    retired: tuple[RetiredKey, ...] = ()

    @property
    def signing(self) -> SigningKey:
        """The key that signs events and requests."""
        return self.active[0]

    def published(self, server_name: ServerName, *, valid_until_ts: int) -> dict[str, Any]:
        """What other servers are told, signed with every active key.

        Args:
            server_name: the name of this server.
            valid_until_ts: until when they need not ask again, in milliseconds.
        """
        published: dict[str, Any] = {
            "server_name": server_name,
            "valid_until_ts": valid_until_ts,
            "verify_keys": {key.key_id: {"key": key.verify_key.encode()} for key in self.active},
            "old_verify_keys": {
                retired.key.key_id: {"key": retired.key.encode(), "expired_ts": retired.expired_ts}
                for retired in self.retired
            },
        }
        for key in self.active:
            published = sign_json(published, server_name, key)
        return published
