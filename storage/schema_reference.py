"""docs/schema.md: what each table is for, what bounds it and what removes its rows, as the migrations say themselves.

Only their text is read, so no database is needed. A table that a later migration drops is left out, and of several
comments on one table the last counts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from storage.migrate import Migration, load_migrations

BOUND: Final = "Bound:"
"""What stands in the comment of a table between what the table is for and what bounds it."""

_HEAD: Final = f"""\
# Schema

<!-- Made from the comments in storage/migrations/ by `make docs`. -->

The tables, by the migration that made them. Each comment stands in the database too (`\\dt+` in psql). What is behind
“{BOUND}” there tells how many rows there can be, and what removes them. `schema_migrations` lists the migrations that
have been applied.

Rooms cannot be deleted yet, and history is neither purged nor limited by age: what is said to be swept by that stays.
"""

_STATEMENT: Final = re.compile(
    r"^CREATE (?P<unlogged>UNLOGGED )?TABLE (?P<created>\w+)"
    r"|^DROP TABLE (?:IF EXISTS )?(?P<dropped>\w+)"
    r"|^COMMENT ON TABLE (?P<commented>\w+) IS\s+'(?P<comment>(?:[^']|'')*)'",
    re.MULTILINE,
)


@dataclass(slots=True)
class TableReference:
    """What the migrations say of a table.

    Attributes:
        migration: the migration that made it, such as `0003_rooms`.
        comment: all of it; empty if there is none.
        is_unlogged: it is empty after a crash of the database.
    """

    name: str
    migration: str
    comment: str = ""
    is_unlogged: bool = False

    @property
    def purpose(self) -> str:
        """What it is for."""
        return self.comment.partition(BOUND)[0].strip()

    @property
    def bound(self) -> str:
        """What bounds it, and what removes its rows."""
        return self.comment.partition(BOUND)[2].strip()


def list_tables(migrations: Sequence[Migration] | None = None) -> list[TableReference]:
    """The tables that all migrations together leave, in the order in which they are made."""
    tables: dict[str, TableReference] = {}
    for migration in load_migrations() if migrations is None else migrations:
        for found in _STATEMENT.finditer(migration.up):
            if found["created"] is not None:
                tables[found["created"]] = TableReference(
                    name=found["created"],
                    migration=f"{migration.version:04}_{migration.name}",
                    is_unlogged=found["unlogged"] is not None,
                )
            elif found["dropped"] is not None:
                tables.pop(found["dropped"], None)
            elif found["commented"] in tables:
                tables[found["commented"]].comment = " ".join(found["comment"].replace("''", "'").split())
    return list(tables.values())


def schema_markdown() -> str:
    """The document."""
    parts = [_HEAD]
    migration = None
    for table in list_tables():
        if table.migration != migration:
            migration = table.migration
            parts.append(f"\n## {migration}\n\n| table | what it is for | bound |\n|---|---|---|\n")
        purpose = f"{table.purpose} Empty after a crash of the database." if table.is_unlogged else table.purpose
        parts.append(f"| `{table.name}` | {_cell(purpose)} | {_cell(table.bound)} |\n")
    return "".join(parts)


def _cell(text: str) -> str:
    """A text as it stands in a cell: it begins with a capital letter, and holds nothing that would end the cell."""
    return (text[:1].upper() + text[1:]).replace("|", "\\|")
