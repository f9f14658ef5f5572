"""Profiles of local users, one row per field; a change is found in the stream by its position.

https://spec.matrix.org/v1.19/client-server-api/#profiles
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """A field that was set, or removed if `value` is None; `value` is JSON."""

    user_id: UserId
    name: str
    value: str | None
    position: int


SELECT_PROFILES: Final = "SELECT user_id, name, value FROM profile_fields WHERE user_id = ANY($1) AND value IS NOT NULL"


async def list_profiles(conn: Connection, user_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """The profiles of users: by user id, the fields that are set, each as JSON."""
    profiles: dict[str, dict[str, str]] = {}
    for row in await conn.fetch(SELECT_PROFILES, list(user_ids)):
        profiles.setdefault(row["user_id"], {})[row["name"]] = row["value"]
    return profiles


SELECT_PROFILE_FIELD: Final = "SELECT value FROM profile_fields WHERE user_id = $1 AND name = $2"


async def find_field(conn: Connection, *, user_id: UserId, name: str) -> str | None:
    """A field of a profile, as JSON."""
    value: str | None = await conn.fetchval(SELECT_PROFILE_FIELD, user_id, name)
    return value


SELECT_PROFILE_SIZE: Final = """
    SELECT count(*) AS names,
        coalesce(sum(octet_length(name) + octet_length(value) + 4) FILTER (WHERE name <> $2), 0)::bigint AS size_bytes,
        coalesce(bool_or(name = $2), false) AS known
    FROM profile_fields WHERE user_id = $1
"""


@dataclass(frozen=True, slots=True)
class ProfileSize:
    """How large a profile is without one of its fields, how many names it has had, and whether that field's is one."""

    size_bytes: int
    names: int
    known: bool


async def get_size_without(conn: Connection, *, user_id: UserId, name: str) -> ProfileSize:
    """Measures a profile, leaving one field out."""
    row = await conn.fetchrow(SELECT_PROFILE_SIZE, user_id, name)
    assert row is not None, "an aggregate always returns a row"
    return ProfileSize(size_bytes=row["size_bytes"], names=row["names"], known=row["known"])


UPSERT_PROFILE_FIELDS: Final = """
    INSERT INTO profile_fields (user_id, name, value)
    SELECT $1, name, value FROM unnest($2::text[], $3::text[]) AS new(name, value) ORDER BY name
    ON CONFLICT (user_id, name) DO UPDATE SET value = excluded.value, position = stream_position()
        WHERE profile_fields.value IS DISTINCT FROM excluded.value
    RETURNING position
"""


async def upsert_fields(conn: Connection, *, user_id: UserId, values: dict[str, str]) -> int | None:
    """Sets fields to JSON values; the position of the change, or None if nothing changed."""
    position: int | None = await conn.fetchval(UPSERT_PROFILE_FIELDS, user_id, list(values), list(values.values()))
    return position


UPDATE_PROFILE_FIELDS_REMOVED: Final = """
    UPDATE profile_fields SET value = NULL, position = stream_position()
    WHERE user_id = $1 AND ($2::text IS NULL OR name = $2) AND value IS NOT NULL
    RETURNING position
"""


async def remove_fields(conn: Connection, *, user_id: UserId, name: str | None) -> int | None:
    """Removes a field, or all if `name` is None; the position of the change, or None if there was nothing to remove."""
    position: int | None = await conn.fetchval(UPDATE_PROFILE_FIELDS_REMOVED, user_id, name)
    return position


SELECT_PROFILE_CHANGES: Final = """
    SELECT user_id, name, value, position FROM profile_fields
    WHERE position >= $1 AND position < $2
    ORDER BY position, user_id, name LIMIT $3
"""


async def list_changed(conn: Connection, *, since: int, upto: int, limit: int) -> list[ProfileChange]:
    """Fields that changed from `since` on and before `upto`, in the order of their positions.

    A full list may end within a transaction; whoever reads on starts at the last position again.
    """
    return [
        ProfileChange(user_id=UserId(row["user_id"]), name=row["name"], value=row["value"], position=row["position"])
        for row in await conn.fetch(SELECT_PROFILE_CHANGES, since, upto, limit)
    ]


# For the hub's tick: whom to wake for the rows between two positions.
SELECT_PROFILE_KEYS: Final = """
    SELECT 'user:' || user_id AS key, max(position) AS position FROM profile_fields
    WHERE position >= $1 AND position < $2 GROUP BY user_id LIMIT $3
"""


SELECT_IN_PUBLIC_ROOM: Final = """
    SELECT EXISTS (
        SELECT FROM memberships m JOIN room_summaries s USING (room_nid)
        WHERE m.user_id = $1 AND m.membership = 'join'
            AND (s.join_rule = 'public' OR s.history_visibility = 'world_readable')
    )
"""


async def is_in_public_room(conn: Connection, user_id: UserId) -> bool:
    """Whether a user has joined a room that anybody may join or read: such profiles are for everybody to see."""
    return bool(await conn.fetchval(SELECT_IN_PUBLIC_ROOM, user_id))
