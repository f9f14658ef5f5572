"""Cross-signing: uploading keys and signatures.

https://spec.matrix.org/v1.19/client-server-api/#cross-signing
"""

from collections.abc import Mapping
from typing import Any, Final

from client_api.uia import AUTH, authenticate_again
from homeserver.core.errors import BadJson
from homeserver.core.ids import UserId
from homeserver.services.accounts.uia import UserInteractiveAuth
from homeserver.services.e2ee.cross_signing import CrossSigning, parse_cross_signing_keys
from homeserver.services.e2ee.key_signatures import KeySignatures
from homeserver.web.endpoint import EMPTY, RateLimit, Request, Response, Section

CROSS_SIGNING_KEYS: Final = {"type": "object", "properties": {"auth": AUTH}}
SIGNATURES: Final = {"type": "object"}


def section(cross_signing: CrossSigning, signatures: KeySignatures, uia: UserInteractiveAuth) -> Section:
    """The endpoints."""
    s = Section("Cross-signing")

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/keys/device_signing/upload",
        aliases=("/_matrix/client/unstable/keys/device_signing/upload",),
        body=CROSS_SIGNING_KEYS,
        rate_limit=RateLimit.WRITE,
    )
    async def upload_cross_signing_keys(request: Request) -> Response:
        """Publishes the user's cross-signing keys."""
        requester = request.requester
        given = parse_cross_signing_keys(requester.user_id, request.body)
        needs_authentication = await cross_signing.needs_authentication(requester.user_id, given)
        if needs_authentication and requester.appservice_id is None:
            await authenticate_again(uia, request)
        await cross_signing.upload(requester.user_id, given, is_authenticated=needs_authentication)
        return EMPTY

    @s.endpoint(
        "POST",
        "/_matrix/client/v3/keys/signatures/upload",
        aliases=("/_matrix/client/unstable/keys/signatures/upload",),
        body=SIGNATURES,
        rate_limit=RateLimit.WRITE,
    )
    async def upload_cross_signing_signatures(request: Request) -> Response:
        """Adds signatures to keys."""
        failures = await signatures.upload(request.requester.user_id, _parse_signatures(request.body))
        return Response({"failures": failures})

    return s


def _parse_signatures(body: Mapping[str, Any]) -> dict[UserId, Mapping[str, Any]]:
    """The signed keys by user and key id; the keys themselves are looked at one by one."""
    if not all(isinstance(keys, dict) for keys in body.values()):
        raise BadJson("The body must hold an object of keys for each user")
    return {UserId.parse(user_id): keys for user_id, keys in body.items()}
