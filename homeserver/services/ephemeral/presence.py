"""Presence: who is online, as their devices ask for it and as their activity shows.

Writes are few: a change of a device within a second, else once a minute. Others are woken by the hub's tick (keys
`presence:{room_id}` of the rooms that the user is in), for a second's delay does no harm here and gathers changes.

https://spec.matrix.org/v1.19/client-server-api/#presence
"""

import asyncio
import logging
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from homeserver.config.schema import PresenceConfig
from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, InvalidParam
from homeserver.core.ids import ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.core.text import is_storable
from homeserver.services.ephemeral.present_devices import RENEWAL_SECONDS, Due, PresentDevices
from homeserver.services.ephemeral.told_presence import ToldPresence, parse_told_presence
from storage import memberships, presence
from storage.database import Connection, Database
from storage.errors import DatabaseError
from storage.presence import PresenceRow, PresenceSource

logger = logging.getLogger(__name__)

PRESENCES: Final = ("online", "unavailable", "offline")
STATUS_MSG_BYTES_MAX: Final = 2048
# Longer than activity goes unwritten, so that somebody who is active stays so.
CURRENTLY_ACTIVE_MS: Final = 150_000
SOURCE_MS: Final = 60_000
TOLD_SOURCE_MS: Final = 30 * 60_000
FLUSH_SECONDS: Final = 1.0
# Every so many flushes all devices are looked at, and the users whose time has run out.
FLUSHES_PER_SWEEP: Final = 5
SWEEP_MAX: Final = 500
WRITE_SECONDS_MAX: Final = 20.0

NEWCOMERS_MAX: Final = 50
"""Up to so many newcomers a sync tells the presence even of those who are offline."""


