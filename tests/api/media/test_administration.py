"""What administrators do about media, and how long media are kept.

https://element-hq.github.io/synapse/latest/admin_api/media_admin_api.html
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest

from homeserver.config.schema import MediaConfig, UrlPreviewsConfig
from homeserver.core.ids import ServerName
from homeserver.runtime.media_store import media_store
from homeserver.services.media.contents import Contents
from storage.database import Database
from storage.remote_media import RemoteMedia, insert_remote_media
from tests.api.media.api import DAY_SECONDS, V1, Gallery, picture, sweep
from tests.api.server import Client, Site, refused

ADMIN = "/_synapse/admin/v1"


async def test_only_administrators(gallery: Gallery, alice: Client) -> None:
    path = await gallery.upload(b"x")
    for method, target in (
        ("POST", f"/media/quarantine/{path}"),
        ("DELETE", f"/media/{path}"),
        ("POST", "/media/delete?before_ts=30000000000"),
        ("POST", "/purge_media_cache"),
        ("GET", f"/users/{alice.user_id}/media"),
        ("GET", "/room/!a:test/media"),
        ("DELETE", "/room/!a:test/media"),
        ("POST", "/room/!a:test/media/quarantine"),
    ):
        refused(await alice.call(method, f"{ADMIN}{target.partition('?')[0]}"), 403, "M_FORBIDDEN")


async def test_what_is_quarantined_is_given_to_nobody(gallery: Gallery, admin: Client) -> None:
    """Not under another name either, nor in another size, nor when it is brought again."""
    data = picture()
    path, same = await gallery.upload(data, "image/png"), await gallery.upload(data, "image/jpeg")
    await gallery.thumbnail(path, 96, 96)
    await admin.post(f"{ADMIN}/media/quarantine/{path}")
    for one in (path, same):
        refused(await gallery.download(one), 404, "M_NOT_FOUND")
        refused(await gallery.thumbnail(one, 96, 96), 404, "M_NOT_FOUND")
    refused(await gallery.try_upload(data, "image/png"), 404, "M_NOT_FOUND")
    listed = await admin.get(f"{ADMIN}/users/@alice:test/media")
    assert {one["quarantined_by"] for one in listed["media"]} == {"@admin:test"}
    await admin.post(f"{ADMIN}/media/unquarantine/{path}")
    assert (await gallery.download(same)).body == data
    refused(await admin.call("POST", f"{ADMIN}/media/quarantine/test/unknown", {}), 404, "M_NOT_FOUND")


async def test_all_of_a_user_but_what_is_protected(gallery: Gallery, admin: Client, bob: Client) -> None:
    good, bad = await gallery.upload(b"good"), await gallery.upload(b"bad")
    others = await Gallery(bob).upload(b"others")
    await admin.post(f"{ADMIN}/media/protect/{good.partition('/')[2]}")
    assert await admin.post(f"{ADMIN}/user/@alice:test/media/quarantine") == {"num_quarantined": 1}
    assert (await gallery.download(good)).status == (await gallery.download(others)).status == 200
    refused(await gallery.download(bad), 404, "M_NOT_FOUND")
    await admin.post(f"{ADMIN}/media/unprotect/{good.partition('/')[2]}")
    assert await admin.post(f"{ADMIN}/user/@alice:test/media/quarantine") == {"num_quarantined": 2}
    refused(await gallery.download(good), 404, "M_NOT_FOUND")
    refused(await admin.call("POST", f"{ADMIN}/media/protect/unknown", {}), 404, "M_NOT_FOUND")


async def test_lists_of_a_users_media(gallery: Gallery, admin: Client, site: Site) -> None:
    for size in (3, 1, 2):
        await gallery.upload(b"x" * size, "text/plain", name=f"{size}.txt")
        site.clock.advance(1)
    path = f"{ADMIN}/users/{quote('@alice:test')}/media"
    newest_first = await admin.get(path)
    assert ([one["upload_name"] for one in newest_first["media"]], newest_first["total"]) == (
        ["2.txt", "1.txt", "3.txt"],
        3,
    )
    assert set(newest_first["media"][0]) == {
        "media_id", "media_type", "media_length", "upload_name", "created_ts", "last_access_ts", "quarantined_by",
        "safe_from_quarantine",
    }  # fmt: skip
    first = await admin.get(path, order_by="media_length", limit=2)
    assert ([one["media_length"] for one in first["media"]], first["next_token"]) == ([1, 2], 2)
    rest = await admin.get(path, order_by="media_length", limit=2, **{"from": 2})
    assert ([one["media_length"] for one in rest["media"]], "next_token" in rest) == ([3], False)
    assert (await admin.get(path, order_by="media_length", dir="b"))["media"][0]["media_length"] == 3
    refused(await admin.call("GET", path, order_by="colour"), 400, "M_INVALID_PARAM")
    deleted = await admin.delete(f"{path}")
    assert deleted["total"] == len(deleted["deleted_media"]) == 3
    assert (await admin.get(path))["total"] == 0


async def test_deleting_one(gallery: Gallery, admin: Client, site: Site, db: Database) -> None:
    """Its file goes with the last name that it has, and its thumbnails with it."""
    data = picture()
    path, same = await gallery.upload(data, "image/png"), await gallery.upload(data, "image/png")
    await gallery.thumbnail(path, 96, 96)
    media_id = path.partition("/")[2]
    assert await admin.delete(f"{ADMIN}/media/{path}") == {"deleted_media": [media_id], "total": 1}
    refused(await gallery.download(path), 404, "M_NOT_FOUND")
    refused(await admin.call("DELETE", f"{ADMIN}/media/{path}"), 404, "M_NOT_FOUND")
    await sweep(site, db)
    assert (await gallery.download(same)).body == data
    await admin.delete(f"{ADMIN}/media/{same}")
    await sweep(site, db)
    await sweep(site, db)
    assert gallery.files == []


async def test_deleting_what_nobody_asks_for(gallery: Gallery, admin: Client, site: Site) -> None:
    old = await gallery.upload(b"old")
    avatar = await gallery.upload(b"avatar")
    await gallery.client.put("/profile/@alice:test/avatar_url", {"avatar_url": f"mxc://{avatar}"})
    site.clock.advance(10)
    before_ts = site.clock.now_ms()
    site.clock.advance(10)
    new = await gallery.upload(b"new")
    path = f"{ADMIN}/media/delete"
    refused(await admin.call("POST", path, {}), 400, "M_MISSING_PARAM")
    refused(await admin.call("POST", path, {}, before_ts=5), 400, "M_INVALID_PARAM")
    assert (await admin.call("POST", path, {}, before_ts=before_ts, size_gt=3)).json["total"] == 0
    deleted = (await admin.call("POST", path, {}, before_ts=before_ts)).json
    assert deleted == {"deleted_media": [old.partition("/")[2]], "total": 1}
    deleted = (await admin.call("POST", path, {}, before_ts=before_ts, keep_profiles="false")).json
    assert deleted["deleted_media"] == [avatar.partition("/")[2]]
    assert (await gallery.download(new)).status == 200


async def copy_of(gallery: Gallery, db: Database, site: Site, name: str) -> str:
    """A copy of another server's medium, which has the bytes of an upload."""
    await gallery.upload(name.encode())
    async with db.connection() as conn:
        sha256 = await conn.fetchval("SELECT sha256 FROM local_media ORDER BY created_ts DESC LIMIT 1")
        media = RemoteMedia(
            server_name=ServerName("far"),
            media_id=name,
            sha256=sha256,
            size_bytes=len(name),
            content_type="text/plain",
            file_name=None,
            fetched_ts=site.clock.now_ms(),
            last_access_ts=site.clock.now_ms(),
            authenticated=True,
        )
        await insert_remote_media(conn, media)
    return f"far/{name}"


