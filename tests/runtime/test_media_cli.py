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
from tests.s3_server import KEY, SECRET, Bucket

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


def test_moving(config_file: Path, bucket: Bucket) -> None:
    """First everything is brought, then, once the server uses the other store, removed; both may be repeated."""
    files = config_file.parent / "data" / "media" / "content"
    config = json.loads(config_file.read_text())
    unset = invoke(config_file, "move", "--to", "s3")
    assert (unset.exit_code, "media.s3.bucket: is needed" in unset.output) == (1, True)
    settings = {
        "bucket": bucket.name,
        "endpoint_url": bucket.url,
        "path_style": True,
        "access_key_id": KEY,
        "secret_access_key": SECRET,
    }
    config_file.write_text(json.dumps({**config, "media": {"s3": settings}}))
    for count in (1, 0):
        moved = invoke(config_file, "move", "--to", "s3")
        assert moved.stdout == f"{count} of 1 files brought, 0 are missing in both\n"
        assert "set media.storage to s3" in moved.stderr
    (name,) = [path.name for path in files.rglob("*") if path.is_file()]
    assert bucket.keys == [f"content/{name[:2]}/{name}"]

    config_file.write_text(json.dumps({**config, "media": {"storage": "s3", "s3": settings}}))
    assert "set media.storage" not in invoke(config_file, "move", "--to", "s3").stderr
    assert [path for path in files.rglob("*") if path.is_file()] == []

    assert invoke(config_file, "move", "--to", "files").stdout == "1 of 1 files brought, 0 are missing in both\n"
    (path,) = [path for path in files.rglob("*") if path.is_file()]
    assert path.read_bytes() == b"Hello"
    path.write_bytes(b"Hullo")
    bucket.client.delete_object(Bucket=bucket.name, Key=bucket.keys[0])
    damaged = invoke(config_file, "move", "--to", "s3")
    assert (damaged.exit_code, "has other bytes" in damaged.output, bucket.keys) == (1, True, [])
    path.unlink()
    assert invoke(config_file, "move", "--to", "s3").stdout == "0 of 1 files brought, 1 are missing in both\n"


def test_a_store_that_is_away(config_file: Path) -> None:
    config = json.loads(config_file.read_text())
    settings = {"bucket": "b", "endpoint_url": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": SECRET}
    config_file.write_text(json.dumps({**config, "media": {"s3": settings}}))
    result = invoke(config_file, "move", "--to", "s3")
    assert (result.exit_code, "S3 does not answer" in result.output, SECRET in result.output) == (1, True, False)