class Presence:
    """The presence of the users of this server and of those whom they share rooms with."""

    def __init__(self, *, db: Database, clock: Clock, config: PresenceConfig) -> None:
        """Takes its means; `run()` must be running for devices to be seen by others."""
        self._db = db
        self._clock = clock
        self._config = config
        self._process = secrets.token_urlsafe(9)
        # What is written of a device must arrive in the order in which it happened.
        self._writing = asyncio.Lock()
        self._devices = PresentDevices(
            clock=clock,
            offline_seconds=config.offline_ms / 1000,
            activity_seconds=min(RENEWAL_SECONDS, config.idle_ms / 3000),
        )

    @contextmanager
    def syncing(self, requester: Requester, *, state: str) -> Iterator[None]:
        """While the block runs, a device of the requester syncs and asks for a presence (`set_presence`).

        `offline` asks for none: the device stays as it was, and for no longer than without the sync.
        """
        if not self._config.enabled or state == "offline":
            yield
            return
        device_id = requester.device_id or ""
        self._devices.begin_sync(requester.user_id, device_id, presence=state)
        try:
            yield
        finally:
            self._devices.end_sync(requester.user_id, device_id)

    def note_activity(self, user_id: UserId) -> None:
        """A user has done something: sent, read, typed. Costs next to nothing."""
        if self._config.enabled:
            self._devices.note_activity(user_id)

    async def put(self, requester: Requester, user_id: UserId, *, state: str, status_msg: str | None) -> None:
        """Sets the requester's own presence and status message; without a message there is none any more.

        Raises:
            Forbidden: it is somebody else's.
            InvalidParam: there is no such presence, or the message is too long or cannot be stored.
        """
        if user_id != requester.user_id:
            raise Forbidden("You can only set your own presence")
        if state not in PRESENCES:
            raise InvalidParam(f"presence must be one of {', '.join(PRESENCES)}")
        if status_msg is not None:
            _check_status_msg(status_msg)
        if not self._config.enabled:
            return
        source = PresenceSource(user_id=user_id, device_id=requester.device_id or "", presence=state)
        due = Due(sources=[source], active_ts={user_id: self._clock.now_ms()})
        async with asyncio.timeout(WRITE_SECONDS_MAX), self._writing:
            await self._write(due, status_msgs={user_id: status_msg or None})
            self._devices.note_written(source)

    async def get(self, requester: Requester, user_id: UserId) -> dict[str, Any]:
        """The content of a user's presence.

        Raises:
            Forbidden: the requester shares no room with the user.
        """
        async with self._db.connection() as conn:
            if user_id != requester.user_id and not await memberships.shares_room(
                conn, user_id=requester.user_id, other_user_id=user_id
            ):
                raise Forbidden("You are not allowed to see this user's presence")
            row = await presence.find_presence(conn, user_id) if self._config.enabled else None
        return {"presence": "offline"} if row is None else self._content(row)

    async def changed(
        self, conn: Connection, user_id: UserId, *, since: int, upto: int, newcomers: Collection[UserId] = ()
    ) -> Sequence[dict[str, Any]]:
        """The `m.presence` events for a user's sync: its own presence and that of those it shares rooms with.

        Those that changed from `since` on and before `upto`; with `since` 0 all who are not offline. Of `newcomers`,
        with whom the user has only now begun to share a room, all who are not offline, and if they are few, the others
        too: then the client need not guess.
        """
        if not self._config.enabled:
            return ()
        rows = await presence.changed_presence(conn, user_id, since=since, upto=upto, newcomers=newcomers)
        told = {row.user_id: self._content(row) for row in rows}
        if len(newcomers) <= NEWCOMERS_MAX:
            told |= {newcomer: {"presence": "offline"} for newcomer in newcomers if newcomer not in told}
        return [{"type": "m.presence", "sender": sender, "content": content} for sender, content in told.items()]

    async def in_room(self, conn: Connection, room_nid: int, *, since: int, upto: int) -> Sequence[dict[str, Any]]:
        """The `m.presence` events of a room's members, for somebody who reads the room: those that changed.

        With `since` 0 all of them, also of those who have never been seen.
        """
        if not self._config.enabled:
            return ()
        rows = await presence.presence_in_room(conn, room_nid, since=since, upto=upto)
        return [{"type": "m.presence", "sender": row.user_id, "content": self._content(row)} for row in rows]

    async def receive(self, origin: ServerName, content: Mapping[str, Any]) -> Sequence[UserId]:
        """Takes what another server tells of its users (EDU `m.presence`).

        Entries that are malformed, of users of yet other servers, or of users who are in no room here are passed over.

        Returns:
            Those users of the server who are in no room here.
        """
        if not self._config.enabled:
            return ()
        told = parse_told_presence(content, origin=origin, now_ms=self._clock.now_ms())
        if not told:
            return ()
        async with self._db.connection() as conn:
            known = await presence.list_users_in_rooms(conn, told.keys())
        entries = [entry for user_id, entry in told.items() if user_id in known]
        if entries:
            await self._write_told(entries)
        return [user_id for user_id in told if user_id not in known]

    async def run(self) -> None:
        """Writes what this process sees, and what time has changed, until it is cancelled."""
        flushes = 0
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            flushes += 1
            try:
                if flushes % FLUSHES_PER_SWEEP == 0:
                    self._devices.mark_overdue()
                    await self._sweep()
                await self.flush()
            except (DatabaseError, TimeoutError) as error:
                logger.warning("presence was not written: %s", type(error).__name__)

    async def flush(self) -> None:
        """Writes the changes that this process has seen.

        Raises:
            DatabaseError, TimeoutError: it could not be done; the next flush does it.
        """
        if not self._devices.may_have_changed and not self._writing.locked():
            return
        async with asyncio.timeout(WRITE_SECONDS_MAX), self._writing:
            while (due := self._devices.take_changed()).users:
                try:
                    await self._write(due)
                except BaseException:
                    self._devices.put_back(due)
                    raise

    async def _sweep(self) -> None:
        now = self._clock.now_ms()
        async with self._db.connection() as conn:
            users = await presence.list_overdue(
                conn,
                idle_since_ts=now - self._config.idle_ms,
                inactive_since_ts=now - CURRENTLY_ACTIVE_MS,
                limit=SWEEP_MAX,
            )
        if users:
            async with self._db.transaction() as conn:
                await presence.lock_presence(conn, users)
                await self._compute(conn, dict.fromkeys(users))

    async def _write(self, due: Due, *, status_msgs: Mapping[UserId, str | None] | None = None) -> None:
        duration_ms = SOURCE_MS * 2 + self._config.offline_ms
        async with self._db.transaction() as conn:
            await presence.lock_presence(conn, due.users)
            await presence.upsert_sources(conn, list(due.sources), process=self._process, duration_ms=duration_ms)
            await self._compute(conn, {user_id: due.active_ts.get(user_id) for user_id in due.users})
            if status_msgs:
                await presence.update_status_msg(conn, status_msgs)

    async def _write_told(self, entries: Sequence[ToldPresence]) -> None:
        async with self._db.transaction() as conn:
            await presence.lock_presence(conn, [entry.source.user_id for entry in entries])
            # Whichever process is told, there is one source.
            sources = [entry.source for entry in entries]
            await presence.upsert_sources(conn, sources, process="", duration_ms=TOLD_SOURCE_MS)
            await self._compute(conn, {entry.source.user_id: entry.last_active_ts for entry in entries})
            await presence.update_status_msg(conn, {entry.source.user_id: entry.status_msg for entry in entries})

    async def _compute(self, conn: Connection, active_ts: Mapping[UserId, int | None]) -> None:
        now = self._clock.now_ms()
        await presence.compute_presence(
            conn,
            active_ts,
            idle_since_ts=now - self._config.idle_ms,
            inactive_since_ts=now - CURRENTLY_ACTIVE_MS,
        )

    def _content(self, row: PresenceRow) -> dict[str, Any]:
        content: dict[str, Any] = {"presence": row.presence}
        if row.last_active_ts is not None:
            content["last_active_ago"] = max(0, self._clock.now_ms() - row.last_active_ts)
        if row.presence == "online":
            content["currently_active"] = row.currently_active
        if row.status_msg is not None:
            content["status_msg"] = row.status_msg
        return content


def _check_status_msg(status_msg: str) -> None:
    if not is_storable(status_msg):
        raise InvalidParam("status_msg holds a character that is not allowed")
    if len(status_msg.encode()) > STATUS_MSG_BYTES_MAX:
        raise InvalidParam(f"status_msg is longer than {STATUS_MSG_BYTES_MAX} bytes")
