"""The only writer of events. Whatever adds events to a room of this server goes through here.

Workers do not lock a room against each other while they make an event. They make it on the head they know, and the
stored function `append_events` refuses it if the room's state has changed meanwhile; then it is made again, and where
that has failed a few times, under a lock. Messages of several workers may stand side by side, for they change no state:
the next event follows both. A change of state follows all that is there, so that it is never in dispute.

https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_letters
from typing import Final, Protocol

from prometheus_client import Counter

from homeserver.core.clock import Clock
from homeserver.core.errors import MatrixError, UnavailableForNow
from homeserver.core.event_auth.auth_events import CREATE, POWER_LEVELS, member_slot
from homeserver.core.hashing import reference_hash
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.room_versions import EventIdFormat, RoomVersion
from homeserver.core.signing import SigningKey
from homeserver.core.unpadded_base64 import encode_base64
from homeserver.services.rooms.batches import make_batch, member_of
from homeserver.services.rooms.drafts import (
    AddedEvents,
    Compose,
    Draft,
    PushedRoom,
    PushEvaluator,
    PushOutcome,
    StateEntry,
)
from homeserver.services.rooms.event_chain import ChainedEvent, EventChain, Place, draft_slots, federation_json
from homeserver.services.rooms.heads import Head, Heads
from homeserver.services.rooms.hidden_events import is_hidden
from homeserver.services.rooms.lanes import Lanes
from homeserver.services.rooms.policy_servers import POLICY, EventPolicy, NoEventPolicy
from storage.append import Appended, Batch, RoomChanged, append_events, create_room
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.errors import UniqueViolation
from storage.events import list_pdus
from storage.room_heads import RoomHead, lock_room

_ATTEMPTS_UNLOCKED: Final = 3
_ATTEMPTS_MAX: Final = 8
_JITTER_MS_MAX: Final = 20
_TOGETHER_MAX: Final = 32

ROOM_CHANGED: Final = Counter("heliograph_room_changed", "Events that had to be made again, for the room had changed.")


class AlongWith(Protocol):
    """What else is written in the transaction that creates a room."""

    async def __call__(self, conn: Connection, room_id: RoomId) -> None:
        """Writes it; an exception gives up the room."""
        ...


@dataclass(eq=False, slots=True)
class _WaitingMessage:
    """A message whose turn comes, and what becomes of it."""

    draft: Draft
    outcome: AddedEvents | Exception | None = None

    def result(self) -> AddedEvents:
        if isinstance(self.outcome, AddedEvents):
            return self.outcome
        assert self.outcome is not None, "Whoever leaves the lane has been served there"
        raise self.outcome


class Appender:
    """Adds events to rooms."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        server_name: ServerName,
        key: SigningKey,
        heads: Heads,
        lanes: Lanes,
        push: PushEvaluator,
        policy: EventPolicy | None = None,
    ) -> None:
        """Takes its means; `policy` asks the policy servers of rooms, where there are other servers at all."""
        self._db = db
        self._bus = bus
        self._clock = clock
        self._server_name = server_name
        self._key = key
        self._heads = heads
        self._lanes = lanes
        self._push = push
        self._policy = policy or NoEventPolicy()
        self._messages: dict[RoomId, list[_WaitingMessage]] = {}

    async def append(self, room_id: RoomId, compose: Compose, *, slots: Collection[StateKey] = ()) -> AddedEvents:
        """Adds what `compose` decides on to a room, all of it or nothing.

        Args:
            room_id: the room.
            compose: makes drafts from the room as it is; asked again when the room has changed.
            slots: the entries of the current state that it asks for. What authorization needs is found without.

        Raises:
            Forbidden: this server is not in the room, or the room's rules do not allow an event.
            RoomChanged: an event that a draft rewrites has changed since it was read.
            UniqueViolation: of `events_transaction`: there is an event of the transaction id already.
            UnavailableForNow: the room is too busy.
            MatrixError: what `compose` raises, or an event is malformed or too large.
        """
        async with self._lanes.enter(room_id):
            added = await self._append_in_lane(room_id, compose, slots)
        if added.position is not None:
            await self._bus.wake(wake_keys(room_id, added.events, self._server_name), added.position)
        return added

    async def look(self, conn: Connection, room_id: RoomId, slots: Collection[StateKey]) -> RoomHead | None:
        """A room as it is now, with entries of its state; None if it is not known.

        What is added to it next is made on what has been read here, unless the room changes meanwhile.
        """
        return await self._heads.look(conn, room_id, {*slots, POLICY})

    async def prepare(self, room_id: RoomId, compose: Compose, *, slots: Collection[StateKey] = ()) -> Pdu | None:
        """Makes the one event that `compose` decides on, but does not add it, for somebody else has to sign it first.

        Takes and raises what `append` does; None if there is nothing to do.
        """
        async with self._db.connection() as conn:
            head = await self._heads.read(conn, room_id, slots)
        drafts = compose(head)
        if not drafts:
            return None
        wanted = _slots_of(drafts, head.room_version)
        async with self._db.connection() as conn:
            head = await self._heads.read(conn, room_id, wanted)
            hashes = await _extremity_hashes(conn, head)
        return self._make(_place(head, wanted, hashes), drafts)[-1].pdu

    async def append_message(self, room_id: RoomId, draft: Draft) -> AddedEvents:
        """Adds a message. Those that wait for the room at the same time are added together.

        It must have a transaction id: if it is added and the answer is lost, it is added again, and that shows then.

        Raises:
            Forbidden: this server is not in the room, or the room's rules do not allow the message.
            UniqueViolation: of `events_transaction`: there is an event of the transaction id already.
            UnavailableForNow: the room is too busy.
            MatrixError: it is malformed or too large.
        """
        own = _WaitingMessage(draft)
        self._messages.setdefault(room_id, []).append(own)
        added: Sequence[AddedEvents] = ()
        try:
            async with self._lanes.enter(room_id):
                if own.outcome is None:
                    waiting = [each for each in self._messages[room_id] if each.outcome is None][:_TOGETHER_MAX]
                    added = await self._append_waiting(room_id, waiting)
        finally:
            self._messages[room_id].remove(own)
            if not self._messages[room_id]:
                del self._messages[room_id]
        if added:
            await self._bus.wake({f"room:{room_id}"}, max(each.position or 0 for each in added))
        return own.result()

    async def _append_waiting(self, room_id: RoomId, waiting: Sequence["_WaitingMessage"]) -> Sequence[AddedEvents]:
        """Adds messages together, or where that fails one by one; returns what was added."""
        drafts = [each.draft for each in waiting]
        slots = {slot for draft in drafts for slot in (CREATE, POWER_LEVELS, member_slot(draft.sender))}
        try:
            added = await self._append_in_lane(room_id, lambda _: drafts, slots)
        except UnavailableForNow as error:
            for each in waiting:
                each.outcome = error
            return ()
        except (MatrixError, UniqueViolation) as error:
            if len(waiting) > 1:
                return [one for each in waiting for one in await self._append_waiting(room_id, [each])]
            waiting[0].outcome = error
            return ()
        for each, pdu, event_nid in zip(waiting, added.events, added.event_nids, strict=True):
            each.outcome = AddedEvents(added.position, [pdu], [event_nid])
        return (added,)

    async def create(
        self,
        room_version: RoomVersion,
        drafts: Sequence[Draft],
        *,
        room_id: RoomId | None = None,
        along_with: AlongWith | None = None,
    ) -> RoomId:
        """Makes a room of its first events, all in one transaction.

        Args:
            room_version: of the room.
            drafts: the events; the first is the create event.
            room_id: its id, from `new_room_id`; None to draw one. From version 12 on it cannot be chosen.
            along_with: writes what belongs to the room in the same transaction, for example its alias.

        Raises:
            Forbidden: the rules of the room version do not allow an event.
            UnavailableForNow: rooms that are the same in all are made faster than they can be told apart.
            MatrixError: what `along_with` raises, or an event is malformed or too large.
        """
        for _ in range(_ATTEMPTS_MAX):
            created = await self._try_to_create(room_version, drafts, room_id=room_id, along_with=along_with)
            if created is not None:
                return created
            # A room of version 12 is named after its create event: the same was made in the same millisecond.
            await self._clock.sleep(0.001 * (1 + secrets.randbelow(10)))
        raise UnavailableForNow("The room has just been created")

    async def _try_to_create(
        self,
        room_version: RoomVersion,
        drafts: Sequence[Draft],
        *,
        room_id: RoomId | None,
        along_with: AlongWith | None,
    ) -> RoomId | None:
        """Makes a room; None, with nothing done, if its id is taken."""
        chain = self.try_create(room_version, drafts, room_id=room_id or self.new_room_id())
        room_id = chain[0].pdu.room_id
        events = [link.pdu for link in chain]
        outcomes = await self._push.evaluate(PushedRoom(None, room_id, room_version, 0, {}), events)
        head = Head(0, room_id, room_version, 0, None, ())
        batch = make_batch(head, chain, outcomes, drafts, server_name=self._server_name)
        # One statement needs no transaction around it.
        async with self._db.connection() if along_with is None else self._db.transaction() as conn:
            created = await create_room(conn, room_id, room_version, batch)
            if created is None:
                return None
            if along_with is not None:
                await along_with(conn, room_id)
        room_nid, appended = created
        self._heads.advance(replace(head, room_nid=room_nid), appended, _new_entries(chain, appended))
        await self._bus.wake(wake_keys(room_id, events, self._server_name), appended.position)
        return room_id

    def try_create(
        self, room_version: RoomVersion, drafts: Sequence[Draft], *, room_id: RoomId
    ) -> Sequence[ChainedEvent]:
        """Makes the first events of a room without writing anything; see `create`."""
        entries: dict[StateKey, StateEntry | None] = dict.fromkeys(_slots_of(drafts, room_version))
        own_id = None if room_version.room_id_is_create_hash else room_id
        return self._make(Place(own_id, room_version, extremities=(), entries=entries, extremity_hashes={}), drafts)

    def new_room_id(self) -> RoomId:
        """An id for a room of a version in which the server chooses it."""
        return RoomId.parse(f"!{''.join(secrets.choice(ascii_letters) for _ in range(18))}:{self._server_name}")

    async def _append_in_lane(self, room_id: RoomId, compose: Compose, slots: Collection[StateKey]) -> AddedEvents:
        slots = {*slots, POLICY}
        head = self._heads.find_cached(room_id, slots)
        is_fresh = head is None
        for attempt in range(_ATTEMPTS_MAX):
            if head is None:
                async with self._db.connection() as conn:
                    head = await self._heads.read(conn, room_id, slots)
            drafts: Sequence[Draft] = ()
            try:
                drafts = compose(head)
                # No policy server is asked under a lock.
                if drafts and (attempt < _ATTEMPTS_UNLOCKED or head.find(POLICY) is not None):
                    return await self._append_drafts(head, drafts)
                if drafts:
                    return await self._append_locked(head, drafts, compose, slots)
                if is_fresh:
                    return AddedEvents()
            except RoomChanged:
                ROOM_CHANGED.inc()
                if is_fresh and any(draft.rewrites for draft in drafts):
                    # The rewritten events may be what has changed; they are the caller's to read again.
                    raise
                await self._clock.sleep(secrets.randbelow(1 + _JITTER_MS_MAX * attempt) / 1000)
            except MatrixError:
                # What is refused in the room as it was remembered may be right in the room as it is.
                if is_fresh:
                    raise
            head, is_fresh = None, True
        raise UnavailableForNow("The room is too busy")

    async def _append_drafts(self, head: Head, drafts: Sequence[Draft]) -> AddedEvents:
        """Makes the events and adds them.

        Raises:
            RoomChanged: the room is not as `head` has it.
        """
        wanted = _slots_of(drafts, head.room_version)
        hashes: Mapping[EventId, str] = {}
        if head.lacks(wanted) or _cites_hashes(head.room_version):
            async with self._db.connection() as conn:
                now = await self._heads.read(conn, head.room_id, wanted)
                if now.state_version != head.state_version:
                    raise RoomChanged
                head, hashes = now, await _extremity_hashes(conn, now)
        chain = await self._signed(head, self._make(_place(head, wanted, hashes), drafts))
        outcomes = await self._evaluate_push(head, wanted, chain)
        batch = make_batch(head, chain, outcomes, drafts, server_name=self._server_name)
        try:
            async with self._db.connection() as conn:
                appended = await append_events(conn, batch)
        except UniqueViolation as error:
            raise _translated(error) from error
        return self._added(head, batch, chain, appended)

    async def _signed(self, head: Head, chain: Sequence[ChainedEvent]) -> Sequence[ChainedEvent]:
        """Events with the signature of the room's policy server, if it has one.

        Raises:
            MatrixError: it does not want one of them, or cannot be asked.
        """
        policy = head.find(POLICY)
        if policy is None:
            return chain
        signed = await self._policy.sign_own(head.room_nid, head.room_id, policy, [link.pdu for link in chain])
        return [
            replace(link, pdu=pdu, new_event=replace(link.new_event, federation_json=federation_json(pdu)))
            for link, pdu in zip(chain, signed, strict=True)
        ]

    async def _append_locked(
        self, head: Head, drafts: Sequence[Draft], compose: Compose, slots: Collection[StateKey]
    ) -> AddedEvents:
        """Adds the events while nobody else can, in a room where others have always been faster.

        What waits for something other than the database is done before, with the room as it was then.

        Raises:
            RoomChanged: the room has changed so that other events are to be added.
        """
        wanted = _slots_of(drafts, head.room_version)
        async with self._db.connection() as conn:
            head = await self._heads.read(conn, head.room_id, wanted)
            hashes = await _extremity_hashes(conn, head)
        outcomes = await self._evaluate_push(head, wanted, self._make(_place(head, wanted, hashes), drafts))
        try:
            async with self._db.transaction() as conn:
                await lock_room(conn, head.room_id)
                head = await self._heads.read(conn, head.room_id, {*wanted, *slots})
                if list(compose(head)) != list(drafts):
                    raise RoomChanged
                chain = self._make(_place(head, wanted, await _extremity_hashes(conn, head)), drafts)
                batch = make_batch(head, chain, outcomes, drafts, server_name=self._server_name)
                appended = await append_events(conn, batch)
        except UniqueViolation as error:
            raise _translated(error) from error
        return self._added(head, batch, chain, appended)

    def _added(self, head: Head, batch: Batch, chain: Sequence[ChainedEvent], appended: Appended) -> AddedEvents:
        """What was added, once it is; the head is kept as it is now."""
        if batch.is_state_forked:
            self._heads.discard(head.room_id)
        else:
            self._heads.advance(head, appended, _new_entries(chain, appended))
        return AddedEvents(appended.position, [link.pdu for link in chain], appended.event_nids)

    async def _evaluate_push(
        self, head: Head, slots: Collection[StateKey], chain: Sequence[ChainedEvent]
    ) -> Sequence[PushOutcome]:
        if all(is_hidden(link.pdu) for link in chain):
            return [PushOutcome() for _ in chain]
        state = {slot: entry.pdu for slot in slots if (entry := head.entries[slot]) is not None}
        room = PushedRoom(head.room_nid, head.room_id, head.room_version, head.state_version, state)
        return await self._push.evaluate(room, [link.pdu for link in chain])

    def _make(self, place: Place, drafts: Sequence[Draft]) -> list[ChainedEvent]:
        chain = EventChain(place, server_name=self._server_name, key=self._key, now_ms=self._clock.now_ms())
        return [chain.add(draft) for draft in drafts]


