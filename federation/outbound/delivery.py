"""Sends one transaction to one server, and draws the conclusions from how that went.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

import logging
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Protocol

from prometheus_client import Counter, Histogram

from federation.outbound.backoff import Destinations
from federation.outbound.pending_edus import PendingEdus, Taken
from federation.outbound.transactions import EDUS_MAX, PDUS_MAX, Transaction, Transactions, transaction_body
from federation.wire.paths import federation_path
from homeserver.core.clock import Clock
from homeserver.core.errors import RemoteRefused, RemoteUnavailable
from homeserver.core.ids import ServerName
from storage.bounded_cache import BoundedCache

logger = logging.getLogger(__name__)

ITEMS_MAX: Final = PDUS_MAX + EDUS_MAX
TRANSACTION_SECONDS_MAX: Final = 60.0
ANSWER_BYTES_MAX: Final = 1024 * 1024
# A server that refuses so many single events in a row does not mean the events.
SKIPPED_MAX: Final = 3
CAUTIONS_MAX: Final = 1_000
REFUSALS_LOGGED_MAX: Final = 5
REASON_CHARACTERS_MAX: Final = 200
# How long a server is left alone that answers but takes nothing; four times as long each time.
PAUSE_MS_MIN: Final = 30_000
PAUSE_MS_MAX: Final = 3_600_000
# What may be about the contents: a bad request, one that is too large, one that cannot be processed.
_CONTENT_STATUSES: Final = frozenset((400, 413, 422))
_LIMITED_STATUS: Final = 429
_BROKEN_STATUS_MIN: Final = 500

SENT_TRANSACTIONS: Final = Counter(
    "heliograph_federation_transactions", "Transactions by what became of them.", ["outcome"]
)
SENT_PDUS: Final = Counter(
    "heliograph_federation_sent_pdus", "Events sent to other servers, by what these said.", ["outcome"]
)
SENT_EDUS: Final = Counter("heliograph_federation_sent_edus", "EDUs sent to other servers.")
TRANSACTION_SECONDS: Final = Histogram(
    "heliograph_federation_transaction_seconds",
    "How long other servers took to take a transaction.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
DELIVERY_SECONDS: Final = Histogram(
    "heliograph_federation_delivery_seconds",
    "How long transactions took from being made to being taken, outages included.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3_600, 86_400),
)


class TransactionClient(Protocol):
    """What is needed of `FederationClient`."""

    async def put(
        self, destination: ServerName, path: str, body: bytes, *, timeout_seconds: float = ..., bytes_max: int = ...
    ) -> Any:
        """The JSON that a PUT is answered with.

        Raises:
            RemoteUnavailable: the server cannot be asked now.
            RemoteRefused: it has answered with an error.
        """
        ...


class Outcome(StrEnum):
    """What became of an attempt to send."""

    SENT = "sent"
    SENT_ALL = "sent_all"
    """Likewise, and nothing else waited when it was tried."""
    NOTHING = "nothing"
    """Nothing waits."""
    REFUSED = "refused"
    """The contents were refused; something else can be tried at once."""
    FAILED = "failed"
    """The server cannot be sent to now."""


class _Caution:
    """How a server is treated that answers, but has refused a transaction.

    Attributes:
        items_max: how many events and EDUs a transaction holds; halved by each refusal, doubled by each success.
        skipped: how many single events it has refused since it last took something.
        pause_ms: how long it is left alone when it next refuses everything.
    """

    __slots__ = ("items_max", "pause_ms", "skipped")

    def __init__(self) -> None:
        self.items_max = ITEMS_MAX
        self.skipped = 0
        self.pause_ms = PAUSE_MS_MIN


class Delivery:
    """Sends transactions. It is called for each server by one task at a time."""

    def __init__(
        self,
        *,
        server_name: ServerName,
        clock: Clock,
        client: TransactionClient,
        destinations: Destinations,
        transactions: Transactions,
        pending: PendingEdus,
    ) -> None:
        """Takes its means.

        Args:
            server_name: this server.
            clock: the time.
            client: sends.
            destinations: the back-off, which `client` tells of most failures.
            transactions: what must arrive.
            pending: what passes.
        """
        self._server_name = server_name
        self._clock = clock
        self._client = client
        self._destinations = destinations
        self._transactions = transactions
        self._pending = pending
        self._cautions: BoundedCache[ServerName, _Caution] = BoundedCache("cautions", weight_max=CAUTIONS_MAX)

    async def send(self, destination: ServerName) -> Outcome:
        """Sends what waits for a server, as much as fits into one transaction.

        What passes is told together with what must arrive, but it is not sent again: if the transaction fails, the
        server is told the newest when it is back. A transaction of that alone is not written down.

        Raises:
            DatabaseError, TimeoutError: the database is away; what was sent is perhaps sent again.
        """
        caution = self._cautions.get(destination) or _Caution()
        transaction = await self._transactions.claim(destination, items_max=caution.items_max)
        if transaction is not None and transaction.is_empty:
            await self._transactions.complete(transaction)
            return Outcome.SENT
        # A server that refuses contents is told what passes apart.
        room = EDUS_MAX if transaction is None else EDUS_MAX - len(transaction.edus)
        taken = self._pending.take(destination, limit=room)
        if transaction is not None and caution.items_max < ITEMS_MAX:
            taken = Taken()
        if transaction is None and not taken.edus:
            return Outcome.NOTHING
        try:
            answer = await self._put(destination, transaction, taken)
        except RemoteUnavailable:
            return self._failed(destination)
        except RemoteRefused as error:
            return await self._refused(destination, transaction, taken, error)
        return await self._arrived(destination, transaction, taken, answer)

    async def _put(self, destination: ServerName, transaction: Transaction | None, taken: Taken) -> Any:
        now_ms = self._clock.now_ms()
        pdus = [] if transaction is None else [pdu.json for pdu in transaction.pdus]
        edus = [*([] if transaction is None else transaction.edus), *taken.edus]
        transaction_id = self._transactions.new_id() if transaction is None else transaction.stored.transaction_id
        body = transaction_body(
            self._server_name,
            origin_server_ts=now_ms if transaction is None else transaction.stored.origin_server_ts,
            pdus=pdus,
            edus=edus,
        )
        with TRANSACTION_SECONDS.time():
            answer = await self._client.put(
                destination,
                federation_path("v1", "send", transaction_id),
                body,
                timeout_seconds=TRANSACTION_SECONDS_MAX,
                bytes_max=ANSWER_BYTES_MAX,
            )
        SENT_EDUS.inc(len(edus))
        return answer

    async def _arrived(
        self, destination: ServerName, transaction: Transaction | None, taken: Taken, answer: Any
    ) -> Outcome:
        SENT_TRANSACTIONS.labels("sent").inc()
        self._pending.told(destination, taken)
        is_all = (transaction is None or transaction.is_all) and not self._pending.has(destination)
        if transaction is not None:
            age_ms = self._clock.now_ms() - transaction.stored.origin_server_ts
            DELIVERY_SECONDS.observe(max(age_ms, 0) / 1000)
            _note_results(destination, transaction, answer)
            await self._transactions.complete(transaction)
        caution = self._cautions.get(destination)
        if caution is not None:
            caution.items_max, caution.skipped, caution.pause_ms = caution.items_max * 2, 0, PAUSE_MS_MIN
            if caution.items_max >= ITEMS_MAX:
                self._cautions.discard(destination)
            return Outcome.SENT  # what passes may have been kept back
        return Outcome.SENT_ALL if is_all else Outcome.SENT

    async def _refused(
        self, destination: ServerName, transaction: Transaction | None, taken: Taken, error: RemoteRefused
    ) -> Outcome:
        """Finds out what of a transaction a server does not take, by halves; that alone is given up."""
        caution = self._cautions.get(destination)
        if caution is None:
            caution = _Caution()
            self._cautions.put(destination, caution)
        if error.status not in _CONTENT_STATUSES:
            if error.status != _LIMITED_STATUS:
                await self._leave_alone(destination, caution, error)
            return self._failed(destination)
        SENT_TRANSACTIONS.labels("refused").inc()
        logger.warning("%s has refused a transaction: %s", destination, error.message[:REASON_CHARACTERS_MAX])
        if transaction is None:
            self._pending.told(destination, taken)
            return Outcome.REFUSED
        if not transaction.is_single:
            contents = len(transaction.stored.event_nids) + len(transaction.stored.edu_ids)
            # If something that passes was in it too, the first suspicion falls on that.
            caution.items_max = min(ITEMS_MAX - 1, contents if taken.edus else contents // 2)
            await self._transactions.dissolve(transaction)
            return Outcome.REFUSED
        if taken.edus:
            caution.items_max = 1
            return Outcome.REFUSED
        caution.skipped += 1
        if caution.skipped > SKIPPED_MAX:
            caution.skipped = 0
            await self._leave_alone(destination, caution, error)
            return self._failed(destination)
        SENT_PDUS.labels("given_up").inc(len(transaction.pdus))
        logger.warning("%s is not sent %s", destination, [pdu.event_id for pdu in transaction.pdus] or "an EDU")
        await self._transactions.complete(transaction)
        return Outcome.REFUSED

    async def _leave_alone(self, destination: ServerName, caution: _Caution, error: RemoteRefused) -> None:
        """Begins a pause, for the client takes answers for signs of life, but nothing can be sent there."""
        if error.status >= _BROKEN_STATUS_MIN:
            await self._destinations.failed(destination)
            return
        await self._destinations.paused(destination, retry_after_ms=caution.pause_ms)
        caution.pause_ms = min(4 * caution.pause_ms, PAUSE_MS_MAX)

    def _failed(self, destination: ServerName) -> Outcome:
        SENT_TRANSACTIONS.labels("failed").inc()
        self._pending.give_up(destination)
        return Outcome.FAILED


def _note_results(destination: ServerName, transaction: Transaction, answer: Any) -> None:
    """Counts and logs which events a server has not accepted; they are not sent again."""
    results = answer.get("pdus") if isinstance(answer, Mapping) else None
    refused = {}
    for pdu in transaction.pdus:
        result = results.get(pdu.event_id) if isinstance(results, Mapping) else None
        if isinstance(result, Mapping) and result.get("error"):
            refused[pdu.event_id] = str(result["error"])[:REASON_CHARACTERS_MAX]
    SENT_PDUS.labels("accepted").inc(len(transaction.pdus) - len(refused))
    SENT_PDUS.labels("refused").inc(len(refused))
    for event_id, reason in list(refused.items())[:REFUSALS_LOGGED_MAX]:
        logger.info("%s does not accept %s: %s", destination, event_id, reason)
