"""Ours and a Synapse side by side: the processor time, the bytes and the memory that the same work takes of both.

Both run at once, each with a database of its own in one PostgreSQL with all that makes it durable, without rate limits,
with presence, and with warnings alone in their logs. Each workload is done on one, then on the other, when both are at
rest. Every answer is checked: a server that does less than the other ends the measurement. CPU is that of all processes
of the server and of PostgreSQL, without what they use when idle. Federation is not measured here.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg

from bench import workloads
from bench.client import http_session
from bench.server import Meter, Place, Server, place, running_server
from bench.stage import TINY, Sizes, Stage
from bench.synapse import prepared, running
from bench.workloads import Workload
from homeserver.core.version import VERSION
from storage.embedded import POSTGRES_VERSION

STARTS: Final = 3
REST_SECONDS_MAX: Final = 10.0
OURS: Final = "ours"
SYNAPSE: Final = "synapse"
SYNAPSE_PYTHON: Final = Path(__file__).parents[1] / ".venv-synapse" / "bin" / "python"

WORKLOADS: Final[Mapping[str, tuple[str, Workload]]] = {
    "create_room": ("room", workloads.create_room),
    "send": ("message", workloads.send_messages),
    "sync_fanout": ("delivery", workloads.sync_fanout),
    "websocket_fanout": ("delivery", workloads.websocket_fanout),
    "sync_burst": ("delivery", workloads.sync_burst),
    "websocket_burst": ("delivery", workloads.websocket_burst),
    "initial_sync": ("sync", workloads.initial_sync),
    "initial_sync_lazy": ("sync", workloads.initial_sync_lazy),
    "big_join": ("join", workloads.big_join),
    "big_send": ("message", workloads.big_send),
    "big_members": ("request", workloads.big_members),
    "big_state": ("request", workloads.big_state),
    "big_fanout": ("delivery", workloads.big_fanout),
    "paginate": ("event", workloads.paginate),
}
"""Each by name, with what one operation of it is; in the order in which they are done."""

INSTEAD: Final[Mapping[str, str]] = {"websocket_fanout": "sync_fanout", "websocket_burst": "sync_burst"}
"""What only ours can do, and what it is compared with."""

_OUR_SETTINGS: Final[Mapping[str, Any]] = {"passwords": {"time_cost": 1, "memory_cost_kib": 8}}
_SYNAPSE_SETTINGS: Final[Mapping[str, Any]] = {
    "presence": {"enabled": True},
    # Its own defaults, in place of what the comparing tests want.
    "caches": {},
    "experimental_features": {},
}


@dataclass(frozen=True, slots=True)
class Options:
    """What is compared.

    Attributes:
        synapse_python: a Python that has a Synapse; None measures ours alone.
        only: names of workloads; none are all.
        sizes: how much is done.
    """

    synapse_python: Path | None
    only: Collection[str] = ()
    sizes: Sizes = field(default_factory=Sizes)


@dataclass(frozen=True, slots=True)
class Figure:
    """What one of something took of one server.

    Attributes:
        value: what is compared, in the row's measure.
        count: how many there were.
        server_ms: the server's part of the processor time.
        database_ms: PostgreSQL's part of it.
        per_second: how fast it went.
    """

    value: float
    count: int
    server_ms: float | None = None
    database_ms: float | None = None
    per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: what was measured, of one what, in which measure, and the figures by server."""

    name: str
    one: str
    measure: str
    figures: Mapping[str, Figure]

    @property
    def ratio(self) -> float | None:
        """How many times as much the other takes; None where there is nothing to compare."""
        ours, other = self.figures[OURS], self.figures.get(SYNAPSE)
        return other.value / ours.value if other is not None and ours.value > 0 else None


Starter = Callable[[], AbstractAsyncContextManager[Server]]


async def compare(where: Place, options: Options) -> list[Row]:
    """Measures everything on every server.

    Raises:
        WrongAnswer: a server did not do all that was asked of it.
    """
    starters: dict[str, tuple[str, Starter]] = {}
    if options.synapse_python is not None:
        process = await prepared(where, str(options.synapse_python), SYNAPSE, **_SYNAPSE_SETTINGS)
        starters[SYNAPSE] = (SYNAPSE, partial(running, process, where))
    starters[OURS] = ("postgres", partial(running_server, where, **_OUR_SETTINGS))
    starts = {name: await _starts(starter) for name, (_, starter) in starters.items()}
    rows = [Row("start", "start", "ms", starts)]
    async with AsyncExitStack() as stack:
        stages = {}
        for name, (database, starter) in starters.items():
            opened = _stage(where, database, starter, options.sizes)
            stages[name] = await stack.enter_async_context(opened)
        for stage in stages.values():
            await stage.meter.calibrate()
        rows.append(_memory("memory, idle", stages))
        rows += await _measure_workloads(stages, options.only)
        rows.append(_memory("memory, afterwards", stages))
    return rows


async def _starts(starter: Starter) -> Figure:
    """How long it takes to be ready with a database that has its tables."""
    seconds = []
    for _ in range(1 + STARTS):
        async with starter() as server:
            seconds.append(server.start_seconds)
    return Figure(statistics.median(seconds[1:]) * 1000, STARTS)


@asynccontextmanager
async def _stage(where: Place, database: str, starter: Starter, sizes: Sizes) -> AsyncIterator[Stage]:
    connection = await asyncpg.connect(where.url_of(database))
    try:
        async with starter() as server, http_session() as http:
            meter = Meter(server, rest_seconds_max=REST_SECONDS_MAX)
            yield Stage(server, meter, http, connection, database, sizes)
    finally:
        await connection.close()


