"""The published keys of users of other servers (`homeserver.services.remote.RemoteUserKeys`).

https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption
https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Mapping
from typing import Any, Final

from federation.outbound.answer_shapes import json_object
from federation.outbound.client import FederationClient
from federation.wire.paths import federation_path
from homeserver.core.ids import ServerName, UserId
from homeserver.core.key_wishes import WantedDevices, WantedKeys

TIMEOUT_SECONDS: Final = 20.0
"""How long a server may take; a client that does not want to wait so long is the caller's business."""

KEYS_BYTES_MAX: Final = 16 * 1024 * 1024
LIST_BYTES_MAX: Final = 16 * 1024 * 1024


class FederationUserKeys:
    """Asks the users' own server. It raises what the client raises, `RemoteUnavailable` and `RemoteRefused`."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def query(self, via: ServerName, wanted: WantedDevices) -> Mapping[str, Any]:
        """The keys of some of its users."""
        body = {"device_keys": {user_id: list(devices) for user_id, devices in wanted.items()}}
        return await self._post(via, "query", body)

    async def claim(self, via: ServerName, wanted: WantedKeys) -> Mapping[str, Any]:
        """One-time keys of its users' devices."""
        body = {"one_time_keys": {user_id: dict(devices) for user_id, devices in wanted.items()}}
        return await self._post(via, "claim", body)

    async def devices(self, user_id: UserId) -> Mapping[str, Any]:
        """All devices of a user."""
        server_name = user_id.server_name
        answer = await self._client.get(
            server_name,
            federation_path("v1", "user", "devices", user_id),
            timeout_seconds=TIMEOUT_SECONDS,
            bytes_max=LIST_BYTES_MAX,
        )
        return json_object(server_name, answer)

    async def _post(self, via: ServerName, action: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        path = federation_path("v1", "user", "keys", action)
        answer = await self._client.post(via, path, body, timeout_seconds=TIMEOUT_SECONDS, bytes_max=KEYS_BYTES_MAX)
        return json_object(via, answer)
