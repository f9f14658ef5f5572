"""What `homeserver db size` tells: how much space the database takes, by table and by room."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from homeserver.config.schema import Config
from storage.database import Database
from storage.errors import DatabaseError
from storage.migrate import status
from storage.sizes import RoomSize, TableSize, list_largest_rooms, list_table_sizes, read_database_bytes

_TABLE_COLUMNS: Final = ("TABLE", "TOTAL", "HEAP", "INDEXES", "TOAST", "LIVE ROWS", "DEAD ROWS")
_ROOM_COLUMNS: Final = ("ROOM", "TOTAL", "EVENTS", "EVENT BYTES", "STATE BYTES", "MEDIA", "NAME")
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class SizeReport:
    """The space of the whole database in bytes, of each table, and of the largest rooms."""

    total_bytes: int
    tables: Sequence[TableSize]
    rooms: Sequence[RoomSize]

    def lines(self) -> list[str]:
        """Two tables for people."""
        tables = [
            (
                one.table,
                _amount(one.total_bytes),
                _amount(one.heap_bytes),
                _amount(one.index_bytes),
                _amount(one.toast_bytes),
                str(one.live_rows),
                str(one.dead_rows),
            )
            for one in self.tables
        ]
        rooms = [
            (
                one.room_id,
                _amount(one.event_bytes + one.state_bytes),
                str(one.events),
                _amount(one.event_bytes),
                _amount(one.state_bytes),
                _amount(one.media_bytes),
                _printable(one.name or ""),
            )
            for one in self.rooms
        ]
        return [
            f"The database takes {_amount(self.total_bytes)}",
            "",
            *_aligned(_TABLE_COLUMNS, tables),
            *(["", "The largest rooms, estimated", "", *_aligned(_ROOM_COLUMNS, rooms)] if rooms else []),
        ]

    def json(self) -> dict[str, Any]:
        """The same for machines; sizes in bytes."""
        return {
            "total_bytes": self.total_bytes,
            "tables": [{**asdict(one), "total_bytes": one.total_bytes} for one in self.tables],
            "rooms": [asdict(one) for one in self.rooms],
        }


async def database_size(config: Config, *, rooms_max: int) -> SizeReport:
    """Reads it, and changes nothing.

    Raises:
        DatabaseError: the database is away, or its schema is not that of this program.
    """
    found = await status(config.database.url)
    if found.pending or found.unknown:
        raise DatabaseError("The schema is not that of this program: see `homeserver db status`")
    async with Database(config.database.url, config.database) as db, db.connection() as conn:
        return SizeReport(
            total_bytes=await read_database_bytes(conn),
            tables=await list_table_sizes(conn),
            rooms=await list_largest_rooms(conn, limit=rooms_max) if rooms_max else (),
        )


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in (columns, *rows)) for column in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    ]


def _amount(size_bytes: float) -> str:
    """A size in the unit that suits it."""
    unit = 0
    while size_bytes >= 1024 and unit < len(_UNITS) - 1:
        size_bytes /= 1024
        unit += 1
    return f"{size_bytes:.0f} {_UNITS[unit]}" if unit == 0 else f"{size_bytes:.1f} {_UNITS[unit]}"


def _printable(name: str) -> str:
    """A name that somebody else has chosen, so that it cannot confuse a terminal."""
    return "".join(character if character.isprintable() else "?" for character in name)[:60]
