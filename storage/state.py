"""States of rooms: immutable snapshots, each stored as a difference to its parent, and their slots as integers.

A slot is a place in the state: an event type and a state key. `migrations/0003_rooms.up.sql` tells how snapshots are
stored and made.
"""

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.pdu import StateKey
from storage.bounded_cache import BoundedCache
from storage.database import Connection, Row

_LARGE_ENTRIES_MIN: Final = 64
"""Differences of at least this many entries are not fetched again while they are in memory."""
_LARGE_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class _Difference:
    """One row of state_snapshots: parallel arrays, sorted by slot; event 0 says that the slot is empty."""

    parent_id: int | None
    slot_ids: "array[int]"
    event_nids: "array[int]"

    def find(self, slot_id: int) -> int | None:
        index = bisect_left(self.slot_ids, slot_id)
        if index < len(self.slot_ids) and self.slot_ids[index] == slot_id:
            return self.event_nids[index]
        return None


class Snapshot(Mapping[int, int]):
    """A whole state of a room, immutable: events (`event_nid`) by slot.

    Looking up a slot is cheap; to walk over all of them, take `entries()` once.
    """

    __slots__ = ("_differences", "_entries", "state_id")

    def __init__(self, state_id: int, differences: Mapping[int, _Difference]) -> None:
        """Wraps the differences that make up the state, the nearest first."""
        self.state_id = state_id
        self._differences = differences
        self._entries: Mapping[int, int] | None = None

    def __getitem__(self, slot_id: int) -> int:
        """The event at a slot.

        Raises:
            KeyError: the slot is empty.
        """
        event_nid = self.find(slot_id)
        if event_nid is None:
            raise KeyError(slot_id)
        return event_nid

    def find(self, slot_id: int) -> int | None:
        """The event at a slot; None if it is empty. It is what `get` says, faster."""
        for difference in self._differences.values():
            event_nid = difference.find(slot_id)
            if event_nid is not None:
                return event_nid or None
        return None

    def __iter__(self) -> Iterator[int]:
        return iter(self.entries())

    def __len__(self) -> int:
        return len(self.entries())

    def entries(self) -> Mapping[int, int]:
        """All entries, as a plain mapping that must not be changed."""
        if self._entries is None:
            entries: dict[int, int] = {}
            for difference in reversed(list(self._differences.values())):
                entries.update(zip(difference.slot_ids, difference.event_nids, strict=True))
            self._entries = {slot_id: event_nid for slot_id, event_nid in entries.items() if event_nid}
        return self._entries

    def changes_since(self, older: "Snapshot") -> dict[int, int | None]:
        """The slots at which this state differs from another, with what stands here; None for nothing.

        What both share in storage is not looked at, so states that are close to each other are compared fast.
        """
        shared = self._differences.keys() & older._differences.keys()
        suspects: set[int] = set()
        for snapshot in (self, older):
            for state_id, difference in snapshot._differences.items():
                if state_id not in shared:
                    suspects.update(difference.slot_ids)
        return {slot_id: event_nid for slot_id in suspects if (event_nid := self.find(slot_id)) != older.find(slot_id)}


# By the index, row by row: a plan that was made when the table was small would go through all of it.
SELECT_SNAPSHOT_CHAINS: Final = """
    WITH RECURSIVE chain (state_id) AS (
        SELECT unnest($1::bigint[])
        UNION
        SELECT s.parent_id
        FROM chain CROSS JOIN LATERAL (
            SELECT parent_id FROM state_snapshots WHERE state_snapshots.state_id = chain.state_id OFFSET 0
        ) AS s
        WHERE s.parent_id IS NOT NULL AND NOT s.parent_id = ANY ($2::bigint[])
    )
    SELECT chain.state_id, s.parent_id, s.slot_ids, s.event_nids
    FROM chain CROSS JOIN LATERAL (
        SELECT parent_id, slot_ids, event_nids FROM state_snapshots
        WHERE state_snapshots.state_id = chain.state_id OFFSET 0
    ) AS s
"""
SELECT_SLOT_IDS: Final = """
    SELECT s.slot_id, s.type, s.state_key
    FROM unnest($1::text[], $2::text[]) AS wanted (type, state_key) JOIN state_slots s USING (type, state_key)
"""
SELECT_SLOTS: Final = "SELECT slot_id, type, state_key FROM state_slots WHERE slot_id = ANY ($1::integer[])"


