"""Makes transactions of what waits for other servers, and takes out of the queues what has arrived.

A transaction is written down before it is sent. Until the server has taken it, it is sent again with the same id and
content, by whichever worker.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

import logging
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from federation.outbound.grouped_calls import GroupedCalls
from homeserver.core.canonical_json import encode_canonical
from homeserver.core.clock import Clock
from homeserver.core.errors import MatrixError
from homeserver.core.ids import EventId, ServerName
from storage.bounded_cache import BoundedCache
from storage.database import Connection, Database
from storage.destination_queues import (
    StoredTransaction,
    Waiting,
    complete_transactions,
    delete_transaction,
    insert_transactions,
    list_edus,
    list_waiting,
)
from storage.outgoing_events import list_changed_pdus

logger = logging.getLogger(__name__)

PDUS_MAX: Final = 50
EDUS_MAX: Final = 100
TRANSACTION_BYTES_MAX: Final = 8 * 1024 * 1024
"""The specification sets no limit but on numbers; EDUs can be much larger than events."""

TOGETHER_MAX: Final = 50
DATABASE_SECONDS_MAX: Final = 20.0
TEXTS_BYTES_MAX: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PduText:
    """An event as it is sent, in canonical JSON; `revision` is that of the stored event."""

    event_id: EventId
    revision: int
    json: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A transaction in flight: what is stored of it, and its contents in canonical JSON.

    Attributes:
        is_all: when it was made, nothing else waited.
    """

    stored: StoredTransaction
    pdus: Sequence[PduText]
    edus: Sequence[bytes]
    is_all: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of it: its events were purged, its EDUs replaced."""
        return not self.pdus and not self.edus

    @property
    def is_single(self) -> bool:
        """Whether there is nothing in it that could be left out."""
        return len(self.stored.event_nids) + len(self.stored.edu_ids) <= 1


class Transactions:
    """Claims what waits, and completes what has arrived. Under load each statement serves many servers."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._texts: BoundedCache[int, PduText] = BoundedCache(
            "pdu_texts", weight_max=TEXTS_BYTES_MAX, weigh=lambda text: 300 + len(text.json), bytes_each=1
        )
        self._claims: GroupedCalls[ServerName, int, Transaction] = GroupedCalls(
            self._claim_all, together_max=TOGETHER_MAX, seconds_max=DATABASE_SECONDS_MAX
        )
        self._completions: GroupedCalls[ServerName, str, None] = GroupedCalls(
            self._complete_all, together_max=TOGETHER_MAX, seconds_max=DATABASE_SECONDS_MAX
        )

    async def claim(self, destination: ServerName, *, items_max: int) -> Transaction | None:
        """The transaction in flight to a server, or a new one of what waits longest; None if nothing waits.

        Args:
            destination: the server.
            items_max: how many events and EDUs a new one holds, within the limits of the specification.

        Raises:
            DatabaseError, TimeoutError: the database is away.
        """
        return await self._claims.call(destination, items_max)

    async def complete(self, transaction: Transaction) -> None:
        """Says that a transaction has arrived: what is in it waits no longer.

        Raises:
            DatabaseError, TimeoutError: the database is away; it will be sent again.
        """
        await self._completions.call(transaction.stored.destination, transaction.stored.transaction_id)

    async def dissolve(self, transaction: Transaction) -> None:
        """Says that a transaction has been refused as it is: what is in it waits for others to be made.

        Raises:
            DatabaseError: the database is away.
        """
        stored = transaction.stored
        async with self._db.connection() as conn:
            await delete_transaction(conn, stored.destination, stored.transaction_id)

    def new_id(self) -> str:
        """An id for a transaction."""
        return f"{self._clock.now_ms()}-{secrets.token_urlsafe(6)}"

    async def _claim_all(self, limits: Mapping[ServerName, int]) -> Mapping[ServerName, Transaction]:
        maxima = {server: (min(items_max, PDUS_MAX), min(items_max, EDUS_MAX)) for server, items_max in limits.items()}
        async with self._db.connection() as conn:
            waiting = await list_waiting(conn, maxima)
            texts = await self._load(conn, {nid for each in waiting.values() for nid in each.event_nids})
            edus = await self._load_edus(conn, {edu_id for each in waiting.values() for edu_id in each.edu_ids})
            stored = [each for each in waiting.values() if isinstance(each, StoredTransaction)]
            new = [
                self._new(server, *_cut(each.event_nids, each.edu_ids, texts, edus, items_max=limits[server]))
                for server, each in waiting.items()
                if isinstance(each, Waiting) and (each.event_nids or each.edu_ids)
            ]
            ours = await insert_transactions(conn, new) if new else set()
        # Another worker that has thought itself responsible was faster: it sends its own.
        stored += [transaction for transaction in new if transaction.destination in ours]
        return {
            transaction.destination: Transaction(
                stored=transaction,
                pdus=[texts[nid] for nid in transaction.event_nids if nid in texts],
                edus=[edus[edu_id] for edu_id in transaction.edu_ids if edu_id in edus],
                is_all=_is_all(transaction, waiting[transaction.destination], maxima[transaction.destination]),
            )
            for transaction in stored
        }

    def _new(self, server: ServerName, event_nids: Sequence[int], edu_ids: Sequence[int]) -> StoredTransaction:
        return StoredTransaction(
            destination=server,
            transaction_id=self.new_id(),
            origin_server_ts=self._clock.now_ms(),
            event_nids=event_nids,
            edu_ids=edu_ids,
        )

    async def _load(self, conn: Connection, event_nids: Collection[int]) -> dict[int, PduText]:
        """Events as they are sent, each encoded once however many servers it goes to."""
        if not event_nids:
            return {}
        kept = {nid: text for nid in event_nids if (text := self._texts.get(nid)) is not None}
        known = {nid: kept[nid].revision if nid in kept else None for nid in event_nids}
        texts: dict[int, PduText] = {}
        for nid, (revision, pdu) in (await list_changed_pdus(conn, known)).items():
            if pdu is None:
                texts[nid] = kept[nid]
                continue
            try:
                json = encode_canonical({name: value for name, value in pdu.json.items() if name != "unsigned"})
            except MatrixError:
                logger.exception("The event %s cannot be sent", pdu.event_id)
                continue
            texts[nid] = PduText(pdu.event_id, revision, json)
            self._texts.put(nid, texts[nid])
        return texts

    @staticmethod
    async def _load_edus(conn: Connection, edu_ids: Collection[int]) -> dict[int, bytes]:
        if not edu_ids:
            return {}
        return {
            edu_id: encode_canonical({"content": orjson.loads(content), "edu_type": edu_type})
            for edu_id, (edu_type, content) in (await list_edus(conn, edu_ids)).items()
        }

    async def _complete_all(self, done: Mapping[ServerName, str]) -> Mapping[ServerName, None]:
        async with self._db.connection() as conn:
            await complete_transactions(conn, done)
        return {}


