"""`python -m bench compare`: tiny sizes of every workload on this server alone, and what counts as a wrong answer."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import aiohttp
import pytest

from bench import compare, server
from bench.__main__ import main
from bench.client import Client
from bench.compare import OURS, SYNAPSE, WORKLOADS, Figure, Row, options_of, table
from bench.followers import Follower, Room, Sent, WrongAnswer, check_deliveries
from bench.stage import TINY


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the benchmark makes its folder; it does not wait long for anything to come to rest."""
    top = Path(tempfile.mkdtemp(prefix="heliograph-runtime-"))
    monkeypatch.setattr(tempfile, "tempdir", str(top))
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(compare, "REST_SECONDS_MAX", 0.0)
    monkeypatch.setattr(compare, "STARTS", 1)
    yield top
    shutil.rmtree(top, ignore_errors=True)


def test_every_workload_is_measured_and_its_answers_are_right(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json", "compare", "--ours", "--tiny"])
    assert list(folder.iterdir()) == []
    found = json.loads(capsys.readouterr().out)
    assert (found["synapse"], found["sizes"]["messages"]) == (None, TINY.messages)
    rows = {row["name"]: row for row in found["rows"]}
    stored = ("send, log", "send, database")
    assert set(rows) == {*WORKLOADS, *stored, "start", "memory, idle", "memory, afterwards"}
    counts = {name: row["figures"][OURS]["count"] for name, row in rows.items()}
    assert counts["create_room"] == TINY.rooms
    assert counts["send"] == TINY.messages
    # Everybody is in two of three rooms: these have 3, 3 and 2 members, who are told in turn.
    assert counts["sync_fanout"] == counts["websocket_fanout"] == 3 + 3 + 2 + 3
    assert counts["sync_burst"] == counts["websocket_burst"] == 2 * (3 + 3 + 2)
    assert counts["big_join"] == TINY.big_members
    assert counts["big_fanout"] == TINY.big_fanout_messages * TINY.big_readers
    assert counts["paginate"] > TINY.messages
    assert all(row["ratio"] is None for row in rows.values())
    assert all(rows[name]["figures"][OURS]["server_ms"] > 0 for name in ("send", "create_room", "big_join"))
    assert rows["send, log"]["figures"][OURS]["value"] > 0


def test_a_table_has_both_servers_and_their_ratio() -> None:
    rows = [
        Row(
            "send",
            "message",
            "CPU ms",
            {SYNAPSE: Figure(30.0, 400, 20.0, 10.0, 35.0), OURS: Figure(1.5, 400, 1, 0.5, 900)},
        ),
        Row("websocket_burst", "delivery", "CPU ms", {OURS: Figure(0.25, 800, 0.2, 0.05, 4000.0)}),
    ]
    _, send, socket = table(rows)
    assert send.split() == [
        "send",
        "message",
        "400",
        "CPU",
        "ms",
        "30.00",
        "(10.00)",
        "1.50",
        "(0.50)",
        "20.0",
        "35.0",
        "900.0",
    ]
    assert socket.split() == ["websocket_burst", "delivery", "800", "CPU", "ms", "0.25", "(0.05)", "4,000.0"]


def options(*words: str) -> compare.Options:
    parser = argparse.ArgumentParser()
    compare.add_options(parser)
    return options_of(parser.parse_args(words))


def test_sizes_given_take_the_place_of_those_of_a_tiny_run() -> None:
    chosen = options("--ours", "--tiny", "--messages", "7", "--fanout-per-second", "0.5")
    assert (chosen.sizes.messages, chosen.sizes.fanout_per_second, chosen.sizes.rooms) == (7, 0.5, TINY.rooms)


def test_without_a_synapse_the_way_to_one_is_told(tmp_path: Path) -> None:
    # This server's own Python has everything but that.
    for python in (str(tmp_path / "python"), sys.executable):
        with pytest.raises(SystemExit, match=r"make \.venv-synapse/\.made"):
            options("--synapse-python", python)


def test_a_size_of_nothing_is_refused() -> None:
    with pytest.raises(SystemExit, match="more than 0"):
        options("--ours", "--messages", "0")


ONE = Sent("!a", "$1", began=1.0, answered=2.0)
TWO = Sent("!a", "$2", began=3.0, answered=4.0)
AT_THE_SAME_TIME = Sent("!a", "$3", began=1.5, answered=3.5)


async def followers(*arrivals: Mapping[str, Sequence[str]]) -> list[Follower]:
    """Members of the room !a, and what came to each."""
    async with aiohttp.ClientSession() as http:
        clients = [Client(http, "http://127.0.0.1") for _ in arrivals]
    room = Room("!a", clients)
    made = [Follower(client, [room]) for client in clients]
    for follower, came in zip(made, arrivals, strict=True):
        for room_id, event_ids in came.items():
            follower.arrived[room_id].extend(event_ids)
    return made


async def test_deliveries_once_and_in_order_are_counted() -> None:
    assert check_deliveries(await followers({"!a": ["$1", "$2"]}, {"!a": ["$1", "$2"]}), [ONE, TWO]) == 4


async def test_what_was_sent_at_the_same_time_may_come_in_any_order() -> None:
    for order in (["$1", "$3", "$2"], ["$3", "$1", "$2"], ["$1", "$2", "$3"]):
        assert check_deliveries(await followers({"!a": order}), [ONE, AT_THE_SAME_TIME, TWO]) == 3


@pytest.mark.parametrize(
    ("arrivals", "wrong"),
    [
        ([{"!a": ["$1"]}], "1 messages came"),
        ([{"!a": ["$1", "$2", "$2"]}], "3 messages came to , 2 different ones"),
        ([{"!a": ["$1", "$4"]}], "of 2 in !a"),
        ([{"!a": ["$2", "$1"]}], "after a message that was sent later"),
        ([{"!a": ["$1", "$2"], "!b": ["$9"]}], "where none were sent"),
        ([{"!a": ["$1", "$2"]}, {"!a": []}], "0 messages came"),
        ([{"!a": ["$1", "$2"]}, {"!a": ["$2", "$1"]}], "different orders"),
    ],
    ids=["lost", "twice", "another", "disorder", "foreign", "nothing", "disagreement"],
)
async def test_other_deliveries_are_wrong(arrivals: list[Mapping[str, Sequence[str]]], wrong: str) -> None:
    with pytest.raises(WrongAnswer, match=wrong):
        check_deliveries(await followers(*arrivals), [ONE, TWO])