class StateStore:
    """Reads snapshots and slots, and keeps them in memory within bounds. Neither ever changes: nothing goes stale."""

    def __init__(self, *, snapshots_size_bytes_max: int = 64 * 1024 * 1024, slots_max: int = 100_000) -> None:
        """Starts with nothing in memory."""
        self._small: BoundedCache[int, _Difference] = BoundedCache(
            "state_small",
            weight_max=snapshots_size_bytes_max // 2,
            weigh=lambda kept: 400 + 12 * len(kept.slot_ids),
            bytes_each=1,
        )
        self._large: BoundedCache[int, _Difference] = BoundedCache(
            "state_large",
            weight_max=snapshots_size_bytes_max // 2,
            weigh=lambda kept: max(12 * len(kept.slot_ids), snapshots_size_bytes_max // 2 // _LARGE_MAX),
            bytes_each=1,
        )
        self._slot_ids: BoundedCache[StateKey, int] = BoundedCache("state_slot_ids", weight_max=slots_max)
        self._slots: BoundedCache[int, StateKey] = BoundedCache("state_slots", weight_max=slots_max)

    async def load(self, conn: Connection, state_id: int) -> Snapshot:
        """One snapshot; see `load_many`."""
        return (await self.load_many(conn, (state_id,)))[state_id]

    async def load_many(self, conn: Connection, state_ids: Collection[int]) -> dict[int, Snapshot]:
        """Snapshots by id, with one statement for all that is not in memory.

        Raises:
            LookupError: there is no such snapshot.
        """
        found: dict[int, Snapshot] = {}
        missing = []
        for state_id in set(state_ids):
            snapshot = self._assemble(state_id, {})
            if snapshot is None:
                missing.append(state_id)
            else:
                found[state_id] = snapshot
        if missing:
            # Held here, so that nobody pushes them out of the cache while the statement runs.
            known = self._large_with_ancestors()
            rows = await conn.fetch(SELECT_SNAPSHOT_CHAINS, missing, list(known))
            known.update((row["state_id"], self._keep(row)) for row in rows)
            for state_id in missing:
                snapshot = self._assemble(state_id, known)
                if snapshot is None:
                    raise LookupError(f"There is no state snapshot {state_id}")
                found[state_id] = snapshot
        return found

    def _assemble(self, state_id: int, known: Mapping[int, _Difference]) -> Snapshot | None:
        """A snapshot from `known` and the cache; None if a part of it is in neither."""
        differences = {}
        next_id: int | None = state_id
        while next_id is not None:
            difference = known.get(next_id) or self._small.get(next_id) or self._large.get(next_id)
            if difference is None:
                return None
            differences[next_id] = difference
            next_id = difference.parent_id
        return Snapshot(state_id, differences)

    def _large_with_ancestors(self) -> dict[int, _Difference]:
        """The large differences in memory whose ancestors (all larger still) are there too."""
        kept: dict[int, _Difference] = {}
        for state_id, difference in sorted(self._large.items()):  # a parent is older than its children
            if difference.parent_id is None or difference.parent_id in kept:
                kept[state_id] = difference
        return kept

    def _keep(self, row: Row) -> _Difference:
        slot_ids, event_nids = row["slot_ids"], row["event_nids"]
        difference = _Difference(row["parent_id"], array("i", slot_ids), array("q", event_nids))
        self._put(row["state_id"], difference)
        return difference

    def _put(self, state_id: int, difference: _Difference) -> None:
        cache = self._large if len(difference.slot_ids) >= _LARGE_ENTRIES_MIN else self._small
        cache.put(state_id, difference)

    def remember(self, state_id: int, *, base_state_id: int | None, changes: Mapping[int, int | None]) -> None:
        """Keeps a snapshot that has just been committed, so that it need not be read.

        Args:
            state_id: the snapshot.
            base_state_id: another one; None for the empty state.
            changes: how it differs from that, events by slot; None for an empty slot.
        """
        if state_id in self._small or state_id in self._large or not state_id > (base_state_id or 0):
            return  # what is older than its base was found again, not made from it
        own = {slot_id: event_nid or 0 for slot_id, event_nid in changes.items()}
        parent_id = base_state_id
        # As the database does it: the number of differences is logarithmic.
        while parent_id is not None:
            parent = self._small.get(parent_id) or self._large.get(parent_id)
            if parent is None or 2 * len(own) < len(parent.slot_ids):
                break
            own = {**dict(zip(parent.slot_ids, parent.event_nids, strict=True)), **own}
            parent_id = parent.parent_id
        slot_ids = sorted(slot_id for slot_id, event_nid in own.items() if event_nid or parent_id is not None)
        difference = _Difference(parent_id, array("i", slot_ids), array("q", [own[slot_id] for slot_id in slot_ids]))
        self._put(state_id, difference)

    async def find_slots(self, conn: Connection, slots: Iterable[StateKey]) -> dict[StateKey, int]:
        """The numbers of slots; those that no room has ever used have none and are absent."""
        found: dict[StateKey, int] = {}
        missing = []
        for slot in set(slots):
            slot_id = self._slot_ids.get(slot)
            if slot_id is None:
                missing.append(slot)
            else:
                found[slot] = slot_id
        if missing:
            types, state_keys = zip(*missing, strict=True)
            rows = await conn.fetch(SELECT_SLOT_IDS, types, state_keys)
            found.update((slot, slot_id) for slot_id, slot in self._keep_slots(rows))
        return found

    async def number_slots(self, conn: Connection, slots: Collection[StateKey]) -> dict[StateKey, int]:
        """The numbers of slots; those that have none yet get one."""
        found = await self.find_slots(conn, slots)
        missing = [slot for slot in slots if slot not in found]
        if missing:
            await insert_slots(conn, missing)
            found |= await self.find_slots(conn, missing)
        return found

    async def slot_names(self, conn: Connection, slot_ids: Iterable[int]) -> dict[int, StateKey]:
        """The slots with these numbers."""
        found: dict[int, StateKey] = {}
        missing = []
        for slot_id in set(slot_ids):
            slot = self._slots.get(slot_id)
            if slot is None:
                missing.append(slot_id)
            else:
                found[slot_id] = slot
        if missing:
            found.update(self._keep_slots(await conn.fetch(SELECT_SLOTS, missing)))
        return found

    def _keep_slots(self, rows: Sequence[Row]) -> Iterator[tuple[int, StateKey]]:
        for row in rows:
            slot_id, slot = row["slot_id"], (row["type"], row["state_key"])
            self._slot_ids.put(slot, slot_id)
            self._slots.put(slot_id, slot)
            yield slot_id, slot


INSERT_SLOTS: Final = """
    INSERT INTO state_slots (type, state_key)
    SELECT wanted.type, wanted.state_key FROM unnest($1::text[], $2::text[]) AS wanted (type, state_key)
    WHERE NOT EXISTS (SELECT FROM state_slots s WHERE s.type = wanted.type AND s.state_key = wanted.state_key)
    ORDER BY wanted.type, wanted.state_key
    ON CONFLICT DO NOTHING
"""


async def insert_slots(conn: Connection, slots: Collection[StateKey]) -> None:
    """Gives slots a number that have none yet."""
    wanted = set(slots)
    await conn.execute(INSERT_SLOTS, [slot[0] for slot in wanted], [slot[1] for slot in wanted])


SELECT_ARE_STORED: Final = """
    SELECT NOT EXISTS (
        SELECT FROM unnest($1::bigint[]) AS wanted (state_id)
        WHERE NOT EXISTS (SELECT FROM state_snapshots s WHERE s.state_id = wanted.state_id)
    )
"""


async def are_stored(conn: Connection, state_ids: Iterable[int]) -> bool:
    """Whether snapshots that were found out earlier are still there: those that nothing refers to are collected.

    Who holds the lock of the room's row may rely on it until the transaction ends.
    """
    return bool(await conn.fetchval(SELECT_ARE_STORED, list(set(state_ids))))


LOCK_ROOM: Final = "SELECT state_version FROM rooms WHERE room_nid = $1 FOR NO KEY UPDATE"
SELECT_DERIVED_STATE: Final = """
    WITH change AS (
        SELECT c.slot_id, c.event_nid, coalesce(old.event_nid, 0) AS old_event_nid
        FROM unnest($3::integer[], $4::bigint[]) AS c (slot_id, event_nid)
        LEFT JOIN state_entries($2, $3::integer[]) AS old USING (slot_id)
    )
    SELECT derive_state(
        $1, $2,
        coalesce(array_agg(slot_id ORDER BY slot_id), '{}'),
        coalesce(array_agg(old_event_nid ORDER BY slot_id), '{}'),
        coalesce(array_agg(event_nid ORDER BY slot_id), '{}')
    )
    FROM change
"""


async def derive_state(
    conn: Connection, *, room_nid: int, base_state_id: int | None, changes: Mapping[int, int | None]
) -> int:
    """Finds or makes the snapshot that differs from another in the given slots, within a transaction.

    Args:
        room_nid: the room, whose row is locked first.
        base_state_id: the snapshot to start from; None for the empty state.
        changes: events by slot; None empties a slot.

    Raises:
        ConstraintViolation: the snapshot to start from has been collected, for nothing referred to it for hours.
    """
    await conn.fetchval(LOCK_ROOM, room_nid)
    event_nids = [event_nid or 0 for event_nid in changes.values()]
    return int(await conn.fetchval(SELECT_DERIVED_STATE, room_nid, base_state_id, list(changes), event_nids))
