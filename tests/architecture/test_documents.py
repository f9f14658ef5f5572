"""That the documents in docs/ say what the code says, as far as a machine can see it."""

import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from homeserver.cli import main
from homeserver.config.schema import Config
from homeserver.core.ids import ServerName
from storage.migrate import Migration
from storage.schema_reference import list_tables

TOP = Path(__file__).parents[2]
DOCUMENTS = [TOP / "README.md", TOP / "CHANGELOG.md", *sorted((TOP / "docs").glob("*.md"))]
CODE = ("homeserver", "client_api", "federation", "storage", "tests", "synapse_compat_tests", "bench", "examples")

# What a value's unit means, in the unit that the end of a constant's name says (nothing: a count).
UNITS = {
    "": {"": 1},
    "BYTES": {"B": 1, "KiB": 1024, "MiB": 1024**2},
    "MS": {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "day": 86_400_000, "days": 86_400_000},
    "SECONDS": {"s": 1, "min": 60, "h": 3600, "day": 86_400, "days": 86_400},
}


def label(path: Path) -> str:
    return str(path.relative_to(TOP))


def test_the_schema_reference_is_current() -> None:
    written = CliRunner().invoke(main, ["db", "schema-reference"]).output
    assert (TOP / "docs" / "schema.md").read_text() == written, "make docs"


def test_every_table_says_what_it_is_for_and_what_bounds_it() -> None:
    tables = list_tables()
    assert len(tables) > 50
    assert [table.name for table in tables if not table.purpose or not table.bound] == []


def test_the_schema_reference_follows_the_migrations() -> None:
    first = "CREATE TABLE a (\n);\nCOMMENT ON TABLE a IS\n    'What it''s for.\n    Bound: b.';\n"
    first += "CREATE UNLOGGED TABLE b ();"
    second = "DROP TABLE b;\nCREATE TABLE c ();\nCOMMENT ON TABLE a IS 'Else. Bound: d.';\nCOMMENT ON TABLE c IS 'C.';"
    migrations = [Migration(version=1, name="x", up=first, down=""), Migration(version=2, name="y", up=second, down="")]
    one, unlogged = list_tables(migrations[:1])
    assert (one.name, one.migration, one.purpose, one.bound) == ("a", "0001_x", "What it's for.", "b.")
    assert (unlogged.name, unlogged.is_unlogged, unlogged.comment) == ("b", True, "")
    both = [(table.name, table.migration, table.purpose, table.bound) for table in list_tables(migrations)]
    assert both == [("a", "0001_x", "Else.", "d."), ("c", "0002_y", "C.", "")]


def limits() -> Iterator[tuple[str, str, str]]:
    """The rows of the tables of limits in docs/federation.md: what, how much, and where it is set."""
    text = (TOP / "docs" / "federation.md").read_text()
    for line in text[text.index("\n## Limits\n") :].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and cells[0] not in ("limit", "---"):
            yield cells[0], cells[1], cells[2]


def test_there_are_limits() -> None:
    assert len(list(limits())) > 100


@pytest.mark.parametrize(("what", "value", "where"), list(limits()))
def test_a_limit_is_that_of_the_code(what: str, value: str, where: str) -> None:
    setting = re.fullmatch(r"`([a-z_.]+)` in the configuration", where)
    if setting is not None:
        default: Any = Config(server_name=ServerName.parse("example.org"))
        for name in setting[1].split("."):
            default = getattr(default, name)
        assert _number(value, unit="") == default, what
        return
    constant = re.fullmatch(r"`([a-z0-9_/]+)\.py` `([A-Za-z0-9_.]+)`", where)
    assert constant is not None, where
    found: Any = importlib.import_module(constant[1].replace("/", "."))
    for name in constant[2].split("."):
        defaults = {field.name: field.default for field in dataclasses.fields(found)} if _is_dataclass(found) else {}
        found = defaults[name] if name in defaults else getattr(found, name)
    if isinstance(found, str):
        assert f"interval '{value}'" in found, what  # set by the statement itself
        return
    unit = next((unit for unit in UNITS if unit and unit in re.split(r"[_.]", constant[2].upper())), "")
    assert _number(value, unit=unit) == pytest.approx(found), what


def _is_dataclass(value: Any) -> bool:
    """Whether something is a class whose fields have defaults, not one of its instances."""
    return isinstance(value, type) and dataclasses.is_dataclass(value)


def _number(text: str, *, unit: str) -> float:
    """A value such as `16 MiB` in a unit such as bytes."""
    amount, _, suffix = text.partition(" ")
    return float(amount.replace(",", "")) * UNITS[unit][suffix]


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_what_a_document_points_to_is_there(path: Path) -> None:
    """Its links, the files that it names, and the places that it links to within documents."""
    text = path.read_text()
    lost = []
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)\s]*)?\)", text):
        if target and "://" not in target and not (path.parent / target).exists():
            lost.append(target)
    for name in re.findall(r"`([\w/]+\.(?:py|sql|md|yaml|service))`", text):
        if not _is_file(name):
            lost.append(name)
    for document, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", text):
        headings = re.findall(r"^#+ (.*)$", ((path.parent / document) if document else path).read_text(), re.MULTILINE)
        if anchor not in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}:
            lost.append(f"{document}#{anchor}")
    assert not lost, f"{label(path)} points to what is not there: {', '.join(lost)}"


def _is_file(name: str) -> bool:
    """Whether there is a file of this path, or one whose path ends so."""
    return (TOP / name).exists() or any(next((TOP / folder).glob(f"**/{name}"), None) for folder in CODE)


def test_no_word_is_explained_twice() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|", (TOP / "docs" / "glossary.md").read_text(), re.MULTILINE)
    words = [row for row in rows if row not in ("word", "---")]
    assert len(words) > 20
    assert sorted(words) == sorted(set(words))


def test_every_metric_of_federation_is_told_to_operators() -> None:
    """Whoever looks for a metric by the name in the document finds it, and the other way round."""
    text = (TOP / "docs" / "federation.md").read_text()
    told = {name.removesuffix("_total") for name in re.findall(r"`(heliograph_[a-z_]+)`", text)}
    code = "\n".join(path.read_text() for path in sorted((TOP / "federation").rglob("*.py")))
    assert set(re.findall(r'"(heliograph_[a-z_]+)"', code)) <= told
    everywhere = code + "\n".join(path.read_text() for folder in CODE[:4] for path in (TOP / folder).rglob("*.py"))
    assert {name for name in told if f'"{name}"' not in everywhere} == set()


def test_every_setting_of_federation_is_explained() -> None:
    text = (TOP / "docs" / "federation.md").read_text()
    names = {field.name for field in dataclasses.fields(Config(server_name=ServerName.parse("a.b")).federation)}
    assert {name for name in names if not re.search(rf"`federation\.{name}\b", text)} == set()
