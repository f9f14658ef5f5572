"""The keys and devices of this server's users, for other servers.

Keys are told and given out to any server that names a user: one who is invited to an encrypted room shares none with
the inviting server yet, and must be able to read what is said there; so it is with the messages by which users verify
each other. The list of devices, which is numbered and so shows when something changes, is told only to servers that
share a room with the user. What is known here of other servers' users is told to nobody.

https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption
https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Iterable
from typing import Final

from federation.inbound.origin import origin_of
from homeserver.core.errors import InvalidParam
from homeserver.core.ids import ServerName, UserId
from homeserver.core.key_wishes import parse_wanted_devices, parse_wanted_keys
from homeserver.services.e2ee.key_claims import KeyClaims
from homeserver.services.e2ee.key_queries import KeyQueries
from homeserver.services.e2ee.served_device_lists import ServedDeviceLists
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

# What may hold very many entries is checked by hand.
QUERY: Final = {"type": "object", "required": ["device_keys"]}
CLAIM: Final = {"type": "object", "required": ["one_time_keys"]}


def section(queries: KeyQueries, claims: KeyClaims, lists: ServedDeviceLists, *, server_name: ServerName) -> Section:
    """The endpoints over their use cases."""
    s = Section("End-to-end encryption")

    @s.endpoint(
        "POST",
        "/_matrix/federation/v1/user/keys/query",
        access=Access.SERVER,
        body=QUERY,
        rate_limit=RateLimit.FEDERATION,
        writes=False,
    )
    async def query_user_encryption_keys(request: Request) -> Response:
        """The keys of users' devices, and of the users."""
        wanted = parse_wanted_devices(request.body["device_keys"])
        _require_own(wanted, server_name)
        found = await queries.local(wanted, seen_by=None)
        return Response(
            {
                "device_keys": found.device_keys,
                "master_keys": found.master_keys,
                "self_signing_keys": found.self_signing_keys,
            }
        )

    @s.endpoint(
        "POST",
        "/_matrix/federation/v1/user/keys/claim",
        access=Access.SERVER,
        body=CLAIM,
        rate_limit=RateLimit.FEDERATION,
    )
    async def claim_user_encryption_keys(request: Request) -> Response:
        """One-time keys of devices."""
        wanted = parse_wanted_keys(request.body["one_time_keys"])
        _require_own(wanted, server_name)
        return Response({"one_time_keys": await claims.claim_local(wanted)})

    @s.endpoint(
        "GET",
        "/_matrix/federation/v1/user/devices/{user_id}",
        access=Access.SERVER,
        rate_limit=RateLimit.FEDERATION,
    )
    async def get_user_devices(request: Request) -> Response:
        """All devices of a user."""
        return Response(await lists.read(origin_of(request), UserId.parse(request.path["user_id"])))

    return s


def _require_own(user_ids: Iterable[UserId], server_name: ServerName) -> None:
    """Raises InvalidParam if there is a user of another server."""
    if any(user_id.server_name != server_name for user_id in user_ids):
        raise InvalidParam("This server answers for its own users only")
