"""The signing keys of all servers: from memory, the database, themselves, or notaries (`services.remote.ServerKeys`).

https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from prometheus_client import Counter

from federation.outbound.key_sources import KeySources
from federation.wire.server_keys import DeniedKeys, KeyAnswer
from homeserver.core.canonical_json import encode_canonical, parse_json
from homeserver.core.clock import Clock
from homeserver.core.ids import ServerName
from homeserver.core.own_keys import OwnKeys
from homeserver.core.signing import VerifyKey
from homeserver.core.text import is_storable
from homeserver.services.remote import KeyWish, ServerKey
from homeserver.services.single_flight import SingleFlight
from storage.bounded_cache import BoundedCache
from storage.database import Database
from storage.errors import DatabaseError
from storage.server_keys import KeyAnswerRow, ServerKeyRow, list_key_answers, list_server_keys, upsert_server_keys

logger = logging.getLogger(__name__)

CACHED_MAX: Final = 50_000
FETCH_SECONDS_MAX: Final = 60.0
SIDE_BY_SIDE_MAX: Final = 40
NOTARIES_FIRST_FROM: Final = 10
"""From so many servers on the notaries are asked first: one request for a hundred servers."""

ATTEMPT_MS: Final = 30_000
ATTEMPT_MS_MAX: Final = 600_000
"""How long a key that was not to be had is not asked for again: doubled each time."""
SERVER_EVERY_MS: Final = 5_000
SERVER_AT_ONCE: Final = 5
"""So often a server is asked in the long run, and at once, whatever keys somebody makes up in its name."""

ALIVE_MS: Final = 60_000
"""Who needs a key that is good now has heard of its server just now: it is asked though it has failed before."""

REFRESH_MS: Final = 6 * 3_600_000
"""Keys in use that are good for less than this are fetched again beforehand."""
REFRESH_EVERY_SECONDS: Final = 5.0
REFRESHES_MAX: Final = 1000
ANSWERS_PER_SERVER_MAX: Final = 10
OWN_VALID_MS: Final = 86_400_000

KEYS_FETCHED: Final = Counter("heliograph_server_keys_fetched", "Answers about the keys of servers.", ["source"])

KeyName = tuple[ServerName, str]


class KeyRing:
    """One for each worker. `run()` must be running for keys to be fetched before they are needed."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        sources: KeySources,
        denied: DeniedKeys,
        server_name: ServerName,
        own_keys: OwnKeys,
    ) -> None:
        self._db = db
        self._clock = clock
        self._sources = sources
        self._denied = denied
        self._server_name = server_name
        self._own_keys = own_keys
        self._known: BoundedCache[KeyName, ServerKey] = BoundedCache("server_keys", weight_max=CACHED_MAX)
        # For keys that were not to be had: when to ask again, and the pause after that.
        self._missed: BoundedCache[KeyName, tuple[int, int]] = BoundedCache("missed_keys", weight_max=CACHED_MAX)
        # Until when the requests to a server last, if each takes its share of time.
        self._asked: BoundedCache[ServerName, int] = BoundedCache("asked_key_servers", weight_max=CACHED_MAX)
        self._flights: SingleFlight[ServerName, KeyAnswer | None] = SingleFlight()
        self._side_by_side = asyncio.Semaphore(SIDE_BY_SIDE_MAX)
        self._refresh: set[ServerName] = set()

    async def fetch(self, wishes: Collection[KeyWish]) -> Mapping[KeyName, ServerKey]:
        """The keys that could be had, by server and key id; see `ServerKeys`."""
        return await self._find(wishes, for_others=False)

    async def answers(
        self, server_name: ServerName, *, key_ids: Collection[str], minimum_valid_until_ts: int
    ) -> Sequence[Mapping[str, Any]]:
        """What a server has said of some of its keys, signed by it, for others that ask this one as a notary.

        Without `key_ids` that is about all of them. It is asked first if what is known is too old, or lacks a key.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        wishes = [KeyWish(server_name, key_id, minimum_valid_until_ts) for key_id in key_ids]
        if wishes:
            await self._find(wishes, for_others=True)
        rows = await self._answer_rows(server_name, key_ids)
        if not wishes and not any(row.promised_until_ts >= minimum_valid_until_ts for row in rows):
            await self._ask_server(server_name)
            rows = await self._answer_rows(server_name, key_ids)
        return [parse_json(row.json) for row in rows]

    async def run(self) -> None:
        """Fetches keys in use again before they expire, until it is cancelled."""
        while True:
            await self._clock.sleep(REFRESH_EVERY_SECONDS)
            due, self._refresh = self._refresh, set()
            async with asyncio.TaskGroup() as tasks:
                for server_name in due:
                    tasks.create_task(self._ask_server(server_name))

    async def _find(self, wishes: Collection[KeyWish], *, for_others: bool) -> Mapping[KeyName, ServerKey]:
        """The keys that could be had; for others that ask this server as a notary it asks no notaries in turn."""
        wanted = [wish for wish in wishes if is_storable(wish.key_id) and wish.key_id.startswith("ed25519:")]
        asked: list[KeyWish] = []
        try:
            async with asyncio.timeout(FETCH_SECONDS_MAX):
                if missing := self._missing(wanted):
                    await self._load(missing)
                if asked := self._due(self._missing(wanted)):
                    await (self._ask_servers(asked) if for_others else self._ask(asked))
        except TimeoutError:
            logger.info("Not all keys of other servers were there in time")
        except DatabaseError as error:
            logger.warning("The keys of other servers could not be read: %s", error)
        if not for_others:
            self._note_missed(asked)
        found = {_name(wish): key for wish in wanted if (key := self._key(_name(wish))) is not None}
        self._note_refresh(found)
        return found

    def _key(self, name: KeyName) -> ServerKey | None:
        if name[0] == self._server_name:
            return self._own_key(name[1])
        key = self._known.get(name)
        return None if key is None or self._denied.has(key.key) else key

    def _own_key(self, key_id: str) -> ServerKey | None:
        for key in self._own_keys.active:
            if key.key_id == key_id:
                return ServerKey(key.verify_key, self._clock.now_ms() + OWN_VALID_MS)
        for retired in self._own_keys.retired:
            if retired.key.key_id == key_id:
                return ServerKey(retired.key, retired.expired_ts, is_retired=True)
        return None

    def _missing(self, wishes: Collection[KeyWish]) -> list[KeyWish]:
        """The wishes that what is in memory does not meet, but an answer from elsewhere might."""
        return [
            wish
            for wish in wishes
            if wish.server_name != self._server_name and not _meets(self._known.get(_name(wish)), wish)
        ]

    def _due(self, wishes: Collection[KeyWish]) -> list[KeyWish]:
        now_ms = self._clock.now_ms()
        return [wish for wish in wishes if (self._missed.get(_name(wish)) or (0, 0))[0] <= now_ms]

    def _note_missed(self, asked: Collection[KeyWish]) -> None:
        now_ms = self._clock.now_ms()
        for name in {_name(wish) for wish in self._missing(asked)}:
            _, pause_ms = self._missed.get(name) or (0, ATTEMPT_MS)
            self._missed.put(name, (now_ms + pause_ms, min(2 * pause_ms, ATTEMPT_MS_MAX)))

    def _note_refresh(self, found: Mapping[KeyName, ServerKey]) -> None:
        now_ms = self._clock.now_ms()
        for (server_name, _), key in found.items():
            expires_in_ms = key.valid_until_ts - now_ms
            if (
                not key.is_retired
                and 0 < expires_in_ms < REFRESH_MS
                and server_name != self._server_name
                and len(self._refresh) < REFRESHES_MAX
            ):
                self._refresh.add(server_name)

    async def _load(self, wishes: Collection[KeyWish]) -> None:
        """Takes all keys of some servers from the database into memory."""
        servers = {wish.server_name for wish in wishes}
        async with self._db.connection() as conn:
            rows = await list_server_keys(conn, servers)
        for row in rows:
            self._known.put((row.server_name, row.key_id), _key_of(row))

    async def _ask(self, wishes: Sequence[KeyWish]) -> None:
        """Asks others: the servers themselves and then the notaries for what is missing still, or the other way."""
        servers = {wish.server_name for wish in wishes}
        alive_from_ts = self._clock.now_ms() - ALIVE_MS
        alive = {wish.server_name for wish in wishes if (wish.valid_at_ts or 0) >= alive_from_ts}
        if self._sources.has_notaries and len(servers) >= NOTARIES_FIRST_FROM:
            await self._ask_notaries(wishes)
            await self._ask_servers(self._missing(wishes), alive)
            return
        await self._ask_servers(wishes, alive)
        if self._sources.has_notaries and (missing := self._missing(wishes)):
            await self._ask_notaries(missing)

    async def _ask_servers(self, wishes: Collection[KeyWish], alive: Collection[ServerName] = ()) -> None:
        """Asks each server for its keys; those that are known to be alive though they have failed before."""
        async with asyncio.TaskGroup() as tasks:
            for server_name in {wish.server_name for wish in wishes}:
                tasks.create_task(self._ask_server(server_name, retry_failed=server_name in alive))

    async def _ask_server(self, server_name: ServerName, *, retry_failed: bool = False) -> None:
        async def ask() -> KeyAnswer | None:
            now_ms = self._clock.now_ms()
            lasting_until_ms = max(self._asked.get(server_name) or 0, now_ms) + SERVER_EVERY_MS
            if lasting_until_ms > now_ms + SERVER_AT_ONCE * SERVER_EVERY_MS:
                return None
            self._asked.put(server_name, lasting_until_ms)
            async with self._side_by_side:
                answer = await self._sources.from_server(server_name, retry_failed=retry_failed)
            if answer is not None:
                KEYS_FETCHED.labels("server").inc()
                await self._keep([answer])
            return answer

        await self._flights.run(server_name, ask)

    async def _ask_notaries(self, wishes: Collection[KeyWish]) -> None:
        answers = await self._sources.from_notaries(wishes)
        KEYS_FETCHED.labels("notary").inc(len(answers))
        await self._keep(answers)

    async def _keep(self, answers: Sequence[KeyAnswer]) -> None:
        """Writes keys down, and takes into memory what the database then holds: an older answer changes nothing."""
        best: dict[KeyName, tuple[KeyAnswer, ServerKey]] = {}
        for answer in answers:
            for key_id, key in answer.keys.items():
                name = (answer.server_name, key_id)
                if name not in best or best[name][0].valid_until_ts < answer.valid_until_ts:
                    best[name] = (answer, key)
        if not best:
            return
        texts = {id(answer): encode_canonical(answer.json).decode() for answer in answers}
        rows = [
            ServerKeyRow(
                server_name=server_name,
                key_id=key_id,
                key=key.key.encode(),
                expired_ts=key.valid_until_ts if key.is_retired else None,
                promised_until_ts=answer.valid_until_ts,
            )
            for (server_name, key_id), (answer, key) in best.items()
        ]
        storable = [text for answer, _ in best.values() if "\\u0000" not in (text := texts[id(answer)])]
        if len(storable) < len(rows):
            return
        try:
            async with self._db.connection() as conn:
                await upsert_server_keys(conn, rows, answers=storable, fetched_ts=self._clock.now_ms())
                kept = await list_server_keys(conn, {row.server_name for row in rows})
        except DatabaseError as error:
            logger.warning("Keys of other servers could not be stored: %s", error)
            kept = rows
        for row in kept:
            self._known.put((row.server_name, row.key_id), _key_of(row))

    async def _answer_rows(self, server_name: ServerName, key_ids: Collection[str]) -> Sequence[KeyAnswerRow]:
        storable = [key_id for key_id in key_ids if is_storable(key_id)]
        if key_ids and not storable:
            return ()
        async with self._db.connection() as conn:
            return await list_key_answers(conn, server_name, key_ids=storable, limit=ANSWERS_PER_SERVER_MAX)


def _name(wish: KeyWish) -> KeyName:
    return wish.server_name, wish.key_id


def _meets(key: ServerKey | None, wish: KeyWish) -> bool:
    """Whether another answer could not tell more: the key of a server in use may yet be promised for longer."""
    if key is None:
        return False
    return wish.valid_at_ts is None or key.is_retired or key.valid_until_ts >= wish.valid_at_ts


def _key_of(row: ServerKeyRow) -> ServerKey:
    key = VerifyKey.parse(key_id=row.key_id, key_base64=row.key)
    return ServerKey(
        key, row.promised_until_ts if row.expired_ts is None else row.expired_ts, is_retired=row.expired_ts is not None
    )
