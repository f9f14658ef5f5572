"""`homeserver db size`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from homeserver.cli import main
from homeserver.core.ids import RoomId, UserId
from homeserver.services.rooms.drafts import Draft
from storage.database import Database
from storage.local_media import NewMedia, insert_local_media
from storage.media_contents import touch_content
from storage.sizes import list_largest_rooms, list_table_sizes
from tests.rooms.workers import ALICE, Worker, message

NAME = Draft(type="m.room.name", sender=ALICE, state_key="", content={"name": "A large\x1b[2J room"})


@pytest.fixture
def config_file(tmp_path: Path, database_url: str) -> Path:
    """The configuration of a server."""
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"server_name": "example.org", "database": {"url": database_url}}))
    return file


@pytest.fixture
async def rooms(database_url: str) -> list[RoomId]:
    """A room with many long events and a picture, and one with few."""
    async with Database(database_url) as db:
        worker = Worker(db)
        large = await worker.create_room(NAME)
        small = await worker.create_room()
        async with db.connection() as conn:
            await touch_content(conn, b"0" * 32, size_bytes=5000, now_ms=1)
            picture = NewMedia(
                media_id="abc",
                user_id=UserId("@alice:test"),
                sha256=b"0" * 32,
                size_bytes=5000,
                content_type="image/png",
                file_name=None,
                authenticated=True,
            )
            await insert_local_media(conn, picture, now_ms=1)
        for number in range(20):
            await worker.add(large, *(message(f"{number} {'a long text ' * 100}") for _ in range(5)))
        await worker.add(large, message("mxc://test/abc"), message("mxc://test/abc"))
        await worker.add(small, message("Hello"))
    return [large, small]


def invoke(config_file: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["db", "size", *words, "-c", str(config_file)])


def test_tables_and_rooms_for_machines(config_file: Path, rooms: list[RoomId]) -> None:
    report = json.loads(invoke(config_file, "--json").output)
    tables = {table["table"]: table for table in report["tables"]}
    events = tables["events"]
    assert events["total_bytes"] == events["heap_bytes"] + events["index_bytes"] + events["toast_bytes"]
    assert events["heap_bytes"] > 100 * 200
    assert report["total_bytes"] > sum(table["total_bytes"] for table in report["tables"])
    assert [table["total_bytes"] for table in report["tables"]] == sorted(
        (table["total_bytes"] for table in report["tables"]), reverse=True
    )
    assert [room["room_id"] for room in report["rooms"]] == rooms
    large, small = report["rooms"]
    assert large["events"] == 102 + small["events"]
    assert large["event_bytes"] > 2 * small["event_bytes"] > 0
    assert large["event_bytes"] + small["event_bytes"] == pytest.approx(events["total_bytes"], abs=2)
    assert large["state_bytes"] > 0
    assert (large["media_bytes"], small["media_bytes"]) == (5000, 0)


def test_tables_and_rooms_for_people(config_file: Path, rooms: list[RoomId]) -> None:
    output = invoke(config_file, "--rooms", "1").output
    assert "\nevents " in output
    assert rooms[0] in output
    assert rooms[1] not in output
    assert "A large?[2J room" in output
    assert "estimated" not in invoke(config_file, "--rooms", "0").output


async def test_a_sample_stands_for_the_whole(database_url: str, rooms: list[RoomId]) -> None:
    async with Database(database_url) as db, db.connection() as conn:
        await conn.execute("ANALYZE")
        whole = {room.room_id: room for room in await list_largest_rooms(conn, limit=2)}
        sampled = await list_largest_rooms(conn, limit=1, sample_pages=8)
        (events,) = (table for table in await list_table_sizes(conn) if table.table == "events")
    assert events.live_rows == sum(room.events for room in whole.values())
    assert sampled[0].room_id == rooms[0]
    assert sampled[0].events == pytest.approx(whole[rooms[0]].events, rel=0.5)
    assert sampled[0].event_bytes == pytest.approx(whole[rooms[0]].event_bytes, rel=0.3)


def test_an_empty_database_has_no_rooms(config_file: Path) -> None:
    assert json.loads(invoke(config_file, "--json").output)["rooms"] == []


def test_a_schema_of_another_program_is_not_measured(tmp_path: Path, empty_database_url: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"server_name": "example.org", "database": {"url": empty_database_url}}))
    result = invoke(file)
    assert result.exit_code == 1
    assert "db status" in result.output
