"""Placing one event of another server in the graph: its auth events, the state before it, the checks that follow.

This is the way for events that do not simply go on where the room ends (`append_line.py`), and it takes every event.

https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.errors import BadJson, Forbidden, RemoteRefused, UnavailableForNow
from homeserver.core.event_auth.auth_events import authorizing_slots, state_from_auth_events
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.services.rooms.append_line import believe_members
from homeserver.services.rooms.append_remote import RemoteAppender
from homeserver.services.rooms.drafts import AddedEvents
from homeserver.services.rooms.event_memory import EventMemory
from homeserver.services.rooms.gathered_wakes import GatheredWakes
from homeserver.services.rooms.inquiry import Inquiry
from homeserver.services.rooms.outliers import AuthPool, Outliers, auth_event_ids
from homeserver.services.rooms.policy_servers import PolicyReview, PolicyServer
from homeserver.services.rooms.remote_event import RemoteEvent
from homeserver.services.rooms.remote_redactions import REDACTION, RedactionEffect, effect_of
from homeserver.services.rooms.resolution import ResolvedState, StateResolver
from homeserver.services.rooms.state_fetch import StateFetch
from homeserver.services.rooms.thread_roots import find_thread_roots
from storage.append import RoomChanged
from storage.database import Connection, Database
from storage.errors import UniqueViolation
from storage.missing_events import Arrival, find_arrival
from storage.outliers import KnownEvent, list_known_events
from storage.rooms import RoomRow

_ATTEMPTS_MAX: Final = 5


@dataclass(slots=True, kw_only=True)
class Reception:
    """One server's events of one room, while they are taken in.

    Attributes:
        inquiry: how servers are asked for what is missing.
        postponed: the events that could not be taken because nobody could be asked.
        members_lacking: not all members are known here, so those that events cite are believed.
        policy: the policy server that the room uses.
        pool: the auth events that have been loaded.
        memory: the events that have been read.
        known: what is known of events that this is about; an event that is not in the graph may have come into it.
        wakes: takes the wakes that are due; None: they are given out at once.
        ends: what nothing follows in the room, as it was when an event was added last; None if that is not known.
    """

    inquiry: Inquiry
    postponed: dict[EventId, Pdu] = field(default_factory=dict)
    members_lacking: bool = False
    policy: PolicyServer | None = None
    pool: AuthPool = field(default_factory=AuthPool)
    memory: EventMemory = field(default_factory=EventMemory)
    known: dict[EventId, KnownEvent] = field(default_factory=dict)
    wakes: GatheredWakes | None = None
    ends: frozenset[EventId] | None = None
    _requests_left: int | None = None

    @property
    def room(self) -> RoomRow:
        """The room."""
        return self.inquiry.room

    def learn(self, known: Mapping[EventId, KnownEvent]) -> None:
        """Keeps what is known of events."""
        self.known.update(known)
        for event_id, event in known.items():
            self.memory.number(event_id, event.event_nid)

    def learn_all(self, known: Mapping[EventId, KnownEvent]) -> None:
        """Keeps what is known of all events that this is about: of the others, nothing is stored."""
        self.learn(known)
        self._requests_left = self.inquiry.requests_left

    def may_know_more(self, event_id: EventId) -> bool:
        """Whether an event may be stored otherwise than is known: as something that was asked for since."""
        known = self.known.get(event_id)
        return self._requests_left != self.inquiry.requests_left or (known is not None and not known.in_graph)


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of an event.

    Attributes:
        rejected: why it is rejected, for good; None if it is not.
        soft_failed: it is not shown to clients.
        added: where it was added; nothing if it had been before.
    """

    rejected: str | None = None
    soft_failed: bool = False
    added: AddedEvents = field(default_factory=AddedEvents)


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What the state before an event and the current one say about it, in the room as it was found."""

    found: Arrival
    rejected: str | None
    not_now: str | None
    effect: RedactionEffect
    thread_root: EventId | None


class EventPlacing:
    """Judges events where they stand, and adds them."""

    def __init__(
        self,
        *,
        db: Database,
        outliers: Outliers,
        resolver: StateResolver,
        state_fetch: StateFetch,
        policy: PolicyReview,
        appender: RemoteAppender,
    ) -> None:
        self._db = db
        self._outliers = outliers
        self._resolver = resolver
        self._state_fetch = state_fetch
        self._policy = policy
        self._appender = appender

    async def place(
        self, reception: Reception, pdu: Pdu, *, relayed: bool = False, only_accepted: bool = False
    ) -> Placed:
        """Takes an event that has passed the gate into the graph.

        Args:
            reception: what it belongs to.
            pdu: the event; it may be stored already.
            relayed: this server passes it on to the servers in the room.
            only_accepted: it is not stored if it would be rejected or soft-failed.

        Raises:
            Forbidden: with `only_accepted`, it would be.
            BadJson: it follows nothing, or something in another room, or has the id of another room's event.
            RemoteUnavailable, RemoteRefused, UnavailableForNow: what it refers to cannot be had.
            StateUnknown: an event that decides about conflicts is not here.
        """
        room = reception.room
        if not pdu.prev_events:
            raise BadJson("The event follows no other")
        known = await self._known(reception, pdu)
        own = known.get(pdu.event_id)
        if any(event.room_nid != room.room_nid for event in known.values()):
            # In versions 1 and 2 also the event itself, whose id it has chosen.
            raise BadJson("The event follows one of another room, or has its id")
        if own is not None and own.in_graph:
            return _as_stored(own, only_accepted=only_accepted)
        await self.load_auth_events(reception, pdu)
        rejected = own.rejected if own is not None and own.rejected is not None else reception.pool.judge(pdu)
        if rejected is not None and only_accepted:
            raise Forbidden(rejected)
        in_graph = {event_id: event for event_id, event in known.items() if event.in_graph}
        missing = [event_id for event_id in dict.fromkeys(pdu.prev_events) if event_id not in in_graph]
        if rejected is not None and missing:
            # Nobody need be asked for the state before it.
            await self._outliers.store(room, [pdu])
            return Placed(rejected=rejected)
        before = await self._state_before(reception, in_graph, pdu, missing)
        return await self._add(
            reception, pdu, before, missing, rejected=rejected, relayed=relayed, only_accepted=only_accepted
        )

    async def _known(self, reception: Reception, pdu: Pdu) -> Mapping[EventId, KnownEvent]:
        """What is known of an event and of those before it."""
        known = reception.known
        unsure = {event_id for event_id in pdu.prev_events if event_id not in known or not known[event_id].in_graph}
        if reception.may_know_more(pdu.event_id):
            unsure.add(pdu.event_id)
        if unsure:
            async with self._db.connection() as conn:
                reception.learn(await list_known_events(conn, unsure))
        return {event_id: known[event_id] for event_id in (pdu.event_id, *pdu.prev_events) if event_id in known}

    async def load_auth_events(self, reception: Reception, *events: Pdu) -> None:
        """Loads the auth events of events into the pool, and asks for those that are not here.

        A server that does not give auth chains may yet give single events.

        Raises:
            RemoteUnavailable, RemoteRefused, UnavailableForNow: they cannot be had.
        """
        refusal: RemoteRefused | None = None
        lacking = await self._load(reception, events)
        for pdu in events:
            if not lacking.isdisjoint(auth_event_ids(pdu)):
                try:
                    chain = await reception.inquiry.auth_chain(pdu.event_id)
                except RemoteRefused as error:
                    refusal = error
                    break
                await self._outliers.store(reception.room, chain)
                lacking = await self._load(reception, events)
        if lacking:
            await self._outliers.store(reception.room, await reception.inquiry.events(lacking))
            if await self._load(reception, events):
                raise refusal or UnavailableForNow("An auth event of the event cannot be had")

    async def _load(self, reception: Reception, events: tuple[Pdu, ...]) -> set[EventId]:
        """Loads what is stored; returns what is not."""
        pool = reception.pool
        wanted = {event_id for pdu in events for event_id in auth_event_ids(pdu)} - pool.pdus.keys()
        if not wanted:
            return set()
        async with self._db.connection() as conn:
            found = await reception.memory.events_by_id(conn, wanted)
        for event in found:
            pool.know(event.pdu, rejected=event.rejected)
        return wanted - {event.pdu.event_id for event in found}

    async def _state_before(
        self, reception: Reception, in_graph: Mapping[EventId, KnownEvent], pdu: Pdu, missing: list[EventId]
    ) -> ResolvedState:
        known_nids = [
            in_graph[event_id].event_nid for event_id in dict.fromkeys(pdu.prev_events) if event_id in in_graph
        ]
        if missing:
            return await self._state_fetch.state_before(reception.inquiry, known_nids=known_nids, missing=missing)
        async with self._db.connection() as conn:
            resolver = self._resolver_for(reception)
            return await resolver.state_before(conn, reception.room.room_version, known_nids)

    def _resolver_for(self, reception: Reception) -> StateResolver:
        """States change under one's hands while members are lacking; else what has been read stays as it is."""
        return self._resolver.using(EventMemory() if reception.members_lacking else reception.memory)

    async def _add(
        self,
        reception: Reception,
        pdu: Pdu,
        before: ResolvedState,
        missing: list[EventId],
        *,
        rejected: str | None,
        relayed: bool,
        only_accepted: bool,
    ) -> Placed:
        resolver = self._resolver_for(reception)
        for _ in range(_ATTEMPTS_MAX):
            async with self._db.connection() as conn:
                judgement = await self._judge(conn, reception, resolver, pdu, before, rejected)
            signed, refused = await self._reviewed(reception, pdu, judgement)
            refusal = judgement.rejected or judgement.not_now or refused
            if refusal is not None and only_accepted:
                raise Forbidden(refusal)
            soft_failed = judgement.rejected is None and (refusal is not None or _waits(pdu, judgement))
            event = RemoteEvent(
                pdu=signed,
                state_before=before,
                rejected=judgement.rejected,
                soft_failed=soft_failed,
                thread_root=judgement.thread_root,
                rewrites=() if refusal is not None else judgement.effect.rewrites,
                missing_event_ids=missing,
                awaited_target=None if refusal is not None else judgement.effect.awaited_target,
                relayed=relayed,
            )
            try:
                added = await self._appender.append(
                    event, found=judgement.found, resolver=resolver, wakes=reception.wakes
                )
            except RoomChanged:
                async with self._db.connection() as conn:
                    own = (await list_known_events(conn, [pdu.event_id])).get(pdu.event_id)
                if own is not None and own.rejected is not None:
                    rejected = own.rejected
                continue
            except UniqueViolation:
                return Placed()  # another worker has received it at the same time
            self._note(reception, event, added)
            return Placed(judgement.rejected, soft_failed, added)
        raise UnavailableForNow("The room is too busy")

    def _note(self, reception: Reception, event: RemoteEvent, added: AddedEvents) -> None:
        """Keeps in memory that an event was added."""
        event_id, event_nid = event.pdu.event_id, added.event_nids[0]
        room_nid = reception.room.room_nid
        reception.learn({event_id: KnownEvent(event_nid, event_id, room_nid, True, event.rejected, event.soft_failed)})
        reception.ends = added.ends
        for rewrite in event.rewrites:
            reception.pool.forget(rewrite.pdu.event_id)

    async def _judge(
        self,
        conn: Connection,
        reception: Reception,
        resolver: StateResolver,
        pdu: Pdu,
        before: ResolvedState,
        rejected: str | None,
    ) -> _Judgement:
        """Judges an event by the state before it and by the current state of the room."""
        found = await find_arrival(conn, reception.room.room_id, pdu.event_id)
        room = found.room
        if rejected is not None:
            return _Judgement(found, rejected, None, RedactionEffect(takes_effect=False), None)
        slots = authorizing_slots(pdu)
        state = {slot: entry for slot, (_, entry) in (await resolver.entries(conn, before, slots)).items()}
        reason = self._fault(reception, pdu, state)
        if reason is not None:
            return _Judgement(found, reason, None, RedactionEffect(takes_effect=False), None)
        not_now = None
        if room.state_id is not None and (room.state_id != before.base_state_id or before.changes):
            entries = await resolver.entries(conn, ResolvedState(room.state_id, {}), slots)
            not_now = self._fault(reception, pdu, {slot: entry for slot, (_, entry) in entries.items()})
        effect = RedactionEffect(takes_effect=True)
        if pdu.type == REDACTION and not_now is None:
            effect = await effect_of(conn, room, pdu, state)
        roots = await find_thread_roots(conn, room.room_nid, [pdu])
        return _Judgement(found, None, not_now, effect, roots.get(pdu.event_id))

    def _fault(self, reception: Reception, pdu: Pdu, state: Mapping[StateKey, Pdu]) -> str | None:
        if reception.members_lacking:
            cited = state_from_auth_events(pdu, reception.pool.pdus)
            state = believe_members(state, cited, authorizing_slots(pdu))
        try:
            check_auth(pdu, state)
        except Forbidden as error:
            return error.message
        return None

    async def _reviewed(self, reception: Reception, pdu: Pdu, judgement: _Judgement) -> tuple[Pdu, str | None]:
        """An event with the signature of the room's policy server, or why it is not to be shown."""
        if reception.policy is None or judgement.rejected is not None or judgement.not_now is not None:
            return pdu, None
        signed = (await self._policy.review(reception.policy, [pdu]))[0]
        return (pdu, "The room's policy server does not want the event") if signed is None else (signed, None)


def _waits(pdu: Pdu, judgement: _Judgement) -> bool:
    """Whether an event is a redaction that has no effect, or none yet, so that clients are not to see it.

    In room versions in which the authorization rules judge redactions, those that they allow are shown as they come.
    """
    is_judged_later = pdu.type == REDACTION and pdu.room_version.redaction_checked_on_arrival
    return is_judged_later and not judgement.effect.takes_effect


def _as_stored(known: KnownEvent, *, only_accepted: bool) -> Placed:
    if only_accepted and known.rejected is not None:
        raise Forbidden(known.rejected)
    return Placed(known.rejected, known.soft_failed)
