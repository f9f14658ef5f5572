"""Media and the events that show them: what goes when an event is redacted, and what a room has."""

import itertools
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from homeserver.config.schema import Config
from homeserver.core.ids import ServerName
from storage.database import Database
from storage.media_contents import touch_content
from storage.remote_media import RemoteMedia, find_remote_media, insert_remote_media
from tests.api.media.api import DAY_SECONDS, Gallery, sweep
from tests.api.server import CONFIG, Client, Site

ADMIN = "/_synapse/admin/v1"
KEPT = {"redacted_kept_ms": DAY_SECONDS * 1000}

_numbers = itertools.count()


@dataclass
class Room:
    """A room, as one of its members uses it."""

    client: Client
    room_id: str

    @property
    def path(self) -> str:
        """The beginning of its endpoints."""
        return f"/rooms/{quote(self.room_id)}"

    async def send(self, content: dict[str, Any], kind: str = "m.room.message") -> str:
        """Sends an event."""
        event_id: str = (await self.client.put(f"{self.path}/send/{kind}/{next(_numbers)}", content))["event_id"]
        return event_id

    async def show(self, path: str) -> str:
        """Sends a picture."""
        return await self.send({"msgtype": "m.image", "body": "a.png", "url": f"mxc://{path}"})

    async def redact(self, event_id: str) -> None:
        """Redacts an event."""
        await self.client.put(f"{self.path}/redact/{quote(event_id)}/{next(_numbers)}", {})

    def of(self, client: Client) -> "Room":
        """The same room, of another member."""
        return Room(client, self.room_id)


async def new_room(creator: Client, *others: Client) -> Room:
    """A room with some members."""
    room = Room(creator, (await creator.post("/createRoom", {"preset": "public_chat"}))["room_id"])
    for other in others:
        await other.post(f"{room.path}/join")
    return room


@pytest.fixture
def config() -> Config:
    """One store is as good as the other here."""
    return CONFIG


@pytest.fixture
async def room(alice: Client, bob: Client) -> Room:
    """A room of Alice's with Bob."""
    return await new_room(alice, bob)


async def later(site: Site, db: Database, **settings: Any) -> None:
    """Sweeps two days from now."""
    async with db.connection() as conn:
        await conn.execute(
            "UPDATE media_events SET redacted_ts = $1 WHERE redacted_ts IS NOT NULL", site.clock.now_ms()
        )
    site.clock.advance(2 * DAY_SECONDS)
    await sweep(site, db, **(settings or KEPT))


async def is_there(site: Site, path: str) -> bool:
    """Whether a medium can be had, days later."""
    status = (await Gallery(await site.login("alice")).download(path)).status
    assert status in (200, 404)
    return status == 200


async def links(db: Database) -> list[tuple[str, str]]:
    """Events' media that are shown still."""
    async with db.connection() as conn:
        rows = await conn.fetch("SELECT server_name, media_id FROM media_events WHERE redacted_ts IS NULL")
    return sorted((row["server_name"], row["media_id"]) for row in rows)


async def test_media_of_a_redacted_event_go(site: Site, db: Database, room: Room, gallery: Gallery) -> None:
    shown, other = await gallery.upload(b"shown"), await gallery.upload(b"other")
    event_id = await room.show(shown)
    await room.show(other)
    await room.redact(event_id)
    await sweep(site, db, **KEPT)
    assert await is_there(site, shown), "not at once"
    await later(site, db)
    assert not await is_there(site, shown)
    assert await is_there(site, other)
    assert len(gallery.files) == 1


async def test_they_stay_unless_an_operator_wants_them_gone(
    site: Site, db: Database, room: Room, gallery: Gallery
) -> None:
    path = await gallery.upload(b"x")
    await room.redact(await room.show(path))
    await later(site, db, redacted_kept_ms=None)
    assert await is_there(site, path)


