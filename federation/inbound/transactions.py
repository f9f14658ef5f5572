"""Transactions: events and EDUs that other servers push.

A transaction is taken once, however often it is sent, and is answered when all that is acknowledged is committed. Its
rooms are independent of each other, and what is wrong with one event hurts no other.

https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import orjson
from prometheus_client import Counter

from federation.inbound.origin import origin_of
from homeserver.core.edu import Edu, parse_edu
from homeserver.core.errors import BadJson, Forbidden, InvalidParam, TooLarge
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.text import is_storable
from homeserver.services.remote import EventJson
from homeserver.services.rooms.incoming import IncomingEvents
from homeserver.services.rooms.taking import Rejection
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section
from storage.database import Database
from storage.errors import DatabaseUnavailable
from storage.received_transactions import find_response, insert_response

logger = logging.getLogger(__name__)

PDUS_MAX: Final = 50
EDUS_MAX: Final = 100
BODY_BYTES_MAX: Final = 16 * 1024 * 1024

_TRANSACTION_ID_BYTES_MAX: Final = 255
_ROOMS_SIDE_BY_SIDE: Final = 8

RECEIVED_PDUS: Final = Counter(
    "heliograph_federation_received_pdus", "Events that other servers pushed, by what became of them.", ["outcome"]
)

TRANSACTION: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "origin": {"type": "string"},
        "origin_server_ts": {"type": "integer"},
        "pdus": {"type": "array"},
        "edus": {"type": "array"},
    },
}


class EduTaker(Protocol):
    """Takes the EDUs of a transaction (`edus.EduReceiver`)."""

    async def receive(self, origin: ServerName, edus: Sequence[Edu]) -> None:
        """Takes EDUs in their order; it raises nothing."""
        ...


class Transactions:
    """Takes transactions."""

    def __init__(self, *, db: Database, incoming: IncomingEvents, edus: EduTaker) -> None:
        self._db = db
        self._incoming = incoming
        self._edus = edus
        self._running: dict[tuple[ServerName, str], asyncio.Event] = {}

    async def receive(
        self, origin: ServerName, transaction_id: str, *, pdus: Sequence[EventJson], edus: Sequence[Any]
    ) -> bytes:
        """Takes a transaction, unless that has been done; returns the JSON of the answer.

        Raises:
            DatabaseUnavailable: not all was taken; it may be sent again.
        """
        key = (origin, transaction_id)
        while key in self._running:
            await self._running[key].wait()
        done = self._running[key] = asyncio.Event()
        try:
            async with self._db.connection() as conn:
                response = await find_response(conn, origin, transaction_id)
            if response is None:
                async with asyncio.TaskGroup() as tasks:
                    outcomes = tasks.create_task(self._take_events(origin, pdus))
                    tasks.create_task(self._edus.receive(origin, _parse_edus(origin, edus)))
                response = _answer(outcomes.result())
                async with self._db.connection() as conn:
                    await insert_response(conn, origin, transaction_id, response)
            return response.encode()
        except ExceptionGroup as group:
            if group.subgroup(DatabaseUnavailable) is None:
                raise
            raise DatabaseUnavailable from group
        finally:
            del self._running[key]
            done.set()

    async def _take_events(self, origin: ServerName, pdus: Sequence[EventJson]) -> Mapping[EventId, str | None]:
        """Takes events, the rooms side by side; returns what is wrong with each that can be named."""
        outcome: dict[EventId, str | None] = {}
        places = asyncio.Semaphore(_ROOMS_SIDE_BY_SIDE)

        async def take(room_id: RoomId, events: Sequence[EventJson]) -> None:
            async with places:
                try:
                    outcome.update(await self._incoming.receive(origin, room_id, events))
                except DatabaseUnavailable:
                    raise
                except Exception:
                    # A mistake of ours must not keep the other server from sending anything else.
                    logger.exception("Events of %s in %s could not be taken", origin, room_id)

        async with asyncio.TaskGroup() as tasks:
            for room_id, events in _by_room(pdus).items():
                tasks.create_task(take(room_id, events))
        for error in outcome.values():
            RECEIVED_PDUS.labels(_outcome_name(error)).inc()
        return outcome


def section(transactions: Transactions) -> Section:
    """The endpoint over its use case."""
    s = Section("Transactions")

    @s.endpoint(
        "PUT",
        "/_matrix/federation/v1/send/{transaction_id}",
        access=Access.SERVER,
        body=TRANSACTION,
        body_bytes_max=BODY_BYTES_MAX,
        rate_limit=RateLimit.FEDERATION,
    )
    async def send_transaction(request: Request) -> Response:
        """Takes events and EDUs; tells for each event whether it was taken."""
        origin, transaction_id = origin_of(request), request.path["transaction_id"]
        pdus, edus = request.body.get("pdus", []), request.body.get("edus", [])
        if len(pdus) > PDUS_MAX or len(edus) > EDUS_MAX:
            raise BadJson(f"A transaction has at most {PDUS_MAX} PDUs and {EDUS_MAX} EDUs")
        if len(transaction_id.encode()) > _TRANSACTION_ID_BYTES_MAX or not is_storable(transaction_id):
            raise InvalidParam("The transaction id is too long, or holds a character that is not allowed")
        if request.body.get("origin", origin) != origin:
            raise Forbidden("The transaction says that it is of another server")
        body = await transactions.receive(origin, transaction_id, pdus=pdus, edus=edus)
        return Response(body, headers={"Content-Type": "application/json"})

    return s


def _by_room(pdus: Sequence[EventJson]) -> Mapping[RoomId, Sequence[EventJson]]:
    """Events by the room that they name; those that name none are passed over, for they have no id either."""
    rooms: dict[RoomId, list[EventJson]] = {}
    for pdu in pdus:
        try:
            room_id = RoomId.parse(pdu.get("room_id") if isinstance(pdu, dict) else None)
        except InvalidParam:
            continue
        rooms.setdefault(room_id, []).append(pdu)
    return rooms


def _parse_edus(origin: ServerName, edus: Sequence[Any]) -> Sequence[Edu]:
    """The EDUs that are well-formed."""
    parsed = []
    for edu in edus:
        try:
            parsed.append(parse_edu(edu, origin=origin))
        except (BadJson, TooLarge):
            continue
    return parsed


def _outcome_name(error: str | None) -> str:
    if error is None:
        return "taken"
    return "rejected" if isinstance(error, Rejection) else "refused"


def _answer(outcome: Mapping[EventId, str | None]) -> str:
    """The answer to a transaction. An event that is rejected has been taken: there is nothing more to do about it."""
    pdus = {
        event_id: {} if error is None or isinstance(error, Rejection) else {"error": error}
        for event_id, error in outcome.items()
    }
    return orjson.dumps({"pdus": pdus}, option=orjson.OPT_NON_STR_KEYS).decode()
