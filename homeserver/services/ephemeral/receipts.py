"""Receipts: up to where users have read, publicly or for themselves; and the fully read marker, which clients keep too.

A receipt only goes forwards in the order of the room's events. Putting one where it stands already changes nothing.

https://spec.matrix.org/v1.19/client-server-api/#receipts
https://spec.matrix.org/v1.19/client-server-api/#read-and-unread-markers
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson

from homeserver.core.clock import Clock
from homeserver.core.errors import InvalidParam, NotFound
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.services.ephemeral.joined_room import require_joined
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.ephemeral.told_receipts import parse_told_receipts
from homeserver.services.ephemeral.wakes import wakes_of
from storage import account_data, receipts
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.receipts import ReceiptRow, ReceiptTarget

READ: Final = "m.read"
READ_PRIVATE: Final = "m.read.private"
FULLY_READ: Final = "m.fully_read"
MAIN: Final = "main"


class Receipts:
    """The receipts and fully read markers of users."""

    def __init__(self, *, db: Database, bus: Bus, clock: Clock, presence: Presence) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._presence = presence

    async def put(
        self, requester: Requester, room_id: RoomId, event_id: EventId, *, receipt_type: str, thread_id: str | None
    ) -> None:
        """Puts the requester's receipt, or its fully read marker, on an event.

        Args:
            receipt_type: m.read, m.read.private or m.fully_read.
            thread_id: `main` or a thread's root; None for a receipt that regards no threads.

        Raises:
            InvalidParam: there is no such type, or the thread does not fit it or the event.
            Forbidden: the requester is not in the room.
            NotFound: the event is not known in this room.
        """
        if receipt_type not in (READ, READ_PRIVATE, FULLY_READ):
            raise InvalidParam("There are only receipts of type m.read, m.read.private and m.fully_read")
        if thread_id is not None:
            if receipt_type == FULLY_READ:
                raise InvalidParam("m.fully_read regards no threads")
            if thread_id != MAIN:
                thread_id = EventId.parse(thread_id)
        await self._put(requester, room_id, {receipt_type: event_id}, thread_id=thread_id)

    async def put_markers(self, requester: Requester, room_id: RoomId, markers: Mapping[str, EventId]) -> None:
        """Puts several of the requester's receipts and markers, by type, none of which regards threads.

        Raises:
            Forbidden: the requester is not in the room.
            NotFound: one of the events is not known in this room; then nothing is changed.
        """
        await self._put(requester, room_id, markers, thread_id=None)

    async def _put(
        self, requester: Requester, room_id: RoomId, markers: Mapping[str, EventId], *, thread_id: str | None
    ) -> None:
        user_id = requester.user_id
        positions: dict[str, int] = {}
        async with self._db.transaction() as conn:
            room_nid = await require_joined(conn, room_id, user_id)
            targets = await _targets(conn, room_nid, set(markers.values()))
            rows = [
                self._row(user_id, receipt_type, targets[event_id], thread_id)
                for receipt_type, event_id in markers.items()
                if receipt_type != FULLY_READ
            ]
            for written in await receipts.upsert_receipts(conn, rows):
                keys = wakes_of(room_id) if written.receipt_type == READ else (f"user:{user_id}",)
                positions |= dict.fromkeys(keys, written.position)
            if FULLY_READ in markers:
                position = await _put_fully_read(conn, user_id, room_id, targets[markers[FULLY_READ]])
                if position is not None:
                    positions[f"user:{user_id}"] = position
        self._presence.note_activity(user_id)
        if positions:
            await self._bus.wake(positions.keys(), max(positions.values()))

    def _row(self, user_id: UserId, receipt_type: str, target: ReceiptTarget, thread_id: str | None) -> ReceiptRow:
        if thread_id is not None and not _belongs(target, thread_id):
            raise InvalidParam("The event does not belong to the thread")
        return ReceiptRow(
            room_nid=target.room_nid,
            user_id=user_id,
            receipt_type=receipt_type,
            thread_id=thread_id,
            event_id=target.event_id,
            event_nid=target.event_nid,
            topological=target.topological,
            receipt_ts=self._clock.now_ms(),
        )

    async def receive(self, origin: ServerName, content: Mapping[str, Any]) -> None:
        """Takes the receipts of another server's users (EDU `m.receipt`).

        Entries that are malformed, of users of yet other servers, or of users who are not in the room are passed over.
        """
        told = parse_told_receipts(content, origin=origin, now_ms=self._clock.now_ms())
        if not told:
            return
        async with self._db.connection() as conn:
            joined = await receipts.list_joined_pairs(conn, {(one.room_id, one.user_id) for one in told})
            targets = await receipts.list_targets(conn, {event_id for one in told for event_id in one.event_ids})
            rows = {}
            rooms = {}
            for one in told:
                room_nid = joined.get((one.room_id, one.user_id))
                if room_nid is None:
                    continue
                rooms[room_nid] = one.room_id
                known = [targets[event_id] for event_id in one.event_ids if event_id in targets]
                if any(target.room_nid != room_nid for target in known):
                    continue
                target = max(known, key=lambda target: target.order, default=None)
                rows[room_nid, one.user_id, one.thread_id] = ReceiptRow(
                    room_nid=room_nid,
                    user_id=one.user_id,
                    receipt_type=READ,
                    thread_id=one.thread_id,
                    event_id=one.event_ids[-1] if target is None else target.event_id,
                    event_nid=None if target is None else target.event_nid,
                    topological=None if target is None else target.topological,
                    receipt_ts=one.receipt_ts,
                )
            written = await receipts.upsert_receipts(conn, list(rows.values())) if rows else []
        if written:
            keys = frozenset(key for one in written for key in wakes_of(rooms[one.room_nid]))
            await self._bus.wake(keys, written[0].position)


def _belongs(target: ReceiptTarget, thread_id: str) -> bool:
    """Whether a receipt for a thread may stand on an event; on a root, also one for its thread."""
    if thread_id == MAIN:
        return target.thread_root is None
    return thread_id in (target.thread_root, target.event_id)


async def _targets(conn: Connection, room_nid: int, event_ids: Collection[EventId]) -> dict[EventId, ReceiptTarget]:
    targets = await receipts.list_targets(conn, event_ids)
    for event_id in event_ids:
        if event_id not in targets or targets[event_id].room_nid != room_nid:
            raise NotFound("There is no such event in this room")
    return targets


async def _put_fully_read(conn: Connection, user_id: UserId, room_id: RoomId, target: ReceiptTarget) -> int | None:
    """Moves the fully read marker forwards; the position, or None if it stands there already or further on."""
    present = await account_data.get_content_locked(conn, user_id=user_id, room_id=room_id, type=FULLY_READ)
    event_id = orjson.loads(present).get("event_id")
    if isinstance(event_id, str):
        known = (await receipts.list_targets(conn, [event_id])).get(EventId(event_id))
        if known is not None and known.room_nid == target.room_nid and known.order >= target.order:
            return None
    return await account_data.upsert_account_data(
        conn,
        user_id=user_id,
        room_id=room_id,
        type=FULLY_READ,
        content=orjson.dumps({"event_id": target.event_id}).decode(),
    )
