"""Publishes the keys of this server, and as a notary those of others.

https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from homeserver.core.canonical_json import INTEGER_MAX
from homeserver.core.clock import Clock
from homeserver.core.errors import InvalidParam
from homeserver.core.ids import ServerName
from homeserver.core.own_keys import OwnKeys
from homeserver.core.signing import sign_json
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

VALID_MS: Final = 86_400_000
"""For how long others need not ask for the keys of this server again."""
SERVERS_MAX: Final = 100
KEYS_PER_SERVER_MAX: Final = 50
SIDE_BY_SIDE_MAX: Final = 10
QUERY_SECONDS_MAX: Final = 25.0

_QUERY: Final = {
    "type": "object",
    "required": ["server_keys"],
    "properties": {
        "server_keys": {
            "type": "object",
            "maxProperties": SERVERS_MAX,
            "additionalProperties": {
                "type": "object",
                "maxProperties": KEYS_PER_SERVER_MAX,
                "additionalProperties": {
                    "type": "object",
                    "properties": {"minimum_valid_until_ts": {"type": "integer", "minimum": 0, "maximum": INTEGER_MAX}},
                },
            },
        }
    },
}


class KeyAnswers(Protocol):
    """What is known of the keys of other servers (`federation.outbound.key_ring.KeyRing`)."""

    async def answers(
        self, server_name: ServerName, *, key_ids: Collection[str], minimum_valid_until_ts: int
    ) -> Sequence[Mapping[str, Any]]:
        """What a server has said of its keys; it is asked first if what is known does not suffice."""
        ...


def section(*, own_keys: OwnKeys, server_name: ServerName, others: KeyAnswers, clock: Clock) -> Section:
    """The endpoints."""
    s = Section("Server keys")
    notary = _Notary(own_keys=own_keys, server_name=server_name, others=others, clock=clock)

    @s.endpoint("GET", "/_matrix/key/v2/server", access=Access.PUBLIC)
    async def get_server_key(_: Request) -> Response:
        """The keys of this server."""
        return Response(notary.own())

    @s.endpoint("GET", "/_matrix/key/v2/server/{key_id}", access=Access.PUBLIC)
    async def get_server_key_by_id(_: Request) -> Response:
        """The same, as older servers ask for it; which key they name does not matter."""
        return Response(notary.own())

    @s.endpoint("GET", "/_matrix/key/v2/query/{server_name}", access=Access.PUBLIC, rate_limit=RateLimit.FEDERATION)
    async def perspectives_key_query(request: Request) -> Response:
        """The keys of another server, as this one knows them."""
        server = ServerName.parse(request.path["server_name"])
        minimum_ts = request.query_integer("minimum_valid_until_ts", clock.now_ms())
        return Response({"server_keys": await notary.answers({server: {}}, default_ts=minimum_ts)})

    @s.endpoint(
        "POST",
        "/_matrix/key/v2/query",
        access=Access.PUBLIC,
        body=_QUERY,
        writes=False,
        rate_limit=RateLimit.FEDERATION,
    )
    async def bulk_perspectives_key_query(request: Request) -> Response:
        """The keys of several servers, as this one knows them."""
        queries = {}
        for name, criteria in request.body["server_keys"].items():
            try:
                queries[ServerName.parse(name)] = criteria
            except InvalidParam:
                continue
        return Response({"server_keys": await notary.answers(queries, default_ts=clock.now_ms())})

    return s


class _Notary:
    """Signs what others have said of themselves."""

    def __init__(self, *, own_keys: OwnKeys, server_name: ServerName, others: KeyAnswers, clock: Clock) -> None:
        self._own_keys = own_keys
        self._server_name = server_name
        self._others = others
        self._clock = clock
        self._side_by_side = asyncio.Semaphore(SIDE_BY_SIDE_MAX)

    def own(self) -> dict[str, Any]:
        """The keys of this server."""
        return self._own_keys.published(self._server_name, valid_until_ts=self._clock.now_ms() + VALID_MS)

    async def answers(
        self, queries: Mapping[ServerName, Mapping[str, Mapping[str, Any]]], *, default_ts: int
    ) -> Sequence[Mapping[str, Any]]:
        """What is known of some servers when the time is up, signed in addition.

        Args:
            queries: by server and key id the criteria for the key; no key id for all keys.
            default_ts: until when keys must be good where the criteria do not say so.
        """
        found: dict[ServerName, Sequence[Mapping[str, Any]]] = {}

        async def look(server: ServerName, criteria: Mapping[str, Mapping[str, Any]]) -> None:
            minimum_ts = max(
                (wanted.get("minimum_valid_until_ts", default_ts) for wanted in criteria.values()), default=default_ts
            )
            async with self._side_by_side:
                found[server] = await self._others.answers(server, key_ids=criteria, minimum_valid_until_ts=minimum_ts)

        try:
            async with asyncio.timeout(QUERY_SECONDS_MAX), asyncio.TaskGroup() as tasks:
                for server, criteria in queries.items():
                    if server != self._server_name:
                        tasks.create_task(look(server, criteria))
        except TimeoutError:
            pass  # those that took too long are not included
        own = [self.own()] if self._server_name in queries else []
        key = self._own_keys.signing
        return own + [sign_json(answer, self._server_name, key) for answers in found.values() for answer in answers]
