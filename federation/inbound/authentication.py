"""Finds out which server a request comes from, by its signature.

https://spec.matrix.org/v1.19/server-server-api/#request-authentication
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from federation.wire.allowed_servers import AllowedServers
from federation.wire.x_matrix import XMatrix, parse_authorization
from homeserver.core.canonical_json import encode_canonical
from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, Unauthorized, UnavailableForNow
from homeserver.core.ids import ServerName
from homeserver.services.remote import KeyWish, ServerKey, ServerKeys
from homeserver.web.body import parse_body
from homeserver.web.endpoint import Endpoint, Request

IN_LOOP_BYTES_MAX: Final = 65_536
"""A larger body is checked in a thread."""
KEY_SEARCHES_MAX: Final = 500
"""How many requests may wait for keys: whoever makes up server names shall not make this server busy with them."""


class ServerAuthentication:
    """Satisfies `homeserver.web.dispatch.Authenticate` for endpoints of `Access.SERVER`: `authenticate`."""

    def __init__(
        self,
        *,
        keys: ServerKeys,
        servers: AllowedServers,
        server_name: ServerName,
        clock: Clock,
        note_contact: Callable[[ServerName], None],
    ) -> None:
        """Takes where keys come from, with whom this server talks, its name, and who is told of each good request."""
        self._keys = keys
        self._servers = servers
        self._server_name = server_name
        self._clock = clock
        self._note_contact = note_contact
        self._searches = 0

    async def authenticate(self, _: Endpoint, request: Request) -> Request:
        """The request with its `origin`.

        Raises:
            Unauthorized: no server has signed it, or not for this one.
            Forbidden: this server does not talk with that one.
            NotJson: the body is no JSON.
            UnavailableForNow: too many other requests wait for keys.
        """
        signatures = parse_authorization(request.headers.get("authorization", ""))
        origin = self._origin_of(signatures)
        keys = await self._keys_of(origin, signatures)
        is_large = len(request.raw_body) > IN_LOOP_BYTES_MAX
        is_good = await asyncio.to_thread(_verify, request, keys) if is_large else _verify(request, keys)
        if not is_good:
            raise Unauthorized(f"The signature of {origin} is wrong")
        self._note_contact(origin)
        return replace(request, origin=origin)

    def _origin_of(self, signatures: Sequence[XMatrix]) -> ServerName:
        if not signatures:
            raise Unauthorized("The request is not signed by a server")
        origin = signatures[0].origin
        if any(signature.origin != origin for signature in signatures):
            raise Unauthorized("The request is signed by several servers")
        if any(signature.destination not in (None, self._server_name) for signature in signatures):
            raise Unauthorized("The request is meant for another server")
        if origin == self._server_name:
            raise Unauthorized("This server asks nothing of itself")
        if not self._servers.allows(origin):
            raise Forbidden("This server does not talk with yours")
        return origin

    async def _keys_of(self, origin: ServerName, signatures: Collection[XMatrix]) -> Mapping[XMatrix, ServerKey]:
        """The keys that are good now, by the signatures that were made with them; at least one."""
        now_ms = self._clock.now_ms()
        if self._searches >= KEY_SEARCHES_MAX:
            raise UnavailableForNow("Too many requests wait for the keys of their servers")
        self._searches += 1
        try:
            found = await self._keys.fetch({KeyWish(origin, signature.key_id, now_ms) for signature in signatures})
        finally:
            self._searches -= 1
        good = {
            signature: key
            for signature in signatures
            if (key := found.get((origin, signature.key_id))) is not None
            and not key.is_retired
            and key.valid_until_ts >= now_ms
        }
        if not good:
            raise Unauthorized(f"The key with which {origin} has signed is not known, or no longer in use")
        return good


def _verify(request: Request, keys: Mapping[XMatrix, ServerKey]) -> bool:
    """Whether all signatures whose keys are known are right."""
    content = None
    if request.raw_body:
        content = encode_canonical(request.body or parse_body(request.raw_body, required=True))
    return all(
        signature.verify(method=request.method, uri=request.uri, content=content, key=key.key)
        for signature, key in keys.items()
    )