async def test_media_that_another_event_shows_stay_as_long_as_that(
    site: Site, db: Database, room: Room, bob: Client, gallery: Gallery
) -> None:
    """Also when somebody else has passed them on, in another room."""
    path = await gallery.upload(b"x")
    first = await room.show(path)
    elsewhere = await new_room(bob)
    second = await elsewhere.show(path)
    await room.redact(first)
    await later(site, db)
    assert await is_there(site, path)
    await elsewhere.of(await site.login("bob")).redact(second)
    await later(site, db)
    assert not await is_there(site, path)


async def test_nobody_has_media_of_others_removed(
    site: Site, db: Database, room: Room, bob: Client, gallery: Gallery
) -> None:
    """What is shown in encrypted rooms is not known: a stranger who knows the URI must not have it removed."""
    path = await gallery.upload(b"encrypted")
    by_bob = room.of(bob)
    await by_bob.redact(await by_bob.show(path))
    await later(site, db)
    assert await is_there(site, path)


async def test_pictures_of_users_and_of_rooms_stay(site: Site, db: Database, room: Room, gallery: Gallery) -> None:
    profile, of_room, member = [await gallery.upload(name) for name in (b"profile", b"room", b"member")]
    await room.client.put(f"/profile/{room.client.user_id}/avatar_url", {"avatar_url": f"mxc://{profile}"})
    await room.client.put(f"{room.path}/state/m.room.avatar", {"url": f"mxc://{of_room}"})
    own = {"membership": "join", "avatar_url": f"mxc://{member}"}
    await room.client.put(f"{room.path}/state/m.room.member/{room.client.user_id}", own)
    for path in (profile, of_room, member):
        await room.redact(await room.show(path))
    await later(site, db)
    for path in (profile, of_room, member):
        assert await is_there(site, path)


async def test_stickers_of_the_user_stay(site: Site, db: Database, room: Room, gallery: Gallery) -> None:
    path = await gallery.upload(b"sticker")
    pack = {"images": {"smile": {"url": f"mxc://{path}"}}}
    await room.client.put(f"/user/{room.client.user_id}/account_data/im.ponies.user_emotes", pack)
    await room.redact(await room.send({"body": "smile", "url": f"mxc://{path}"}, "m.sticker"))
    await later(site, db)
    assert await is_there(site, path)


async def test_protected_media_stay(site: Site, db: Database, room: Room, gallery: Gallery, admin: Client) -> None:
    path = await gallery.upload(b"x")
    await admin.post(f"{ADMIN}/media/protect/{path.partition('/')[2]}")
    await room.redact(await room.show(path))
    await later(site, db)
    assert await is_there(site, path)


async def test_copies_of_other_servers_media_go_with_an_event_of_that_server(
    site: Site, db: Database, room: Room
) -> None:
    """Others can have no copy removed either."""
    far = ServerName("far")
    async with db.connection() as conn:
        await touch_content(conn, bytes(32), size_bytes=1, now_ms=site.clock.now_ms())
        for name in ("theirs", "used"):
            copy = RemoteMedia(
                server_name=far,
                media_id=name,
                sha256=bytes(32),
                size_bytes=1,
                content_type="a/b",
                file_name=None,
                fetched_ts=site.clock.now_ms(),
                last_access_ts=site.clock.now_ms(),
                authenticated=True,
            )
            await insert_remote_media(conn, copy)
    events = [await room.show(f"far/{name}") for name in ("theirs", "used")]
    async with db.connection() as conn:
        await conn.execute("UPDATE events SET sender = '@somebody:far' WHERE event_id = $1", events[0])
    for event_id in events:
        await room.redact(event_id)
    await later(site, db, remote_unused_ms=None, **KEPT)
    async with db.connection() as conn:
        assert await find_remote_media(conn, far, "theirs") is None
        assert await find_remote_media(conn, far, "used") is not None


