"""Taking events of other servers in the order of the graph: in lines as far as that goes, else one by one.

An event that fails does not keep the others from being taken.
"""

import logging
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from homeserver.core.errors import MatrixError, RemoteUnavailable, UnavailableForNow
from homeserver.core.event_auth.auth_events import CREATE, state_from_auth_events
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from homeserver.services.rooms.append_line import LineAppender, LineEvent
from homeserver.services.rooms.hidden_events import is_hidden
from homeserver.services.rooms.missing_events import MissingEvents, in_graph_order
from homeserver.services.rooms.outliers import auth_event_ids
from homeserver.services.rooms.placing import EventPlacing, Placed, Reception
from homeserver.services.rooms.policy_servers import POLICY, PolicyReview, PolicyServer
from homeserver.services.rooms.remote_redactions import REDACTION
from homeserver.services.rooms.resolution import StateUnknown
from homeserver.services.rooms.thread_roots import find_thread_roots
from storage.database import Database
from storage.errors import DatabaseUnavailable, Serialization
from storage.outliers import KnownEvent, list_known_events

logger = logging.getLogger(__name__)

_LINE_MAX: Final = 50
_ATTEMPTS_MAX: Final = 3


class Rejection(str):
    """Why an event has failed authorization. It is taken nevertheless: stored, and never to be judged again."""

    __slots__ = ()


