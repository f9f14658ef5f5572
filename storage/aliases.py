"""The aliases of this server's part of the room directory."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import RoomAlias, RoomId, UserId
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class AliasRow:
    """An alias, where it points to, and who made it."""

    alias: RoomAlias
    room_id: RoomId
    creator: UserId


SELECT_ALIAS: Final = "SELECT alias, room_id, creator FROM room_aliases WHERE alias = $1"


async def find_alias(conn: Connection, alias: RoomAlias) -> AliasRow | None:
    """An alias of this server; None if there is no such alias."""
    row = await conn.fetchrow(SELECT_ALIAS, alias)
    return None if row is None else AliasRow(alias, RoomId(row["room_id"]), UserId(row["creator"]))


SELECT_ALIASES: Final = "SELECT alias, room_id FROM room_aliases WHERE alias = ANY ($1::text[])"


async def find_rooms_of_aliases(conn: Connection, aliases: Collection[RoomAlias]) -> dict[RoomAlias, RoomId]:
    """Where aliases of this server point to; those that do not exist are absent."""
    rows = await conn.fetch(SELECT_ALIASES, list(aliases))
    return {RoomAlias(row["alias"]): RoomId(row["room_id"]) for row in rows}


SELECT_ALIASES_OF_ROOM: Final = "SELECT alias FROM room_aliases WHERE room_id = $1 ORDER BY created_ts, alias"


async def list_aliases_of_room(conn: Connection, room_id: RoomId) -> list[RoomAlias]:
    """The aliases of this server that point to a room, the oldest first."""
    return [RoomAlias(row["alias"]) for row in await conn.fetch(SELECT_ALIASES_OF_ROOM, room_id)]


INSERT_ALIAS: Final = """
    INSERT INTO room_aliases (alias, room_id, creator, created_ts) VALUES ($1, $2, $3, $4)
    ON CONFLICT (alias) DO NOTHING
    RETURNING true
"""


async def insert_alias(
    conn: Connection, alias: RoomAlias, *, room_id: RoomId, creator: UserId, created_ts: int
) -> bool:
    """Makes an alias; False if there is one of that name already."""
    return bool(await conn.fetchval(INSERT_ALIAS, alias, room_id, creator, created_ts))


DELETE_ALIAS: Final = "DELETE FROM room_aliases WHERE alias = $1 RETURNING true"


async def delete_alias(conn: Connection, alias: RoomAlias) -> bool:
    """Removes an alias; False if there was none."""
    return bool(await conn.fetchval(DELETE_ALIAS, alias))


UPDATE_ALIASES_OF_ROOM: Final = "UPDATE room_aliases SET room_id = $2 WHERE room_id = $1 RETURNING alias"


async def move_aliases(conn: Connection, *, from_room_id: RoomId, to_room_id: RoomId) -> list[RoomAlias]:
    """Points all aliases of a room to another; returns them."""
    return [RoomAlias(row["alias"]) for row in await conn.fetch(UPDATE_ALIASES_OF_ROOM, from_room_id, to_room_id)]
