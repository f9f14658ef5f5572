"""Servers that rooms have chosen to look at each event (`homeserver.services.remote.PolicyServers`).

https://spec.matrix.org/v1.19/server-server-api/#policy-servers
"""

from collections.abc import Mapping
from typing import Any, Final

from federation.outbound.answer_shapes import json_object
from federation.outbound.client import FederationClient
from homeserver.core.ids import ServerName
from homeserver.core.pdu import Pdu

PATH: Final = "/_matrix/policy/v1/sign"
TIMEOUT_SECONDS: Final = 15.0
ANSWER_BYTES_MAX: Final = 65_536


class FederationPolicyServers:
    """Asks a policy server once for each event."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def sign(self, via: ServerName, pdu: Pdu) -> Mapping[str, Any]:
        """Asks a policy server for its signature; returns signatures by server and key id, of which none is checked."""
        answer = await self._client.post(
            via, PATH, pdu.json, timeout_seconds=TIMEOUT_SECONDS, bytes_max=ANSWER_BYTES_MAX, retry_failed=True
        )
        return {
            server: dict(signatures)
            for server, signatures in json_object(via, answer).items()
            if isinstance(signatures, dict)
        }
