"""Profiles of users of other servers (`homeserver.services.ports.RemoteProfiles`).

https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile
"""

from collections.abc import Mapping
from typing import Any, Final

from federation.outbound.answer_shapes import json_object
from federation.outbound.client import FederationClient
from federation.wire.paths import Query, federation_path
from homeserver.core.errors import NotFound, RemoteRefused, RemoteUnavailable
from homeserver.core.ids import UserId

TIMEOUT_SECONDS: Final = 10.0
PROFILE_BYTES_MAX: Final = 128 * 1024


class FederationProfiles:
    """Asks the user's own server."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def query_profile(self, user_id: UserId, *, field: str | None = None) -> Mapping[str, Any]:
        """The profile that the user's server answers with; only the one field, if it is given, and then that is there.

        Raises:
            NotFound: the server cannot be asked, or there is no such user or field.
        """
        server = user_id.server_name
        query: Query = {"user_id": user_id} if field is None else {"user_id": user_id, "field": field}
        try:
            answer = await self._client.get(
                server,
                federation_path("v1", "query", "profile"),
                query=query,
                timeout_seconds=TIMEOUT_SECONDS,
                bytes_max=PROFILE_BYTES_MAX,
            )
            profile = {name: value for name, value in json_object(server, answer).items() if value is not None}
        except (RemoteRefused, RemoteUnavailable) as error:
            raise NotFound("There is no profile of this user, or its server does not tell") from error
        if field is None:
            return profile
        if field not in profile:
            raise NotFound("The profile has no such field")
        return {field: profile[field]}
