"""The content repository as it was before v1.11: for anybody. What has come since the switch is not given (frozen).

https://spec.matrix.org/v1.19/client-server-api/#content-repo-client-behaviour
"""

from typing import Final

from client_api.media_answer import media_answer
from client_api.media_wishes import asker_of, thumbnail_wish, uri_of
from homeserver.config.schema import MediaConfig
from homeserver.services.media.downloads import Downloads, Medium
from homeserver.services.media.thumbnails import Thumbnails
from homeserver.web.client_address import rate_limit_address
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

_DOWNLOAD: Final = "download/{server_name}/{media_id}"
_THUMBNAIL: Final = "thumbnail/{server_name}/{media_id}"


def section(downloads: Downloads, thumbnails: Thumbnails, config: MediaConfig) -> Section:
    """The endpoints."""
    s = Section("Content repository without authentication")

    async def find(request: Request) -> Medium:
        allow_remote = request.query_boolean("allow_remote", default=True)
        name = rate_limit_address(request.ip)
        asker = asker_of(request, name, authenticated=False, allow_remote=allow_remote)
        return await downloads.find(uri_of(request), asker)

    async def answer(request: Request, medium: Medium, *, file_name: str | None = None) -> Response:
        allow_redirect = request.query_boolean("allow_redirect")
        return await media_answer(request, downloads, medium, allow_redirect=allow_redirect, file_name=file_name)

    def path(rest: str) -> str:
        return f"/_matrix/media/v3/{rest}"

    def older(rest: str) -> tuple[str, ...]:
        return (f"/_matrix/media/v1/{rest}",)

    @s.endpoint("GET", path(_DOWNLOAD), aliases=older(_DOWNLOAD), access=Access.PUBLIC, rate_limit=RateLimit.MEDIA)
    async def get_content(request: Request) -> Response:
        """A file."""
        return await answer(request, await find(request))

    @s.endpoint(
        "GET",
        path(f"{_DOWNLOAD}/{{file_name}}"),
        aliases=older(f"{_DOWNLOAD}/{{file_name}}"),
        access=Access.PUBLIC,
        rate_limit=RateLimit.MEDIA,
    )
    async def get_content_override_name(request: Request) -> Response:
        """A file, under another name."""
        return await answer(request, await find(request), file_name=request.path["file_name"])

    @s.endpoint("GET", path(_THUMBNAIL), aliases=older(_THUMBNAIL), access=Access.PUBLIC, rate_limit=RateLimit.MEDIA)
    async def get_content_thumbnail(request: Request) -> Response:
        """A picture, smaller."""
        wish = thumbnail_wish(request)
        thumbnail = await thumbnails.find(await find(request), wish)
        return await answer(request, thumbnail)

    @s.endpoint("GET", path("config"), aliases=older("config"), access=Access.GUEST)
    async def get_config(_: Request) -> Response:
        """How large a file may be."""
        return Response({"m.upload.size": config.upload_bytes_max})

    return s
