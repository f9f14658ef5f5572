"""Sending message events.

https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from weakref import WeakValueDictionary

from homeserver.core.errors import DuplicateAnnotation, MatrixError, UnavailableForNow, Unknown, UserSuspended
from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.relations import (
    ANNOTATION,
    THREAD,
    Relation,
    may_start_thread,
    relation_of,
    thread_root_of,
)
from homeserver.core.requester import Requester
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.content_rules import check_message
from homeserver.services.rooms.drafts import Draft
from homeserver.services.rooms.redactions import Redactions
from storage.database import Connection, Database
from storage.errors import UniqueViolation
from storage.events import find_event, find_event_of_transaction
from storage.relations import has_annotated
from storage.rooms import find_room

_REDACTION: Final = "m.room.redaction"
_ANNOTATION_SECONDS_MAX: Final = 10.0


class MessageEvents:
    """The events that users send which are no state. A request that is repeated gets the same answer."""

    def __init__(
        self,
        *,
        db: Database,
        appender: Appender,
        redactions: Redactions,
        note_activity: Callable[[UserId], None] = lambda _: None,
    ) -> None:
        """Takes its means; `note_activity` is told of each user who sends something."""
        self._db = db
        self._appender = appender
        self._redactions = redactions
        self._note_activity = note_activity
        self._annotating: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    async def send(
        self,
        requester: Requester,
        room_id: RoomId,
        event_type: str,
        content: Mapping[str, Any],
        *,
        transaction_id: str,
        origin_server_ts: int | None = None,
    ) -> EventId:
        """Sends an event.

        Args:
            requester: who sends it.
            room_id: the room.
            event_type: of the event; an `m.room.redaction` says in its content what it redacts.
            content: of the event.
            transaction_id: names the request among those of the device.
            origin_server_ts: milliseconds since the epoch; None for now.

        Returns:
            The event; the first one if the device has sent this transaction id to the room before.

        Raises:
            Forbidden: the user may not send this.
            DuplicateAnnotation: the user has annotated the event with this key already.
            UnavailableForNow: the room is too busy.
            BadJson: the content cannot stand in an event.
            TooLarge: the event would be too large.
        """
        try:
            check_message(event_type, content, room_id=room_id)
            if event_type == _REDACTION:
                rest = {name: value for name, value in content.items() if name != "redacts"}
                event_id = await self._redactions.redact(
                    requester,
                    room_id,
                    EventId.parse(content["redacts"]),
                    rest,
                    transaction_id=transaction_id,
                    origin_server_ts=origin_server_ts,
                )
            else:
                event_id = await self._send(requester, room_id, event_type, content, transaction_id, origin_server_ts)
        except (MatrixError, UniqueViolation) as error:
            # Whether the request was made before is only asked when it fails; if so, its transaction id was in the way,
            # or what was allowed then is not any more.
            sent_id = await self.find_sent(requester, room_id, transaction_id, is_redaction=event_type == _REDACTION)
            if sent_id is None:
                raise error
            return sent_id
        self._note_activity(requester.user_id)
        return event_id

    async def redact(
        self,
        requester: Requester,
        room_id: RoomId,
        event_id: EventId,
        *,
        reason: str | None,
        transaction_id: str,
        origin_server_ts: int | None = None,
    ) -> EventId:
        """Redacts an event; see `Redactions.redact` and `send`."""
        content = {"redacts": event_id} if reason is None else {"redacts": event_id, "reason": reason}
        return await self.send(
            requester, room_id, _REDACTION, content, transaction_id=transaction_id, origin_server_ts=origin_server_ts
        )

    async def find_sent(
        self, requester: Requester, room_id: RoomId, transaction_id: str, *, is_redaction: bool
    ) -> EventId | None:
        """The event that the device has made in the room by an earlier request with this transaction id."""
        async with self._db.connection() as conn:
            room = await find_room(conn, room_id)
            if room is None:
                return None
            return await find_event_of_transaction(
                conn,
                sender=requester.user_id,
                device_id=requester.device_id or "",
                room_nid=room.room_nid,
                transaction_id=transaction_id,
                is_redaction=is_redaction,
            )

    async def _send(
        self,
        requester: Requester,
        room_id: RoomId,
        event_type: str,
        content: Mapping[str, Any],
        transaction_id: str,
        origin_server_ts: int | None,
    ) -> EventId:
        if requester.is_suspended:
            raise UserSuspended("You cannot do this while your account is suspended")
        relation = relation_of(content)
        async with self._one_by_one(requester, event_type, relation):
            draft = Draft(
                type=event_type,
                sender=requester.user_id,
                content=content,
                device_id=requester.device_id or "",
                transaction_id=transaction_id,
                origin_server_ts=origin_server_ts,
                thread_root=await self._thread_root(requester, room_id, event_type, relation),
            )
            added = await self._appender.append_message(room_id, draft)
        return added.events[0].event_id

    @asynccontextmanager
    async def _one_by_one(
        self, requester: Requester, event_type: str, relation: Relation | None
    ) -> AsyncIterator[None]:
        """Lets a user annotate an event alike only once at a time, so that the second time is known as such.

        Between processes nothing is locked: of two that are sent at once to two of them both may come into the room, as
        they may from other servers.
        """
        if relation is None or relation.rel_type != ANNOTATION or relation.key is None:
            yield
            return
        annotation = (requester.user_id, event_type, relation.event_id, relation.key)
        # It stays in the dictionary for as long as somebody holds it or waits for it here.
        lock = self._annotating.setdefault(annotation, asyncio.Lock())
        try:
            async with asyncio.timeout(_ANNOTATION_SECONDS_MAX):
                await lock.acquire()
        except TimeoutError as error:
            raise UnavailableForNow("The same annotation is being sent already") from error
        try:
            yield
        finally:
            lock.release()

    async def _thread_root(
        self, requester: Requester, room_id: RoomId, event_type: str, relation: Relation | None
    ) -> EventId | None:
        """Checks what the event says about another one, and finds the thread that it thereby belongs to."""
        if relation is None:
            return None
        async with self._db.connection() as conn:
            parent = await find_event(conn, relation.event_id)
            if parent is None or parent.room_id != room_id:
                # It may still be on its way from another server.
                return thread_root_of(relation, thread_root_of_parent=None)
            if relation.rel_type == THREAD and not may_start_thread(parent.content):
                raise Unknown("A thread cannot start at an event that relates to another")
            if relation.rel_type == ANNOTATION and relation.key is not None:
                await _check_first_annotation(conn, relation.event_id, relation.key, requester, event_type)
        return thread_root_of(relation, thread_root_of_parent=parent.thread_root)


async def _check_first_annotation(
    conn: Connection, event_id: EventId, key: str, requester: Requester, event_type: str
) -> None:
    if await has_annotated(conn, event_id, key=key, sender=requester.user_id, event_type=event_type):
        raise DuplicateAnnotation("You have annotated this event with the same key already")
