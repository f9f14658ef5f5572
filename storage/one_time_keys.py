"""Keys for single use and the fallback keys that stand in for them: stored by their devices, claimed by others.

https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.encryption_keys import OneTimeKey
from homeserver.core.ids import DeviceId, UserId
from storage.database import Connection, Row

SELECT_ONE_TIME_KEYS: Final = """
    SELECT k.algorithm, k.key_id, k.key
    FROM unnest($3::text[], $4::text[]) AS wanted (algorithm, key_id)
    JOIN one_time_keys k ON k.user_id = $1 AND k.device_id = $2
        AND k.algorithm = wanted.algorithm AND k.key_id = wanted.key_id
"""


async def list_one_time_keys(
    conn: Connection, *, user_id: UserId, device_id: DeviceId, among: Sequence[OneTimeKey]
) -> list[OneTimeKey]:
    """Those keys of a device that have the same names as some others."""
    algorithms, key_ids = [key.algorithm for key in among], [key.key_id for key in among]
    rows = await conn.fetch(SELECT_ONE_TIME_KEYS, user_id, device_id, algorithms, key_ids)
    return [OneTimeKey(row["algorithm"], row["key_id"], row["key"]) for row in rows]


INSERT_ONE_TIME_KEYS: Final = """
    INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, key)
    SELECT $1, $2, given.* FROM unnest($3::text[], $4::text[], $5::text[]) AS given (algorithm, key_id, key)
"""


async def insert_one_time_keys(
    conn: Connection, *, user_id: UserId, device_id: DeviceId, keys: Sequence[OneTimeKey]
) -> None:
    """Adds keys to a device."""
    await conn.execute(
        INSERT_ONE_TIME_KEYS,
        user_id,
        device_id,
        [key.algorithm for key in keys],
        [key.key_id for key in keys],
        [key.key for key in keys],
    )


UPSERT_FALLBACK_KEYS: Final = """
    INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, key)
    SELECT $1, $2, given.* FROM unnest($3::text[], $4::text[], $5::text[]) AS given (algorithm, key_id, key)
    ON CONFLICT (user_id, device_id, algorithm) DO UPDATE SET key_id = excluded.key_id, key = excluded.key, used = false
    WHERE (fallback_keys.key_id, fallback_keys.key) <> (excluded.key_id, excluded.key)
"""


async def upsert_fallback_keys(
    conn: Connection, *, user_id: UserId, device_id: DeviceId, keys: Sequence[OneTimeKey]
) -> None:
    """Replaces fallback keys of a device, one for each algorithm; a new key has not been used yet."""
    await conn.execute(
        UPSERT_FALLBACK_KEYS,
        user_id,
        device_id,
        [key.algorithm for key in keys],
        [key.key_id for key in keys],
        [key.key for key in keys],
    )


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """What a device has left.

    Attributes:
        has_identity: whether the device has uploaded identity keys.
        one_time_keys: their number by algorithm.
        unused_fallback_algorithms: of fallback keys that nobody was given yet.
        changed_at: the position at which this changed last; None if it never did.
    """

    has_identity: bool = False
    one_time_keys: Mapping[str, int] = field(default_factory=dict)
    unused_fallback_algorithms: Sequence[str] = ()
    changed_at: int | None = None


SELECT_KEY_COUNTS: Final = """
    SELECT 'one_time' AS kind, algorithm, count(*) AS number FROM one_time_keys
    WHERE user_id = $1 AND device_id = $2 GROUP BY algorithm
    UNION ALL
    SELECT 'fallback', algorithm, 1 FROM fallback_keys WHERE user_id = $1 AND device_id = $2 AND NOT used
    UNION ALL
    SELECT 'changed', '', position FROM key_count_changes WHERE user_id = $1 AND device_id = $2
    UNION ALL
    SELECT 'identity', '', 1 FROM device_keys WHERE user_id = $1 AND device_id = $2
    ORDER BY 1, 2
"""


async def get_key_counts(conn: Connection, *, user_id: UserId, device_id: DeviceId) -> KeyCounts:
    """What a device has left."""
    rows = await conn.fetch(SELECT_KEY_COUNTS, user_id, device_id)
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        by_kind.setdefault(row["kind"], []).append(row)
    changed = by_kind.get("changed", ())
    return KeyCounts(
        has_identity="identity" in by_kind,
        one_time_keys={row["algorithm"]: row["number"] for row in by_kind.get("one_time", ())},
        unused_fallback_algorithms=[row["algorithm"] for row in by_kind.get("fallback", ())],
        changed_at=changed[0]["number"] if changed else None,
    )


UPSERT_KEY_COUNT_CHANGES: Final = """
    INSERT INTO key_count_changes (user_id, device_id)
    SELECT DISTINCT given.user_id, given.device_id
    FROM unnest($1::text[], $2::text[]) AS given (user_id, device_id)
    ORDER BY given.user_id, given.device_id
    ON CONFLICT (user_id, device_id) DO UPDATE SET position = stream_position()
    RETURNING position