async def test_copies_of_other_servers_files(gallery: Gallery, admin: Client, site: Site, db: Database) -> None:
    path = await copy_of(gallery, db, site, "copy")
    assert (await gallery.download(path)).body == b"copy"
    site.clock.advance(10)
    body = (await admin.call("POST", f"{ADMIN}/purge_media_cache", {}, before_ts=site.clock.now_ms())).json
    assert body == {"deleted": 1}
    assert (await gallery.download(path)).status == 502, "here nobody can be asked for it"
    refused(await admin.call("DELETE", f"{ADMIN}/media/far/copy"), 400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, ["avatar", "new", "old", "protected"]),
        ({"local_age_ms": 5 * DAY_SECONDS * 1000}, ["new", "protected"]),
        ({"local_unused_ms": 5 * DAY_SECONDS * 1000}, ["avatar", "new", "protected"]),
        ({"local_total_bytes_max": 14}, ["new", "protected"]),
    ],
)
async def test_how_long_uploads_are_kept(
    gallery: Gallery, admin: Client, site: Site, db: Database, settings: dict[str, int], left: list[str]
) -> None:
    paths = {}
    for name in ("old", "protected", "avatar"):
        paths[name] = await gallery.upload(name.encode())
        site.clock.advance(1)
    await gallery.client.put("/profile/@alice:test/avatar_url", {"avatar_url": f"mxc://{paths['avatar']}"})
    await admin.post(f"{ADMIN}/media/protect/{paths['protected'].partition('/')[2]}")
    site.clock.advance(10 * DAY_SECONDS)
    gallery = Gallery(await site.login("alice"))
    paths["new"] = await gallery.upload(b"new")
    await sweep(site, db, **settings)
    found = [name for name, path in paths.items() if (await gallery.download(path)).status == 200]
    assert sorted(found) == left
    assert len(gallery.files) == len(left)


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"remote_unused_ms": None}, ["new", "old"]),
        ({}, ["new"]),
        ({"remote_unused_ms": None, "remote_age_ms": 5 * DAY_SECONDS * 1000}, ["new"]),
        ({"remote_unused_ms": None, "remote_total_bytes_max": 3}, ["new"]),
    ],
)
async def test_how_long_copies_are_kept(
    gallery: Gallery, site: Site, db: Database, settings: dict[str, int | None], left: list[str]
) -> None:
    await copy_of(gallery, db, site, "old")
    site.clock.advance(100 * DAY_SECONDS)
    gallery = Gallery(await site.login("alice"))
    await copy_of(gallery, db, site, "new")
    await sweep(site, db, **settings)
    found = [name for name in ("new", "old") if (await gallery.get(f"{V1}/download/far/{name}")).status == 200]
    assert found == left


