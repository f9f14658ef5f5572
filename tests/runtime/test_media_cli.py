"""`homeserver media …`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from homeserver.cli import main
from homeserver.core.ids import ServerName, UserId
from storage.database import Database
from storage.local_media import NewMedia, insert_local_media
from storage.media.filesystem import FileSystemBytes
from storage.media_contents import touch_content
from storage.remote_media import RemoteMedia, insert_remote_media

LONG_AGO_MS = 1_000_000


@pytest.fixture
def config_file(tmp_path: Path, database_url: str) -> Path:
    """The configuration of a server."""
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"server_name": "example.org", "database": {"url": database_url}}))
    return file


@pytest.fixture(autouse=True)
async def media(config_file: Path, database_url: str) -> None:
    """An upload of Alice's and a copy, both of the same bytes."""
    store = FileSystemBytes(config_file.parent / "data" / "media")
    async with Database(database_url) as db, db.connection() as conn, store.incoming() as incoming:
        await incoming.write(b"Hello")
        sha256, size_bytes = await incoming.finish()
        await touch_content(conn, sha256, size_bytes=size_bytes, now_ms=LONG_AGO_MS)
        await incoming.keep()
        upload = NewMedia(
            media_id="abc",
            user_id=UserId("@alice:example.org"),
            sha256=sha256,
            size_bytes=5,
            content_type="text/plain",
            file_name="a.txt",
            authenticated=True,
        )
        await insert_local_media(conn, upload, now_ms=LONG_AGO_MS)
        copy = RemoteMedia(
            server_name=ServerName("far"),
            media_id="xyz",
            sha256=sha256,
            size_bytes=5,
            content_type="text/plain",
            file_name=None,
            fetched_ts=LONG_AGO_MS,
            last_access_ts=LONG_AGO_MS,
            authenticated=True,
        )
        await insert_remote_media(conn, copy)


def invoke(config_file: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["media", *words, "-c", str(config_file)])


def test_lists(config_file: Path) -> None:
    assert invoke(config_file, "list").output == "mxc://example.org/abc 5 text/plain @alice:example.org\n"
    assert invoke(config_file, "list", "--user", "@bob:example.org").output == ""
    assert invoke(config_file, "list", "--remote").output == "mxc://far/xyz 5 text/plain\n"
    (line,) = invoke(config_file, "list", "--json").output.splitlines()
    assert json.loads(line)["file_name"] == "a.txt"
    assert invoke(config_file, "list", "--user", "bob").exit_code == 2


def test_quarantine(config_file: Path) -> None:
    assert invoke(config_file, "quarantine", "mxc://far/xyz").output == "Quarantined\n"
    assert invoke(config_file, "list").output.endswith(" quarantined\n")
    assert invoke(config_file, "quarantine", "--release", "mxc://far/xyz").output == "Released\n"
    assert not invoke(config_file, "list").output.endswith(" quarantined\n")


def test_deleting(config_file: Path) -> None:
    """The file goes with its last name; what is not there is said so, and the exit code tells."""
    files = config_file.parent / "data" / "media" / "content"
    assert invoke(config_file, "delete", "mxc://example.org/abc").output == "Deleted\n"
    assert [path for path in files.rglob("*") if path.is_file()]
    result = invoke(config_file, "delete", "mxc://example.org/abc")
    assert (result.exit_code, result.output) == (1, "Error: There is no such content\n")
    assert invoke(config_file, "delete", "abc").exit_code == 2
    purged = invoke(config_file, "purge-remote", "--days", "90")
    assert (purged.stdout, "1 removed" in purged.stderr) == ("1 files removed\n", True)
    assert not [path for path in files.rglob("*") if path.is_file()]


def test_deleting_what_nobody_asks_for(config_file: Path) -> None:
    assert invoke(config_file, "delete-unused", "--days", "1", "--larger-than", "5").stdout == "0 files removed\n"
    assert invoke(config_file, "delete-unused", "--days", "1").stdout == "1 files removed\n"
    assert invoke(config_file, "list").output == ""
