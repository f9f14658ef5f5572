"""The dashboard, the alerts and docs/operations.md name nothing that a server does not tell."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import REGISTRY, Gauge

from homeserver.core.clock import Clock
from homeserver.runtime.vital_signs import VitalSigns
from storage.database import Database
from storage.leases import acquire_leases, new_holder
from tests.api.server import composed_server
from tests.fast_clock import FastClock

TOP = Path(__file__).parents[2]
DASHBOARD = TOP / "deploy" / "grafana" / "heliograph.json"
ALERTS = TOP / "deploy" / "prometheus" / "alerts.yaml"

_METRIC = re.compile(r"\b(heliograph_[a-z0-9_]+)(?:\{([^}]*)\})?")
_GROUPING = re.compile(r"\bby \(([^)]*)\)")
# What Prometheus or the library adds.
_LABELS_OF_ALL = {"job", "instance", "pid", "le"}
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def panels() -> Iterator[Any]:
    return (panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row")


def alerts() -> list[Any]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def expressions() -> list[str]:
    return [
        *(target["expr"] for panel in panels() for target in panel["targets"]),
        *(alert["expr"] for alert in alerts()),
    ]


def labels_by_metric() -> dict[str, set[str]]:
    """The names that can be asked for of this process, each with its labels."""
    found: dict[str, set[str]] = {}
    for collector in REGISTRY._collector_to_names:
        for family in collector.describe() if hasattr(collector, "describe") else ():
            for suffix in _SUFFIXES.get(family.type, ("",)):
                found[family.name + suffix] = set(getattr(collector, "_labelnames", ()))
    return found


def mistakes(expression: str, known: dict[str, set[str]]) -> Iterator[str]:
    """What an expression asks for that is not told."""
    labels = {*_LABELS_OF_ALL}
    for name, selection in _METRIC.findall(expression):
        labels |= known.get(name, set())
        selected = set(re.findall(r"([a-z_]+)\s*[=!]", selection))
        if name not in known:
            yield f"there is no {name}"
        elif not selected <= known[name] | _LABELS_OF_ALL:
            yield f"{name} has no {selected - known[name]}"
        if "job" not in selected:
            yield f"{name} of all servers is added up"
    for grouping in _GROUPING.findall(expression):
        if not set(re.split(r",\s*", grouping)) <= labels:
            yield f"nothing has all of {grouping}"
    if expression.count("(") != expression.count(")"):
        yield "brackets are open"


async def test_expressions_ask_for_what_a_composed_server_tells(database_url: str) -> None:
    async with composed_server(database_url):
        known = labels_by_metric()
    found = {expression: list(mistakes(expression, known)) for expression in expressions()}
    assert len(found) > 60
    assert {expression: wrong for expression, wrong in found.items() if wrong} == {}


def test_mistakes_are_found() -> None:
    known = {"heliograph_one_total": {"kind"}}
    assert list(mistakes('sum by (kind) (rate(heliograph_one_total{job="a", kind=~"b"}[5m]))', known)) == []
    for wrong in (
        'heliograph_two{job="a"}',
        'heliograph_one_total{job="a", sort="b"}',
        "heliograph_one_total",
        'sum by (sort) (heliograph_one_total{job="a"})',
        'sum(heliograph_one_total{job="a"}',
    ):
        assert len(list(mistakes(wrong, known))) == 1, wrong


async def test_workers_that_have_ended_count_no_more(database_url: str) -> None:
    async with composed_server(database_url):
        gauges = [one for one in REGISTRY._collector_to_names if isinstance(one, Gauge)]
    ours = [gauge for gauge in gauges if gauge._name.startswith("heliograph_")]
    assert len(ours) > 15
    assert [gauge._name for gauge in ours if not gauge._multiprocess_mode.startswith("live")] == []


async def test_the_documents_name_what_there_is(database_url: str) -> None:
    async with composed_server(database_url):
        known = labels_by_metric()
    text = (TOP / "docs" / "operations.md").read_text() + (TOP / "docs" / "federation.md").read_text()
    named = set(re.findall(r"`(heliograph_[a-z0-9_]+)`", text))
    assert len(named) > 10
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in known}
    assert named - families == set()


def test_panels_have_titles_and_places_of_their_own() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    titles = [panel["title"] for panel in panels()]
    assert len(set(places)) == len(places)
    assert len(set(titles)) == len(titles) > 20


def test_alerts_say_what_is_wrong() -> None:
    names = [alert["alert"] for alert in alerts()]
    assert len(set(names)) == len(names) > 8
    for alert in alerts():
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert re.fullmatch(r"\d+m", alert["for"])
        assert alert["annotations"]["summary"].endswith((".", "?"))


async def test_vital_signs_are_told(database_url: str) -> None:
    clock: Clock = FastClock()
    async with Database(database_url) as db, db.connection() as conn:
        await acquire_leases(conn, ["one", "two"], holder=new_holder(), duration_ms=60_000)
        await acquire_leases(conn, ["three"], holder="another:holder", duration_ms=60_000)
        await VitalSigns(db=db, clock=clock).beat()
    values = {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith("heliograph_")
    }
    assert values["heliograph_leases_held"] == 2
    assert values["heliograph_process_cpu_seconds"] > 0
    assert values["heliograph_process_resident_bytes"] > 10_000_000
    assert values["heliograph_process_open_files"] > 3
    assert values["heliograph_database_pool_connectionsin_use"] == 1
    assert values["heliograph_event_loop_lag_seconds_count"] >= 1
    assert values["heliograph_cache_budget_bytes"] > 0