@pytest.mark.parametrize(
    "content",
    [
        {"url": "mxc://far/a"},
        {"file": {"url": "mxc://far/a", "key": {}}},
        {"info": {"thumbnail_url": "mxc://far/a"}},
        {"info": {"thumbnail_file": {"url": "mxc://far/a"}}},
        {"info": {"avatar_url": "mxc://far/a"}, "url": "mxc://far/a"},
        {"m.new_content": {"url": "mxc://far/a"}},
        {"body": "\u0000", "itemtypes": [{"url": "mxc://far/a"}, {"url": 7}]},
    ],
)
async def test_media_are_found_wherever_they_stand(db: Database, room: Room, content: dict[str, Any]) -> None:
    await room.send({"msgtype": "m.image", "body": "a", **content})
    assert await links(db) == [("far", "a")]


@pytest.mark.parametrize(
    "url",
    ["mxc://far", "mxc://far/a/b", "see mxc://far/a", "mxc://far/" + "a" * 256, "mxc://" + "f" * 300 + "/a", "x" * 9],
)
async def test_what_names_no_media_is_nothing(db: Database, room: Room, url: str) -> None:
    """And does no harm: what is too long for an index, for example."""
    await room.send({"msgtype": "m.image", "body": "a", "url": url})
    assert await links(db) == []


async def test_an_event_with_very_many(db: Database, room: Room) -> None:
    await room.send({"body": "a", "all": [f"mxc://far/{number}" for number in range(300)]})
    assert len(await links(db)) == 200


async def test_the_media_of_a_room(db: Database, room: Room, bob: Client, gallery: Gallery, admin: Client) -> None:
    """But for pictures of members, and what is redacted."""
    local, gone, elsewhere = [await gallery.upload(name) for name in (b"local", b"gone", b"elsewhere")]
    for path in (local, "far/b", "far/a", "far/a"):
        await room.show(path)
    await room.redact(await room.show(gone))
    await (await new_room(bob)).show(elsewhere)
    own = {"membership": "join", "avatar_url": f"mxc://{elsewhere}"}
    await room.client.put(f"{room.path}/state/m.room.member/{room.client.user_id}", own)
    found = await admin.get(f"{ADMIN}/room/{quote(room.room_id)}/media")
    assert found == {"local": [f"mxc://{local}"], "remote": ["mxc://far/a", "mxc://far/b"]}
    assert await admin.get(f"{ADMIN}/room/!unknown:test/media") == {"local": [], "remote": []}


async def test_quarantine_of_a_room(site: Site, room: Room, bob: Client, gallery: Gallery, admin: Client) -> None:
    bad, worse, protected, other = [await gallery.upload(name) for name in (b"bad", b"worse", b"protected", b"other")]
    await admin.post(f"{ADMIN}/media/protect/{protected.partition('/')[2]}")
    for path in (bad, worse, protected, "far/unknown"):
        await room.show(path)
    await (await new_room(bob)).show(other)
    found = await admin.post(f"{ADMIN}/room/{quote(room.room_id)}/media/quarantine")
    assert found == {"num_quarantined": 2}
    assert [await is_there(site, path) for path in (bad, worse, protected, other)] == [False, False, True, True]


async def test_deleting_the_media_of_a_room(
    site: Site, room: Room, bob: Client, gallery: Gallery, admin: Client
) -> None:
    """What other rooms and profiles show too stays."""
    only, shared, protected, profile = [await gallery.upload(name) for name in (b"only", b"shared", b"prot", b"prof")]
    await admin.post(f"{ADMIN}/media/protect/{protected.partition('/')[2]}")
    await room.client.put(f"/profile/{room.client.user_id}/avatar_url", {"avatar_url": f"mxc://{profile}"})
    for path in (only, shared, protected, profile):
        await room.show(path)
    await (await new_room(bob)).show(shared)
    found = await admin.delete(f"{ADMIN}/room/{quote(room.room_id)}/media")
    assert found == {"deleted_media": [only.partition("/")[2]], "total": 1}
    assert [await is_there(site, path) for path in (only, shared, protected, profile)] == [False, True, True, True]