async def test_being_asked_for_keeps_a_file(gallery: Gallery, site: Site, db: Database) -> None:
    path = await gallery.upload(b"x")
    site.clock.advance(10 * DAY_SECONDS)
    gallery = Gallery(await site.login("alice"))
    await gallery.download(path)
    await sweep(site, db, local_unused_ms=5 * DAY_SECONDS * 1000)
    assert (await gallery.download(path)).status == 200


async def test_names_whose_upload_never_came_are_forgotten(gallery: Gallery, site: Site, db: Database) -> None:
    await gallery.create()
    site.clock.advance(3 * DAY_SECONDS)
    await sweep(site, db)
    async with db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM local_media") == 0


@asynccontextmanager
async def interrupted(site: Site, db: Database, data: bytes) -> AsyncIterator[Contents]:
    """An upload that is cut off between its bytes and its row, as by kill -9."""

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    async def cut(_: object) -> None:
        raise KeyboardInterrupt

    async with media_store(site.config, site.clock) as store:
        contents = Contents(db=db, store=store, clock=site.clock)
        with pytest.raises(KeyboardInterrupt):
            await contents.take_in(chunks(), bytes_max=1000, name=cut)
        yield contents


async def test_bytes_without_a_row_are_swept(gallery: Gallery, site: Site, db: Database) -> None:
    async with interrupted(site, db, b"orphan") as contents:
        assert len(gallery.files) == 1
        await contents.sweep()
        assert len(gallery.files) == 1, "somebody may be about to name it"
        site.clock.advance(601)
        await contents.sweep()
        assert gallery.files == []
    path = await gallery.upload(b"orphan")
    assert (await gallery.download(path)).body == b"orphan"


async def test_bytes_that_are_being_removed_are_brought_again_afterwards(
    gallery: Gallery, site: Site, db: Database
) -> None:
    """Whoever brings them waits: a file never goes away under its name."""
    async with interrupted(site, db, b"same") as contents:
        async with db.connection() as conn:
            await conn.execute("UPDATE media_contents SET removing = true, touched_ts = 0")
        site.clock.advance(601)
        await contents.sweep()
        path = await gallery.upload(b"same")
        assert (await gallery.download(path)).body == b"same"


def test_settings_have_sensible_defaults() -> None:
    """Nothing that cannot be fetched again is removed unless an operator says so."""
    config = MediaConfig()
    assert config.local_age_ms is config.local_unused_ms is config.local_total_bytes_max is None
    assert UrlPreviewsConfig().enabled is False
