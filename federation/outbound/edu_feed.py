"""Reads what passes from the streams and lets it wait for the servers that this worker serves.

Typing, receipts and presence are not queued for each server: they are read by position from their own tables, which
hold the newest state only. Up to where that has been told is saved for each share of the servers, and for each server
that does not answer.

https://spec.matrix.org/v1.19/server-server-api/#edus
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from federation.outbound.edu_audience import EduAudience
from federation.outbound.edu_pacing import EduPacing
from federation.outbound.pending_edus import Change, PendingEdus
from federation.outbound.shares import SHARES, Shares, share_of
from homeserver.core.clock import Clock
from homeserver.core.ids import ServerName, UserId
from homeserver.services.stream.hub import Hub, Waiter
from storage.database import Connection, Database
from storage.destination_shares import (
    advance_edu_positions,
    delete_edu_lags,
    get_edu_positions,
    list_edu_lags,
    list_lagging,
    note_edu_lags,
)
from storage.errors import DatabaseError
from storage.outgoing_edus import (
    Newcomer,
    PresenceChange,
    ReceiptChange,
    TypingChange,
    list_newcomers,
    list_presence_changes,
    list_present_in_rooms,
    list_present_users,
    list_receipt_changes,
    list_typing_changes,
    list_typing_now,
)

logger = logging.getLogger(__name__)

KEYS: Final = frozenset(("edu:", "state:", "user:", "presence:"))

# More than one transaction writes of any kind.
CHANGES_MAX: Final = 2_000
NEWCOMERS_MAX: Final = 1_000
PRESENT_PER_ROOM_MAX: Final = 500
CAUGHT_UP_MAX: Final = 500
"""What a server is told at most of each kind when it is back."""

GATHER_SECONDS: Final = 0.05
IDLE_SECONDS: Final = 5.0
SAVE_SECONDS: Final = 10.0
# Other servers forget who types after about a minute, and who is online after half an hour, if it is not repeated.
TYPING_REPEAT_SECONDS: Final = 40.0
PRESENCE_REPEAT_SECONDS: Final = 24 * 60.0
PRESENT_PAGE: Final = 500
BACKOFF_SECONDS: Final = 2.0
CALL_SECONDS_MAX: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Changes:
    """What is new between two positions; `reached` is the position below which that is all."""

    typing: Sequence[TypingChange]
    receipts: Sequence[ReceiptChange]
    presence: Sequence[PresenceChange]
    newcomers: Sequence[Newcomer]
    reached: int


class EduFeed:
    """Feeds `PendingEdus`. `run()` must be running."""

    def __init__(
        self,
        *,
        server_name: ServerName,
        db: Database,
        hub: Hub,
        clock: Clock,
        shares: Shares,
        pending: PendingEdus,
        audience: EduAudience,
        presence_enabled: bool,
    ) -> None:
        """Takes its means.

        Args:
            server_name: this server.
            db: the database.
            hub: wakes it.
            clock: the time.
            shares: which servers this worker serves.
            pending: what waits for them.
            audience: finds the servers that are told of something.
            presence_enabled: whether presence is told at all.
        """
        self._server_name = server_name
        self._db = db
        self._hub = hub
        self._clock = clock
        self._shares = shares
        self._pending = pending
        self._audience = audience
        self._presence_enabled = presence_enabled
        self._pacing = EduPacing(clock=clock)
        # What is read for all servers, and what for one of them, must not pass each other.
        self._lock = asyncio.Lock()
        self._position: int | None = None
        # The shares that are fed; those that are held and not here have just been taken.
        self._fed: frozenset[int] = frozenset()
        self._saved = -1
        self._waiter: Waiter | None = None
        self._presence_repeated_at: dict[UserId, float] = {}
        shares.on_change(self._shares_changed)

    @property
    def is_ready(self) -> bool:
        """Whether it follows the streams for all shares that this worker has."""
        return self._position is not None and self._fed == self._shares.held

    async def run(self) -> None:
        """Feeds until it is cancelled."""
        typing_at = presence_at = saved_at = self._clock.monotonic()
        with self._hub.subscribe(KEYS) as waiter:
            self._waiter = waiter
            while True:
                try:
                    async with asyncio.timeout(CALL_SECONDS_MAX):
                        upto = await self.feed()
                        now = self._clock.monotonic()
                        if now - typing_at >= TYPING_REPEAT_SECONDS:
                            typing_at = now
                            await self._repeat_typing()
                        if now - presence_at >= PRESENCE_REPEAT_SECONDS / 24:
                            presence_at = now
                            await self._repeat_presence()
                        if now - saved_at >= SAVE_SECONDS:
                            saved_at = now
                            await self._save()
                except (DatabaseError, TimeoutError) as error:
                    logger.warning("Other servers are told later what passes: %s", type(error).__name__)
                    await self._clock.sleep(BACKOFF_SECONDS)
                    continue
                next_due = self._pacing.seconds_to_next()
                await waiter.wait(min(IDLE_SECONDS, IDLE_SECONDS if next_due is None else next_due), upto=upto)
                await self._clock.sleep(GATHER_SECONDS)

    async def feed(self) -> int:
        """Lets wait what is new, and what has been held and is due; returns up to where it has read.

        Raises:
            DatabaseError: the database is away; nothing is passed over.
        """
        upto = await (self._hub.bound() if self._position is None else self._hub.recent_bound(since=self._position))
        async with self._lock, self._db.connection() as conn:
            await self._take_over(conn, upto)
            position = upto if self._position is None else self._position
            while position < upto and self._fed:
                changes = await self._read(conn, since=position, upto=upto)
                self._hold(changes)
                await self._tell_typing(conn, changes.typing, self._serves)
                await self._tell_newcomers(conn, changes.newcomers)
                position = self._position = changes.reached
            self._position = upto
            await self._tell_due(conn, self._serves)
            await self._note_lags(conn)
        return upto

    async def recover(self, destination: ServerName) -> None:
        """Lets wait what a server has missed that did not answer: of receipts and presence the newest.

        Raises:
            DatabaseError: the database is away.
        """
        async with self._lock, self._db.connection() as conn:
            if self._position is None:
                return
            await self._note_lags(conn)
            since = (await list_edu_lags(conn, [destination])).get(destination)
            changes: list[Change] = []
            if since is not None:
                receipts = await list_receipt_changes(
                    conn, self._server_name, since=since, upto=self._position, limit=CAUGHT_UP_MAX, newest=True
                )
                changes += await self._audience.of_rooms_for(conn, destination, receipts)
                if self._presence_enabled:
                    presence = await list_presence_changes(
                        conn, self._server_name, since=since, upto=self._position, limit=CAUGHT_UP_MAX, newest=True
                    )
                    changes += await self._audience.of_users_for(conn, destination, presence)
                await delete_edu_lags(conn, [destination])
            self._pending.lag_ended(destination)
            self._pending.add([destination], changes)

    async def note_lags(self) -> None:
        """Writes down which servers have missed something.

        Raises:
            DatabaseError: the database is away; it will be written later.
        """
        if self._pending.lags_to_note():
            async with self._db.connection() as conn:
                await self._note_lags(conn)

    async def _shares_changed(self, _: frozenset[int]) -> None:
        """Has new shares fed at once."""
        if self._waiter is not None and self._position is not None:
            self._waiter.notify(self._position)

    def _serves(self, destination: ServerName) -> bool:
        return share_of(destination) in self._fed

    async def _take_over(self, conn: Connection, upto: int) -> None:
        """Begins with shares that this worker has taken: first they are told what they have missed meanwhile."""
        held, before = self._shares.held, self._fed
        if held == before:
            return
        self._fed = held
        try:
            self._pending.keep_only(self._serves, lagging=await list_lagging(conn))
            position = upto if self._position is None else self._position
            of_position: dict[int, set[int]] = {}
            if held - before:
                for share, since in (await get_edu_positions(conn, held - before, start=position)).items():
                    of_position.setdefault(since, set()).add(share)
            for since, shares in of_position.items():
                await self._tell_missed(conn, shares, since=since, upto=position)
        except BaseException:
            self._fed = before
            raise

    async def _tell_missed(self, conn: Connection, shares: Collection[int], *, since: int, upto: int) -> None:
        def serves(destination: ServerName) -> bool:
            return share_of(destination) in shares

        while since < upto:
            changes = await self._read(conn, since=since, upto=upto)
            await self._tell_typing(conn, changes.typing, serves)
            await self._tell(conn, changes.receipts, changes.presence, serves)
            since = changes.reached

    async def _read(self, conn: Connection, *, since: int, upto: int) -> _Changes:
        name = self._server_name
        typing = await list_typing_changes(conn, name, since=since, upto=upto, limit=CHANGES_MAX)
        receipts = await list_receipt_changes(conn, name, since=since, upto=upto, limit=CHANGES_MAX)
        presence: Sequence[PresenceChange] = ()
        newcomers: Sequence[Newcomer] = ()
        if self._presence_enabled:
            presence = await list_presence_changes(conn, name, since=since, upto=upto, limit=CHANGES_MAX)
            newcomers = await list_newcomers(conn, since=since, upto=upto, limit=NEWCOMERS_MAX)
        # A list that is full may not be complete at its last position.
        full: list[Sequence[Change]] = [
            changes for changes in (typing, receipts, presence) if len(changes) >= CHANGES_MAX
        ]
        reached = min([upto, *(changes[-1].position for changes in full)])
        if reached <= since:
            reached = since + 1
        return _Changes(
            typing=[change for change in typing if change.position < reached],
            receipts=[change for change in receipts if change.position < reached],
            presence=[change for change in presence if change.position < reached],
            newcomers=newcomers,
            reached=reached,
        )

    def _hold(self, changes: _Changes) -> None:
        for receipt in changes.receipts:
            self._pacing.hold(receipt.room_nid, (receipt.user_id, receipt.thread_id), receipt)
        for presence in changes.presence:
            self._pacing.hold(presence.user_id, presence.user_id, presence)

    async def _tell_due(self, conn: Connection, serves: Callable[[ServerName], bool]) -> None:
        due = [change for changes in self._pacing.take_due().values() for change in changes]
        receipts = [change for change in due if isinstance(change, ReceiptChange)]
        presence = [change for change in due if isinstance(change, PresenceChange)]
        if due:
            await self._tell(conn, receipts, presence, serves)

    async def _tell(
        self,
        conn: Connection,
        receipts: Sequence[ReceiptChange],
        presence: Sequence[PresenceChange],
        serves: Callable[[ServerName], bool],
    ) -> None:
        """Lets receipts and presence wait for all who are told of them."""
        of_rooms = await self._audience.of_rooms(conn, {change.room_nid for change in receipts})
        of_users = await self._audience.of_users(conn, {change.user_id for change in presence})
        told: dict[ServerName, list[Change]] = {}
        audiences: list[tuple[Change, frozenset[ServerName]]] = [
            (change, of_rooms.get(change.room_nid, frozenset())) for change in receipts
        ]
        audiences += [(change, of_users.get(change.user_id, frozenset())) for change in presence]
        for change, servers in audiences:
            for server in servers:
                if serves(server):
                    told.setdefault(server, []).append(change)
        for room_nid, servers in of_rooms.items():
            self._pacing.told(room_nid, servers=len(servers))
        for user_id, servers in of_users.items():
            self._pacing.told(user_id, servers=len(servers))
        self._add(told)

    async def _tell_typing(
        self, conn: Connection, typing: Sequence[TypingChange], serves: Callable[[ServerName], bool]
    ) -> None:
        of_rooms = await self._audience.of_rooms(conn, {change.room_nid for change in typing})
        for change in typing:
            servers = of_rooms.get(change.room_nid, frozenset())
            self._pending.add([server for server in servers if serves(server)], [change])

    async def _tell_newcomers(self, conn: Connection, newcomers: Sequence[Newcomer]) -> None:
        """Tells of presence those who begin to share a room, and so did not hear of it before."""
        if not newcomers:
            return
        rooms = {newcomer.room_nid for newcomer in newcomers}
        new_servers = await self._audience.new_servers(conn, newcomers)
        ours = {newcomer for newcomer in newcomers if newcomer.user_id.server_name == self._server_name}
        if not new_servers and not ours:
            return
        of_rooms = await self._audience.of_rooms(conn, rooms)
        present = await list_present_in_rooms(conn, self._server_name, rooms, limit_per_room=PRESENT_PER_ROOM_MAX)
        told: dict[ServerName, list[Change]] = {}
        for room_nid, change in present:
            is_new = Newcomer(room_nid, change.user_id) in ours
            servers = of_rooms.get(room_nid, frozenset()) if is_new else new_servers.get(room_nid, frozenset())
            for server in servers:
                if self._serves(server):
                    told.setdefault(server, []).append(change)
        self._add(told)

    def _add(self, told: Mapping[ServerName, Sequence[Change]]) -> None:
        for server, changes in told.items():
            self._pending.add([server], changes)

    async def _repeat_typing(self) -> None:
        async with self._db.connection() as conn:
            typing = await list_typing_now(conn, self._server_name, limit=CHANGES_MAX)
            await self._tell_typing(conn, typing, self._serves)

    async def _repeat_presence(self) -> None:
        """Tells again, spread over the time, of those who are online though nothing has changed for long."""
        if not self._presence_enabled or not self._fed:
            return
        now = self._clock.monotonic()
        repeated_at: dict[UserId, float] = {}
        after = ""
        while True:
            async with self._db.connection() as conn:
                page = await list_present_users(conn, self._server_name, after=after, limit=PRESENT_PAGE)
                due = []
                for change in page:
                    last = self._presence_repeated_at.get(change.user_id)
                    if last is None:
                        # Told as it changed, or by the worker before this one; the next time depends on the name.
                        last = now - share_of(ServerName(change.user_id)) / SHARES * PRESENCE_REPEAT_SECONDS
                    elif now - last >= PRESENCE_REPEAT_SECONDS:
                        due.append(change)
                        last = now
                    repeated_at[change.user_id] = last
                await self._tell(conn, (), due, self._serves)
            if len(page) < PRESENT_PAGE:
                break
            after = page[-1].user_id
        self._presence_repeated_at = repeated_at

    async def _note_lags(self, conn: Connection) -> None:
        lags = self._pending.lags_to_note()
        if lags:
            await note_edu_lags(conn, lags)
            self._pending.lags_noted(lags)

    async def _save(self) -> None:
        """Saves up to where all servers have been told, or are known to lag behind."""
        if self._position is None or not self._fed:
            return
        waiting = (self._pacing.oldest(), self._pending.oldest())
        position = min([self._position, *(oldest for oldest in waiting if oldest is not None)])
        if position <= self._saved:
            return
        async with self._db.connection() as conn:
            await advance_edu_positions(conn, dict.fromkeys(self._fed, position))
        self._saved = position
