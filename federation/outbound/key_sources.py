"""Where the keys of a server come from: itself, or notaries that this server trusts.

https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from federation.outbound.client import FederationClient
from federation.wire.server_keys import ANSWER_BYTES_MAX, DeniedKeys, KeyAnswer, parse_key_answer
from homeserver.config.schema import KeyServerConfig
from homeserver.core.clock import Clock
from homeserver.core.errors import InvalidParam, MatrixError
from homeserver.core.ids import ServerName
from homeserver.core.signing import VerifyKey, verify_json
from homeserver.services.remote import KeyWish
from storage.errors import DatabaseError

logger = logging.getLogger(__name__)

SERVER_PATH: Final = "/_matrix/key/v2/server"
QUERY_PATH: Final = "/_matrix/key/v2/query"
SERVER_SECONDS: Final = 10.0
NOTARY_SECONDS: Final = 30.0
NOTARY_BYTES_MAX: Final = 8 * 1024 * 1024
SERVERS_PER_QUERY: Final = 100
KEYS_PER_SERVER_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Notary:
    """A server that is asked for the keys of others; without keys, its TLS certificate alone vouches for it."""

    server_name: ServerName
    verify_keys: Sequence[VerifyKey] = ()

    @classmethod
    def configured(cls, config: KeyServerConfig) -> "Notary":
        """The notary that an operator has named.

        Raises:
            InvalidParam: one of its keys is none.
        """
        keys = [VerifyKey.parse(key_id=key_id, key_base64=key) for key_id, key in config.verify_keys.items()]
        return cls(config.server_name, keys)


class KeySources:
    """Asks; what comes back has been signed by the server that it is about. It raises nothing."""

    def __init__(
        self, *, client: FederationClient, notaries: Sequence[Notary], denied: DeniedKeys, clock: Clock
    ) -> None:
        self._client = client
        self._notaries = tuple(notaries)
        self._denied = denied
        self._clock = clock

    @property
    def has_notaries(self) -> bool:
        """Whether there is anybody to ask but the servers themselves."""
        return bool(self._notaries)

    async def from_server(self, server_name: ServerName, *, retry_failed: bool) -> KeyAnswer | None:
        """What a server says of its own keys now, be it left alone or not (`retry_failed`); None if it does not."""
        try:
            answer = await self._client.get(
                server_name,
                SERVER_PATH,
                timeout_seconds=SERVER_SECONDS,
                bytes_max=ANSWER_BYTES_MAX,
                retry_failed=retry_failed,
            )
            return await asyncio.to_thread(self._parsed, answer, server_name)
        except (MatrixError, DatabaseError) as error:
            logger.info("No keys from %s itself: %s", server_name, error)
            return None

    async def from_notaries(self, wishes: Collection[KeyWish]) -> Sequence[KeyAnswer]:
        """What the notaries know of some servers; all of them are asked at the same time."""
        by_server: dict[ServerName, list[KeyWish]] = {}
        for wish in wishes:
            by_server.setdefault(wish.server_name, []).append(wish)
        servers = list(by_server)
        queries = [
            {server: _criteria(by_server[server]) for server in servers[start : start + SERVERS_PER_QUERY]}
            for start in range(0, len(servers), SERVERS_PER_QUERY)
        ]
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._ask(notary, queries)) for notary in self._notaries]
        return [answer for task in asked for answer in task.result()]

    async def _ask(self, notary: Notary, queries: Sequence[Mapping[ServerName, Any]]) -> Sequence[KeyAnswer]:
        found: list[KeyAnswer] = []
        for query in queries:
            others = {server: criteria for server, criteria in query.items() if server != notary.server_name}
            if not others:
                continue
            try:
                answer = await self._client.post(
                    notary.server_name,
                    QUERY_PATH,
                    {"server_keys": others},
                    timeout_seconds=NOTARY_SECONDS,
                    bytes_max=NOTARY_BYTES_MAX,
                )
            except (MatrixError, DatabaseError) as error:
                logger.info("No keys from the notary %s: %s", notary.server_name, error)
                break
            found += await asyncio.to_thread(self._believed, notary, answer, frozenset(others))
        return found

    def _believed(self, notary: Notary, answer: Any, asked: Collection[ServerName]) -> Sequence[KeyAnswer]:
        """Those parts of a notary's answer that it has signed, and that the server they are about has signed too."""
        entries = answer.get("server_keys") if isinstance(answer, dict) else None
        found: list[KeyAnswer] = []
        for entry in entries if isinstance(entries, list) else ():
            server_name = entry.get("server_name") if isinstance(entry, dict) else None
            if not isinstance(server_name, str) or server_name not in asked or not _signed_by(notary, entry):
                continue
            try:
                found.append(self._parsed(entry, ServerName(server_name)))
            except InvalidParam as error:
                logger.info("Bad keys of %s from the notary %s: %s", server_name, notary.server_name, error.message)
        return found

    def _parsed(self, json: object, server_name: ServerName) -> KeyAnswer:
        return parse_key_answer(json, server_name=server_name, denied=self._denied, now_ms=self._clock.now_ms())


def _signed_by(notary: Notary, entry: Mapping[str, Any]) -> bool:
    return not notary.verify_keys or any(verify_json(entry, notary.server_name, key) for key in notary.verify_keys)


def _criteria(wishes: Collection[KeyWish]) -> Mapping[str, Any]:
    """For each wanted key of a server the latest time at which it must be valid; without a time any will do."""
    latest: dict[str, int] = {}
    for wish in wishes:
        latest[wish.key_id] = max(latest.get(wish.key_id, 0), wish.valid_at_ts or 0)
    return {
        key_id: {"minimum_valid_until_ts": valid_at_ts}
        for key_id, valid_at_ts in list(latest.items())[:KEYS_PER_SERVER_MAX]
    }
