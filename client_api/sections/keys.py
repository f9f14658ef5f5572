"""Keys for end-to-end encryption: uploading, querying and claiming them, and who has changed.

https://spec.matrix.org/v1.19/client-server-api/#key-management-api
"""

from typing import Final

from homeserver.core.key_wishes import parse_wanted_devices, parse_wanted_keys
from homeserver.core.tokens import SyncToken
from homeserver.services.e2ee.device_lists import KeyChanges
from homeserver.services.e2ee.key_claims import KeyClaims
from homeserver.services.e2ee.key_queries import KeyQueries
from homeserver.services.e2ee.key_uploads import KeyUploads
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

# What may hold very many entries is checked by hand.
UPLOAD: Final = {"type": "object"}
QUERY: Final = {
    "type": "object",
    "required": ["device_keys"],
    "properties": {"timeout": {"type": "integer", "minimum": 0}},
}
CLAIM: Final = {
    "type": "object",
    "required": ["one_time_keys"],
    "properties": {"timeout": {"type": "integer", "minimum": 0}},
}
TIMEOUT_MS_DEFAULT: Final = 10_000
TIMEOUT_MS_MAX: Final = 60_000


def section(uploads: KeyUploads, queries: KeyQueries, claims: KeyClaims, changes: KeyChanges) -> Section:
    """The endpoints."""
    s = Section("Key management")

    @s.endpoint("POST", "/_matrix/client/v3/keys/upload", access=Access.GUEST, body=UPLOAD, rate_limit=RateLimit.WRITE)
    async def upload_keys(request: Request) -> Response:
        """Publishes keys of the device."""
        counts = await uploads.upload(
            request.requester,
            identity=request.body.get("device_keys"),
            one_time=request.body.get("one_time_keys"),
            fallback=request.body.get("fallback_keys"),
        )
        return Response({"one_time_key_counts": counts})

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/keys/query",
        access=Access.GUEST,
        body=QUERY,
        rate_limit=RateLimit.READ,
        writes=False,
    )
    async def query_keys(request: Request) -> Response:
        """The keys of users' devices, and of the users."""
        wanted = parse_wanted_devices(request.body["device_keys"])
        found = await queries.query(request.requester.user_id, wanted, timeout_ms=_timeout_ms(request))
        return Response(found.json())

    @s.endpoint("POST", "/_matrix/client/v3/keys/claim", access=Access.GUEST, body=CLAIM, rate_limit=RateLimit.WRITE)
    async def claim_keys(request: Request) -> Response:
        """One-time keys of devices."""
        wanted = parse_wanted_keys(request.body["one_time_keys"])
        return Response((await claims.claim(wanted, timeout_ms=_timeout_ms(request))).json())

    @s.endpoint("GET", "/_matrix/client/v3/keys/changes", access=Access.GUEST, rate_limit=RateLimit.READ)
    async def get_keys_changes(request: Request) -> Response:
        """Whose keys have changed between two syncs."""
        since, upto = (SyncToken.parse(request.query_required(name)).position for name in ("from", "to"))
        found = await changes.between(request.requester.user_id, since=since, upto=upto)
        return Response({"changed": list(found.changed), "left": list(found.left)})

    return s


def _timeout_ms(request: Request) -> int:
    return min(int(request.body.get("timeout", TIMEOUT_MS_DEFAULT)), TIMEOUT_MS_MAX)