def _slots_of(drafts: Sequence[Draft], room_version: RoomVersion) -> set[StateKey]:
    """The entries of the state that making the events looks at."""
    return {POLICY} | {slot for draft in drafts for slot in draft_slots(draft, room_version)}


def _place(head: Head, slots: Collection[StateKey], hashes: Mapping[EventId, str]) -> Place:
    entries = {slot: head.entries[slot] for slot in slots}
    return Place(head.room_id, head.room_version, head.extremities, entries, hashes)


def _cites_hashes(room_version: RoomVersion) -> bool:
    """Whether events name the hashes of others beside their ids (versions 1 and 2)."""
    return room_version.event_id_format is EventIdFormat.SERVER_ASSIGNED


async def _extremity_hashes(conn: Connection, head: Head) -> Mapping[EventId, str]:
    """The reference hashes of the extremities, where events name them."""
    if not _cites_hashes(head.room_version):
        return {}
    pdus = await list_pdus(conn, [extremity.event_nid for extremity in head.extremities])
    return {pdu.event_id: encode_base64(reference_hash(pdu.json, pdu.room_version)) for pdu in pdus.values()}


def _translated(error: UniqueViolation) -> Exception:
    """What it means that an event is there already."""
    if error.constraint == "events_event_id_key":
        # Another worker has made the very same event in the same millisecond.
        return RoomChanged()
    return error


def _new_entries(chain: Sequence[ChainedEvent], appended: Appended) -> dict[StateKey, StateEntry | None]:
    """The entries of the current state that were added."""
    return {
        link.pdu.state_slot: StateEntry(event_nid, link.pdu)
        for link, event_nid in zip(chain, appended.event_nids, strict=True)
        if link.pdu.state_slot is not None
    }


def wake_keys(room_id: RoomId, events: Sequence[Pdu], server_name: ServerName) -> set[str]:
    """Who is to be woken for events: the room, its state, and local users whose membership they change."""
    keys = {f"room:{room_id}"}
    if any(pdu.state_key is not None for pdu in events):
        keys.add(f"state:{room_id}")
    for pdu in events:
        member = member_of(pdu)
        if member is not None and member.server_name == server_name:
            keys.add(f"user:{member}")
    return keys