def _memory(name: str, stages: Mapping[str, Stage]) -> Row:
    return Row(name, "server", "MiB", {key: Figure(stage.server.resident_mib(), 1) for key, stage in stages.items()})


async def _measure_workloads(stages: Mapping[str, Stage], only: Collection[str]) -> list[Row]:
    rows: list[Row] = []
    of_synapse: dict[str, Figure] = {}
    for name, (one, workload) in WORKLOADS.items():
        if only and name not in only:
            continue
        figures, stored = {}, {}
        for server, stage in stages.items():
            if server == SYNAPSE and name in INSTEAD:
                if INSTEAD[name] in of_synapse:
                    figures[server] = of_synapse[INSTEAD[name]]
                continue
            print(f"{name} on {server} ...", file=sys.stderr)
            figures[server], stored[server] = await _measure(stage, workload)
        if SYNAPSE in stored:
            of_synapse[name] = figures[SYNAPSE]
        rows.append(Row(name, one, "CPU ms", figures))
        if name == "send":
            for index, label in enumerate(("send, log", "send, database")):
                rows.append(Row(label, one, "bytes", {server: both[index] for server, both in stored.items()}))
    return rows


async def _measure(stage: Stage, workload: Workload) -> tuple[Figure, tuple[Figure, Figure]]:
    """The processor time of one operation, and the bytes it adds to the write-ahead log and to the database."""
    count = await workload(stage)
    cost = stage.cost
    assert cost is not None, "it has measured nothing"
    cpu = cost.cpu * (1000 / count)
    return (
        Figure(cpu.total, count, cpu.server, cpu.database, count / cost.seconds),
        (Figure(cost.wal_bytes / count, count), Figure(cost.database_bytes / count, count)),
    )


def table(rows: Sequence[Row]) -> list[str]:
    """The rows for people: in brackets PostgreSQL's part of the processor time."""
    heads = ("workload", "one", "n", "in", "Synapse", "ours", "ratio", "Synapse/s", "ours/s")
    lines = [f"{heads[0]:<20}{heads[1]:<10}{heads[2]:>6}  {heads[3]:<8}{heads[4]:>22}{heads[5]:>20}"]
    lines[0] += f"{heads[6]:>8}{heads[7]:>11}{heads[8]:>9}"
    for row in rows:
        ours, other = row.figures[OURS], row.figures.get(SYNAPSE)
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}"
        lines.append(
            f"{row.name:<20}{row.one:<10}{ours.count:>6}  {row.measure:<8}{_shown(other):>22}{_shown(ours):>20}"
            f"{ratio:>8}{_shown_rate(other):>11}{_shown_rate(ours):>9}".rstrip()
        )
    return lines


def _shown(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.database_ms is None:
        return f"{figure.value:,.0f}"
    return f"{figure.value:,.2f} ({figure.database_ms:,.2f})"


def _shown_rate(figure: Figure | None) -> str:
    return "" if figure is None or figure.per_second is None else f"{figure.per_second:,.1f}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be chosen on the command line."""
    parser.add_argument("--ours", action="store_true", help="this server alone")
    parser.add_argument("--tiny", action="store_true", help="very little of everything: are all answers right?")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=WORKLOADS, default=[], help=", ".join(WORKLOADS))
    text = "a Python that has matrix-synapse[postgres] (default that of .venv-synapse)"
    parser.add_argument("--synapse-python", type=Path, metavar="PYTHON", default=SYNAPSE_PYTHON, help=text)
    for size in fields(Sizes):
        kind: Any = type(size.default)
        text = f"{size.metadata['help']} (default {size.default})"
        parser.add_argument(f"--{size.name.replace('_', '-')}", type=kind, metavar="N", help=text)


def _synapse_version(python: Path) -> str | None:
    if not python.exists():
        return None
    command = [str(python), "-c", "import psycopg2, synapse; print(synapse.__version__)"]
    asked = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return asked.stdout.split()[0] if asked.returncode == 0 else None


def options_of(found: argparse.Namespace) -> Options:
    """The options that the command line chose.

    Raises:
        SystemExit: there is no Synapse, or nothing to do.
    """
    given = {size.name: getattr(found, size.name) for size in fields(Sizes)}
    if any(value is not None and value <= 0 for value in given.values()):
        raise SystemExit("A size is more than 0")
    sizes = replace(TINY if found.tiny else Sizes(), **{name: n for name, n in given.items() if n is not None})
    if not found.ours and _synapse_version(found.synapse_python) is None:
        raise SystemExit(
            f"There is no Synapse to compare with: {found.synapse_python} has none. `make .venv-synapse/.made` "
            "installs one; --synapse-python names another; --ours measures this server alone."
        )
    return Options(None if found.ours else found.synapse_python.absolute(), found.only, sizes)


def about(options: Options) -> dict[str, Any]:
    """What must be known of a run to compare it with another: when, where, of what, and how much."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} processors, {platform.platform()}",
        "load": round(os.getloadavg()[0], 1),
        "heliograph": VERSION,
        "synapse": None if options.synapse_python is None else _synapse_version(options.synapse_python),
        "postgresql": POSTGRES_VERSION,
        "sizes": asdict(options.sizes),
    }


def run(options: Options, *, as_json: bool) -> None:
    """Measures and prints."""
    known = about(options)
    with place() as where:
        rows = asyncio.run(compare(where, options))
    if as_json:
        print(json.dumps({**known, "rows": [{**asdict(row), "ratio": row.ratio} for row in rows]}, indent=2))
        return
    print("\n".join(f"{name}: {value}" for name, value in known.items() if name != "sizes"))
    print("\n".join(["", *table(rows)]))
