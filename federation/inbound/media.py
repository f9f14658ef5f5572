"""This server's media, for other servers.

https://spec.matrix.org/v1.19/server-server-api/#content-repository
"""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, cast

from federation.wire.multipart import multipart_head, multipart_tail
from homeserver.core.content_disposition import content_disposition
from homeserver.core.errors import InvalidParam, NotFound
from homeserver.core.ids import MxcUri, ServerName
from homeserver.services.media.downloads import WAIT_MS_MAX, Asker, Downloads, Medium
from homeserver.services.media.thumbnails import Method, Thumbnails, ThumbnailWish
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section
from storage.media.base import OpenBytes

_V1: Final = "/_matrix/federation/v1/media"
_TIMEOUT_MS_DEFAULT: Final = 20_000


def section(downloads: Downloads, thumbnails: Thumbnails, *, server_name: ServerName) -> Section:
    """The endpoints."""
    s = Section("Content repository")

    async def find(request: Request) -> Medium:
        assert request.origin is not None, "other servers have shown who they are"
        timeout_ms = request.query_integer("timeout_ms", _TIMEOUT_MS_DEFAULT, maximum=WAIT_MS_MAX, clamp=True)
        try:
            uri = MxcUri.parse(f"mxc://{server_name}/{request.path['media_id']}")
        except InvalidParam:
            raise NotFound("There is no such content") from None
        return await downloads.find(uri, Asker(name=request.origin, allow_remote=False, timeout_ms=timeout_ms))

    @s.endpoint("GET", f"{_V1}/download/{{media_id}}", access=Access.SERVER, rate_limit=RateLimit.FEDERATION)
    async def get_content(request: Request) -> Response:
        """A file."""
        return await _answer(downloads, await find(request))

    @s.endpoint("GET", f"{_V1}/thumbnail/{{media_id}}", access=Access.SERVER, rate_limit=RateLimit.FEDERATION)
    async def get_content_thumbnail(request: Request) -> Response:
        """A picture, smaller."""
        request.query_required("width")
        request.query_required("height")
        wish = ThumbnailWish(
            width=request.query_integer("width", 0, minimum=1),
            height=request.query_integer("height", 0, minimum=1),
            method=cast(Method, request.query_choice("method", ("scale", "crop"), "scale")),
            animated=request.query_boolean("animated"),
        )
        return await _answer(downloads, await thumbnails.find(await find(request), wish))

    return s


async def _answer(downloads: Downloads, medium: Medium) -> Response:
    boundary = secrets.token_hex(16)
    disposition = content_disposition(medium.content_type, medium.file_name)
    tail = multipart_tail(boundary)
    answer_type = {"Content-Type": f"multipart/mixed; boundary={boundary}"}
    url = await downloads.url(medium, content_disposition=disposition)
    if url is not None:
        return Response(multipart_head(boundary, {"Location": url}) + tail, headers=answer_type)
    head = multipart_head(boundary, {"Content-Type": medium.content_type, "Content-Disposition": disposition})
    opened = await downloads.open(medium)
    size_bytes = len(head) + medium.size_bytes + len(tail)
    return Response(_parts(head, opened, tail), headers={**answer_type, "Content-Length": str(size_bytes)})


async def _parts(head: bytes, opened: OpenBytes, tail: bytes) -> AsyncGenerator[bytes, None]:
    async with aclosing(opened):
        yield head
        async for data in opened:
            yield data
        yield tail