def _is_all(transaction: StoredTransaction, waiting: StoredTransaction | Waiting, maxima: tuple[int, int]) -> bool:
    """Whether a transaction holds all that waited when it was made."""
    events_max, edus_max = maxima
    return (
        isinstance(waiting, Waiting)
        and len(transaction.event_nids) == len(waiting.event_nids) < events_max
        and len(transaction.edu_ids) == len(waiting.edu_ids) < edus_max
    )


def _cut(
    event_nids: Sequence[int],
    edu_ids: Sequence[int],
    texts: Mapping[int, PduText],
    edus: Mapping[int, bytes],
    *,
    items_max: int,
) -> tuple[Sequence[int], Sequence[int]]:
    """As much of what waits as one transaction takes: events first, and one item at least."""
    kept_nids: list[int] = []
    kept_edus: list[int] = []
    room_left_bytes = TRANSACTION_BYTES_MAX
    sizes = [(kept_nids, nid, len(texts[nid].json) if nid in texts else 0) for nid in event_nids]
    sizes += [(kept_edus, edu_id, len(edus.get(edu_id, b""))) for edu_id in edu_ids]
    for number, (kept, item, size_bytes) in enumerate(sizes[:items_max]):
        if size_bytes > room_left_bytes and number > 0:
            break
        kept.append(item)
        room_left_bytes -= size_bytes
    return kept_nids, kept_edus


def transaction_body(
    origin: ServerName, *, origin_server_ts: int, pdus: Sequence[bytes], edus: Sequence[bytes]
) -> bytes:
    """The body of a transaction in canonical JSON, put together from parts that are."""
    return b'{"edus":[%b],"origin":%b,"origin_server_ts":%d,"pdus":[%b]}' % (
        b",".join(edus),
        orjson.dumps(str(origin)),
        origin_server_ts,
        b",".join(pdus),
    )
