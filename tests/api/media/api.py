"""The endpoints of media, as a client calls them, and what tests upload."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from homeserver.config.schema import MediaConfig
from homeserver.core.ids import ServerName
from homeserver.runtime.media_store import media_store
from homeserver.services.media.contents import Contents
from homeserver.services.media.retention import MediaRetention
from storage.database import Database
from tests.api.server import Client, Site
from tests.s3_server import Bucket
from tests.web.harness import Reply

V1 = "/_matrix/client/v1/media"
OLD = "/_matrix/media/v3"
DAY_SECONDS = 86_400


@dataclass
class Gallery:
    """A user's media."""

    client: Client

    async def try_upload(
        self, data: bytes, content_type: str | None = "text/plain", *, name: str | None = None
    ) -> Reply:
        """Uploads something."""
        headers = {} if content_type is None else {"content-type": content_type}
        query = {} if name is None else {"filename": name}
        return await self.client.server.request(
            "POST", f"{OLD}/upload", token=self.client.token, body=data, headers=headers, query=query
        )

    async def upload(self, data: bytes, content_type: str | None = "text/plain", *, name: str | None = None) -> str:
        """Uploads something, which must be taken; returns `server/media id`."""
        reply = await self.try_upload(data, content_type, name=name)
        assert reply.status == 200, reply.body
        uri: str = reply.json["content_uri"]
        assert uri.startswith("mxc://test/")
        return uri.removeprefix("mxc://")

    async def download(self, path: str, *, headers: Mapping[str, str] | None = None, **query: Any) -> Reply:
        """Downloads `server/media id`, with a name behind it or without."""
        return await self.get(f"{V1}/download/{path}", headers=headers, **query)

    async def thumbnail(self, path: str, width: int, height: int, **query: Any) -> Reply:
        """Asks for a thumbnail."""
        return await self.get(f"{V1}/thumbnail/{path}", width=width, height=height, **query)

    async def get(self, path: str, *, headers: Mapping[str, str] | None = None, **query: Any) -> Reply:
        """A GET."""
        return await self.client.server.request("GET", path, token=self.client.token, headers=headers, query=query)

    async def put(self, path: str, data: bytes, content_type: str = "text/plain") -> Reply:
        """Uploads something for a name that was given out."""
        return await self.client.server.request(
            "PUT", f"{OLD}/upload/{path}", token=self.client.token, body=data, headers={"content-type": content_type}
        )

    async def create(self) -> str:
        """A name for an upload to come."""
        uri: str = (await self.client.post("/_matrix/media/v1/create"))["content_uri"]
        return uri.removeprefix("mxc://")

    @property
    def files(self) -> list[str]:
        """All files that the server has, those aside and the parts of unfinished ones too."""
        config = self.client.server.config
        here = [str(path) for path in (config.data_dir / "media").rglob("*") if path.is_file()]
        if config.media.storage == "files":
            return here
        bucket = Bucket(str(config.media.s3.endpoint_url), str(config.media.s3.bucket))
        return [*here, *bucket.keys, *bucket.unfinished]

    @property
    def incoming_bytes(self) -> int:
        """How much has come of files that are not whole yet."""
        folder = self.client.server.config.data_dir / "media" / "incoming"
        return sum(path.stat().st_size for path in folder.glob("*"))


async def sweep(site: Site, db: Database, **settings: Any) -> None:
    """What is done every ten minutes, with other settings; files without a name are old enough."""
    site.clock.advance(601)
    async with media_store(site.config, site.clock) as store:
        retention = MediaRetention(
            db=db,
            contents=Contents(db=db, store=store, clock=site.clock),
            config=MediaConfig(**settings),
            server_name=ServerName("test"),
            clock=site.clock,
        )
        await retention.sweep()


def picture(
    width: int = 800,
    height: int = 400,
    kind: str = "PNG",
    *,
    colour: Any = (200, 30, 30),
    mode: str = "RGB",
    **options: Any,
) -> bytes:
    """A picture: its left half in a colour, its right half black."""
    image = Image.new(mode, (width, height))
    image.paste(colour, (0, 0, width // 2, height))
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def animation(kind: str = "GIF", size: tuple[int, int] = (200, 100), count: int = 3) -> bytes:
    """An animated picture."""
    frames: Sequence[Image.Image] = [Image.new("RGB", size, (60 * number, 0, 0)) for number in range(count)]
    data = io.BytesIO()
    frames[0].save(data, kind, save_all=True, append_images=frames[1:], duration=50, loop=0)
    return data.getvalue()


def seen(reply: Reply) -> Image.Image:
    """The picture in an answer."""
    assert reply.status == 200, reply.body
    return Image.open(io.BytesIO(reply.body))
