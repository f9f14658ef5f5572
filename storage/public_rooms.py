"""Listing the rooms of the public directory, in a stable order: the largest first, then by their ids."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import RoomId
from storage.database import Connection
from storage.room_summaries import RoomSummaryRow, room_summary


@dataclass(frozen=True, slots=True)
class ListPoint:
    """A point in the list: a room that stands there, by what orders it."""

    joined_members: int
    room_id: str


@dataclass(frozen=True, slots=True)
class PublicRoomsFilter:
    """Which rooms of the directory are wanted.

    Attributes:
        words: each must stand in the name, the topic or the canonical alias, in either case.
        room_types: the wanted types of rooms, where None stands for rooms without a type; None for all.
        all_networks: rooms that an application service has published count too.
        appservice_id: the application service whose network is wanted; empty for this server's own list.
        network_id: that network.
    """

    words: Sequence[str] = ()
    room_types: Sequence[str | None] | None = None
    all_networks: bool = False
    appservice_id: str = ""
    network_id: str = ""


# A room that has been closed since it was published is not told about any more.
_LISTED: Final = """
    FROM rooms r JOIN room_summaries s USING (room_nid)
    WHERE EXISTS (
            SELECT FROM published_rooms p
            WHERE p.room_id = r.room_id AND ($1 OR (p.appservice_id = $2 AND p.network_id = $3))
        )
        AND s.local_joined_members > 0
        AND (s.join_rule IN ('public', 'knock', 'knock_restricted') OR s.history_visibility = 'world_readable')
"""
_WANTED: Final = """
        AND NOT EXISTS (
            SELECT FROM unnest($4::text[]) AS word
            WHERE strpos(lower(concat_ws(' ', s.name, s.topic, s.canonical_alias)), lower(word)) = 0
        )
        AND ($5::text[] IS NULL OR s.room_type = ANY ($5) OR (s.room_type IS NULL AND $6))
"""
SELECT_PUBLIC_ROOMS_AFTER: Final = f"""
    SELECT r.room_id, r.room_version, s.* {_LISTED} {_WANTED}
        AND ($7::integer IS NULL OR s.joined_members < $7 OR (s.joined_members = $7 AND r.room_id > $8))
    ORDER BY s.joined_members DESC, r.room_id
    LIMIT $9
"""
SELECT_PUBLIC_ROOMS_BEFORE: Final = f"""
    SELECT r.room_id, r.room_version, s.* {_LISTED} {_WANTED}
        AND ($7::integer IS NULL OR s.joined_members > $7 OR (s.joined_members = $7 AND r.room_id < $8))
    ORDER BY s.joined_members, r.room_id DESC
    LIMIT $9
"""


async def list_public_rooms(
    conn: Connection, room_filter: PublicRoomsFilter, *, point: ListPoint | None, backwards: bool, limit: int
) -> list[RoomSummaryRow]:
    """The next rooms of the list behind a point, or before it, the closest first; None for the list's beginning."""
    types = room_filter.room_types
    rows = await conn.fetch(
        SELECT_PUBLIC_ROOMS_BEFORE if backwards else SELECT_PUBLIC_ROOMS_AFTER,
        room_filter.all_networks,
        room_filter.appservice_id,
        room_filter.network_id,
        list(room_filter.words),
        None if types is None else [each for each in types if each is not None],
        types is not None and None in types,
        None if point is None else point.joined_members,
        None if point is None else point.room_id,
        limit,
    )
    return [room_summary(row) for row in rows]


SELECT_PUBLIC_ROOM_COUNT: Final = f"SELECT count(*) {_LISTED}"


async def count_public_rooms(conn: Connection, room_filter: PublicRoomsFilter) -> int:
    """How many rooms the list has, whatever words and types are wanted."""
    return int(
        await conn.fetchval(
            SELECT_PUBLIC_ROOM_COUNT, room_filter.all_networks, room_filter.appservice_id, room_filter.network_id
        )
    )


SELECT_PUBLISHED_AMONG: Final = """
    SELECT room_id FROM published_rooms WHERE room_id = ANY ($1::text[]) AND appservice_id = ''
"""


async def list_published(conn: Connection, room_ids: Collection[RoomId]) -> set[str]:
    """Those of some rooms that this server's own list has."""
    return {row["room_id"] for row in await conn.fetch(SELECT_PUBLISHED_AMONG, list(room_ids))}
