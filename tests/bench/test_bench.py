"""`python -m bench`: what it measures of a tiny server, and that nothing is left of it."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench import server
from bench.__main__ import main
from bench.growth import OPERATIONS, Measured, Scene, exponent, report, table
from bench.server import Cpu
from homeserver.core.ids import RoomId


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the benchmarks make their folders."""
    top = Path(tempfile.mkdtemp(prefix="heliograph-runtime-"))
    monkeypatch.setattr(tempfile, "tempdir", str(top))
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    yield top
    shutil.rmtree(top, ignore_errors=True)


def measured(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What a benchmark has found, if it left nothing behind."""
    main(["--json", *words])
    assert list(folder.iterdir()) == []
    running = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not [words for words in running if any(str(folder) in word for word in words)]
    return json.loads(capsys.readouterr().out)


def test_growth_of_a_tiny_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--members", "3,6", "--events", "4", "--rooms", "2")
    entries = measured(folder, capsys, "growth", *sizes, "--repeats", "2")
    found = {(entry["dimension"], entry["size"], entry["operation"]): entry for entry in entries}
    scenes = (("members", 3), ("members", 6), ("events", 4), ("rooms", 2))
    assert set(found) == {(*scene, operation) for scene in scenes for operation in OPERATIONS}
    assert all(entry["server_ms"] > 0 for entry in entries)
    assert all((entry["exponent"] is None) == (entry["size"] != 6) for entry in entries)


def test_delivery_by_a_tiny_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    polled, pushed = measured(folder, capsys, "delivery", "--readers", "3", "--events", "4")
    assert (polled["transport"], pushed["transport"]) == ("long poll", "WebSocket")
    assert polled["server_ms"] > 0
    assert pushed["server_ms"] > 0


def test_speed_of_a_tiny_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speeds = measured(folder, capsys, "speed", "--users", "2", "--messages", "4", "--senders", "2")
    assert [speed["name"] for speed in speeds] == [
        "register",
        "join",
        "first sync",
        "send a message",
        "incremental sync",
        "sync without news",
    ]
    assert all(speed["server_ms"] > 0 for speed in speeds)


@pytest.mark.parametrize(
    ("smaller", "larger", "growth"),
    [((10, 1.0), (1000, 1.0), 0.0), ((10, 1.0), (100, 10.0), 1.0), ((10, 2.0), (100, 200.0), 2.0)],
)
def test_an_exponent(smaller: tuple[int, float], larger: tuple[int, float], growth: float) -> None:
    assert exponent(smaller, larger) == pytest.approx(growth)


def test_what_is_not_flat_is_marked() -> None:
    def scene(size: int, seconds: float) -> Measured:
        costs = {operation: Cpu(0.001, 0.001) for operation in OPERATIONS} | {"join": Cpu(seconds, 0)}
        return Measured(Scene("members", size, RoomId("!a:b"), "bob"), costs)

    entries = report([scene(100, 0.02), scene(10, 0.002)])
    (grown,) = (entry for entry in entries if entry["exponent"])
    assert (grown["operation"], grown["size"], grown["exponent"]) == ("join", 100, 1.0)
    assert [line.endswith("not flat") for line in table(entries)].count(True) == 1


def test_a_size_of_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["growth", "--members", "1"])
    assert "at least 2" in capsys.readouterr().err