class EventTaking:
    """Takes events that have passed the gate into the graph of a room, with what they follow."""

    def __init__(
        self,
        *,
        db: Database,
        missing: MissingEvents,
        placing: EventPlacing,
        line: LineAppender,
        policy: PolicyReview,
    ) -> None:
        self._db = db
        self._missing = missing
        self._placing = placing
        self._line = line
        self._policy = policy

    async def take(self, reception: Reception, events: Sequence[Pdu], outcome: dict[EventId, str | None]) -> bool:
        """Takes events, and those between them and what is known.

        Args:
            reception: what they belong to.
            events: the events.
            outcome: of each event, as soon as there is one: what is wrong with it (a `Rejection`, if it was taken), or
                None.

        Returns:
            Whether the graph of the room may have got more ends by it.

        Raises:
            DatabaseUnavailable: not all could be done.
        """
        batch = {pdu.event_id: pdu for pdu in events}
        reception.learn_all(await self._missing.add_to(reception.inquiry, batch))
        return await self._take_batch(reception, batch, outcome)

    async def take_last(self, reception: Reception, pdu: Pdu, *, relayed: bool) -> Placed:
        """Takes an event, if it is accepted, and before it what is between it and what is known.

        Raises:
            Forbidden: the event would be rejected or soft-failed; it is not stored.
            MatrixError, StateUnknown: as `EventPlacing.place`.
        """
        batch = {pdu.event_id: pdu}
        reception.learn_all(await self._missing.add_to(reception.inquiry, batch))
        del batch[pdu.event_id]
        await self._take_batch(reception, batch, {})
        return await self._placing.place(reception, pdu, relayed=relayed, only_accepted=True)

    async def _take_batch(
        self, reception: Reception, batch: dict[EventId, Pdu], outcome: dict[EventId, str | None]
    ) -> bool:
        """Takes events; returns whether any did not simply go on where the room ends."""
        ordered, circular = in_graph_order(batch)
        outcome.update((pdu.event_id, "Events follow each other in a circle") for pdu in circular)
        may_have_forked = False
        waiting: deque[Pdu] = deque()
        for pdu in ordered:
            stored = reception.known.get(pdu.event_id)
            if stored is not None and stored.in_graph and stored.room_nid == reception.room.room_nid:
                outcome[pdu.event_id] = _rejection(stored.rejected)
            else:
                waiting.append(pdu)
        await self._read_cited(reception, waiting)
        while waiting:
            line = _line(waiting, reception)
            added = await self._take_line(reception, line) if line else 0
            for _ in range(added):
                outcome[waiting.popleft().event_id] = None
            if waiting and added < max(len(line), 1):
                pdu = waiting.popleft()
                outcome[pdu.event_id] = await self._take_one(reception, pdu)
                may_have_forked = True
        return may_have_forked

    async def _read_cited(self, reception: Reception, events: Collection[Pdu]) -> None:
        """Reads at once what events refer to, as far as it is stored."""
        cited = {event_id for pdu in events for event_id in (*auth_event_ids(pdu), *pdu.prev_events)}
        async with self._db.connection() as conn:
            await reception.memory.events_by_id(conn, cited & reception.known.keys())

    async def _take_one(self, reception: Reception, pdu: Pdu) -> str | None:
        """Takes one event; returns what is wrong with it."""
        try:
            placed = await self._place(reception, pdu)
        except DatabaseUnavailable:
            raise
        except (RemoteUnavailable, UnavailableForNow) as error:
            reception.postponed[pdu.event_id] = pdu
            return error.message
        except MatrixError as error:
            return error.message
        except StateUnknown as error:
            return str(error)
        except Exception:
            # A mistake of ours: the events after this one, and whoever sends them, must not suffer from it.
            logger.exception("The event %s could not be taken", pdu.event_id)
            return "The event could not be processed"
        if not placed.added.event_nids:
            async with self._db.connection() as conn:
                reception.learn(await list_known_events(conn, [pdu.event_id]))
        if pdu.state_slot == POLICY:
            async with self._db.connection() as conn:
                reception.policy = await self._policy.current(conn, reception.room.room_nid)
        return _rejection(placed.rejected)

    async def _place(self, reception: Reception, pdu: Pdu) -> Placed:
        """Places an event, again if the transaction has met another one."""
        for _ in range(_ATTEMPTS_MAX - 1):
            try:
                return await self._placing.place(reception, pdu)
            except Serialization:
                continue
        return await self._placing.place(reception, pdu)

    async def _take_line(self, reception: Reception, line: Sequence[Pdu]) -> int:
        """Takes events that may simply go on where the room ends; returns how many of them did."""
        room, pool = reception.room, reception.pool
        links = await self._links(reception, line)
        if reception.policy is not None:
            links = await self._signed(reception.policy, links)
        added: Sequence[int] = ()
        if links:
            try:
                added = await self._line.append(
                    room.room_id, links, members_lacking=reception.members_lacking, wakes=reception.wakes
                )
            except DatabaseUnavailable:
                raise
            except (MatrixError, Serialization):
                added = ()
        for pdu, event_nid in zip(line, added, strict=False):
            known = KnownEvent(event_nid, pdu.event_id, room.room_nid, True, None, False)
            reception.learn({pdu.event_id: known})
            reception.ends = frozenset((pdu.event_id,))
        for pdu in line[len(added) :]:
            pool.pdus.pop(pdu.event_id, None)  # what becomes of it is not known yet
        return len(added)

    async def _signed(self, policy: PolicyServer, links: Sequence[LineEvent]) -> list[LineEvent]:
        """The first events of a line that the room's policy server wants, with its signature."""
        signed: list[LineEvent] = []
        for link, pdu in zip(links, await self._policy.review(policy, [each.pdu for each in links]), strict=True):
            if pdu is None:
                break
            signed.append(replace(link, pdu=pdu))
        return signed

    async def _links(self, reception: Reception, line: Sequence[Pdu]) -> list[LineEvent]:
        """The first events of a line that their own auth events allow."""
        pool, room = reception.pool, reception.room
        lacking = {event_id for pdu in line for event_id in auth_event_ids(pdu)} - pool.pdus.keys()
        async with self._db.connection() as conn:
            cited = await reception.memory.events_by_id(conn, lacking & reception.known.keys())
            roots = await find_thread_roots(conn, room.room_nid, line)
        for event in cited:
            pool.know(event.pdu, rejected=event.rejected)
        nids = {event_id: event.event_nid for event_id, event in reception.known.items()}
        links: list[LineEvent] = []
        for number, pdu in enumerate(line, start=1):
            if pool.judge(pdu) is not None:
                break
            links.append(
                LineEvent(
                    pdu=pdu,
                    auth_state=state_from_auth_events(pdu, pool.pdus),
                    auth_nids=[nids[event_id] for event_id in pdu.auth_events],
                    thread_root=roots.get(pdu.event_id),
                )
            )
            pool.know(pdu, rejected=None)
            nids[pdu.event_id] = -number
        return links


def _rejection(reason: str | None) -> Rejection | None:
    return None if reason is None else Rejection(reason)


def _line(waiting: Collection[Pdu], reception: Reception) -> list[Pdu]:
    """The first events of some that might go on where the room ends, each the only successor of the one before."""
    known, ends = reception.known, reception.ends
    line: list[Pdu] = []
    here: set[EventId] = set()
    for pdu in islice(waiting, _LINE_MAX):
        if line and pdu.prev_events != (line[-1].event_id,):
            break
        if not line and not all(event_id in known and known[event_id].in_graph for event_id in pdu.prev_events):
            break
        if not line and ends is not None and ends != set(pdu.prev_events):
            break
        if pdu.event_id in known or pdu.type in (REDACTION, CREATE[0]) or is_hidden(pdu) or pdu.state_slot == POLICY:
            break
        if not all(event_id in known or event_id in here for event_id in auth_event_ids(pdu)):
            break
        line.append(pdu)
        here.add(pdu.event_id)
    return line