"""


async def upsert_key_count_changes(conn: Connection, devices: Collection[tuple[str, str]]) -> int:
    """Notes that devices (user and device, at least one) have another number of keys; the position."""
    rows = await conn.fetch(UPSERT_KEY_COUNT_CHANGES, [user for user, _ in devices], [device for _, device in devices])
    position: int = rows[0]["position"]
    return position


@dataclass(frozen=True, slots=True)
class ClaimedKey:
    """A key that was given out; `spends` says whether the device has fewer keys now."""

    user_id: UserId
    device_id: DeviceId
    key: OneTimeKey
    spends: bool


def _claimed(row: Row, *, spends: bool) -> ClaimedKey:
    key = OneTimeKey(row["algorithm"], row["key_id"], row["key"])
    return ClaimedKey(UserId(row["user_id"]), DeviceId(row["device_id"]), key, spends)


# Whoever claims at the same time passes over a locked key and takes the next.
DELETE_CLAIMED_KEYS: Final = """
    WITH picked AS (
        SELECT oldest.* FROM (
            SELECT DISTINCT user_id, device_id, algorithm
            FROM unnest($1::text[], $2::text[], $3::text[]) AS given (user_id, device_id, algorithm)
        ) AS wanted
        CROSS JOIN LATERAL (
            SELECT k.user_id, k.device_id, k.algorithm, k.key_id FROM one_time_keys k
            WHERE k.user_id = wanted.user_id AND k.device_id = wanted.device_id AND k.algorithm = wanted.algorithm
            ORDER BY k.serial
            LIMIT 1
            FOR UPDATE SKIP LOCKED
        ) AS oldest
    )
    DELETE FROM one_time_keys k USING picked p
    WHERE k.user_id = p.user_id AND k.device_id = p.device_id AND k.algorithm = p.algorithm AND k.key_id = p.key_id
    RETURNING k.user_id, k.device_id, k.algorithm, k.key_id, k.key
"""
SELECT_FALLBACK_KEYS: Final = """
    SELECT k.user_id, k.device_id, k.algorithm, k.key_id, k.key, k.used
    FROM unnest($1::text[], $2::text[], $3::text[]) AS given (user_id, device_id, algorithm)
    JOIN fallback_keys k USING (user_id, device_id, algorithm)
    ORDER BY k.user_id, k.device_id, k.algorithm
    FOR UPDATE OF k
"""
UPDATE_FALLBACK_KEYS_USED: Final = """
    UPDATE fallback_keys k SET used = true
    FROM unnest($1::text[], $2::text[], $3::text[]) AS given (user_id, device_id, algorithm)
    WHERE k.user_id = given.user_id AND k.device_id = given.device_id AND k.algorithm = given.algorithm AND NOT k.used
"""

Wish = tuple[UserId, DeviceId, str]
"""A key that somebody wants: of which device, and for which algorithm."""


async def claim_keys(conn: Connection, wishes: Collection[Wish]) -> list[ClaimedKey]:
    """Takes a key for each wish that can be met: the oldest for single use, or else the fallback key.

    It needs a transaction; one that is committed has given each one-time key to nobody else.
    """
    rows = await conn.fetch(DELETE_CLAIMED_KEYS, *_columns(wishes))
    claimed = [_claimed(row, spends=True) for row in rows]
    unmet = set(wishes) - {(each.user_id, each.device_id, each.key.algorithm) for each in claimed}
    if unmet:
        fallbacks = await conn.fetch(SELECT_FALLBACK_KEYS, *_columns(unmet))
        if any(not row["used"] for row in fallbacks):
            await conn.execute(UPDATE_FALLBACK_KEYS_USED, *_columns(unmet))
        claimed += [_claimed(row, spends=not row["used"]) for row in fallbacks]
    return claimed


def _columns(wishes: Collection[Wish]) -> tuple[list[str], list[str], list[str]]:
    ordered = sorted(wishes)
    return [wish[0] for wish in ordered], [wish[1] for wish in ordered], [wish[2] for wish in ordered]


# For the hub's tick: whom to wake for the rows between two positions.
SELECT_KEY_COUNT_KEYS: Final = """
    SELECT 'user:' || user_id AS key, max(position) AS position FROM key_count_changes
    WHERE position >= $1 AND position < $2 GROUP BY user_id LIMIT $3
"""
