"""The content repository, for those who show who they are.

https://spec.matrix.org/v1.19/client-server-api/#content-repository
"""

from typing import Any, Final

from client_api.media_answer import media_answer
from client_api.media_wishes import asker_of, thumbnail_wish, uri_of
from homeserver.config.schema import MediaConfig
from homeserver.services.media.downloads import Downloads, Medium
from homeserver.services.media.thumbnails import Thumbnails
from homeserver.services.media.uploads import Upload, Uploads
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

_DOWNLOAD: Final = "/_matrix/client/v1/media/download/{server_name}/{media_id}"
_THUMBNAIL: Final = "/_matrix/client/v1/media/thumbnail/{server_name}/{media_id}"
_CREATE: Final[dict[str, Any]] = {"type": "object"}


def section(uploads: Uploads, downloads: Downloads, thumbnails: Thumbnails, config: MediaConfig) -> Section:
    """The endpoints."""
    s = Section("Content repository")

    async def find(request: Request) -> Medium:
        asker = asker_of(request, request.requester.user_id)
        return await downloads.find(uri_of(request), asker)

    async def answer(request: Request, medium: Medium, *, file_name: str | None = None) -> Response:
        # The specification lets these endpoints redirect; who cannot follow says so.
        allow_redirect = request.query_boolean("allow_redirect", default=True)
        return await media_answer(request, downloads, medium, allow_redirect=allow_redirect, file_name=file_name)

    @s.endpoint(
        "POST",
        "/_matrix/media/v3/upload",
        aliases=("/_matrix/media/v1/upload",),
        body_streamed=True,
        body_bytes_max=config.upload_bytes_max,
        rate_limit=RateLimit.WRITE,
    )
    async def upload_content(request: Request) -> Response:
        """Stores a file."""
        return Response({"content_uri": await uploads.upload(_upload(request))})

    @s.endpoint("POST", "/_matrix/media/v1/create", body=_CREATE, body_required=False, rate_limit=RateLimit.WRITE)
    async def create_content(request: Request) -> Response:
        """Gives out the URI of a file that will be uploaded later."""
        pending = await uploads.create(request.requester.user_id)
        return Response({"content_uri": pending.uri, "unused_expires_at": pending.expires_ts})

    @s.endpoint(
        "PUT",
        "/_matrix/media/v3/upload/{server_name}/{media_id}",
        body_streamed=True,
        body_bytes_max=config.upload_bytes_max,
        rate_limit=RateLimit.WRITE,
    )
    async def upload_content_to_mxc(request: Request) -> Response:
        """Stores the file of a URI that was given out before."""
        await uploads.upload_to(uri_of(request), _upload(request))
        return Response()

    @s.endpoint("GET", _DOWNLOAD, access=Access.GUEST, rate_limit=RateLimit.MEDIA)
    async def get_content_authed(request: Request) -> Response:
        """A file."""
        return await answer(request, await find(request))

    @s.endpoint("GET", f"{_DOWNLOAD}/{{file_name}}", access=Access.GUEST, rate_limit=RateLimit.MEDIA)
    async def get_content_override_name_authed(request: Request) -> Response:
        """A file, under another name."""
        return await answer(request, await find(request), file_name=request.path["file_name"])

    @s.endpoint("GET", _THUMBNAIL, access=Access.GUEST, rate_limit=RateLimit.MEDIA)
    async def get_content_thumbnail_authed(request: Request) -> Response:
        """A picture, smaller."""
        wish = thumbnail_wish(request)
        thumbnail = await thumbnails.find(await find(request), wish)
        return await answer(request, thumbnail)

    @s.endpoint("GET", "/_matrix/client/v1/media/config")
    async def get_config_authed(_: Request) -> Response:
        """How large a file may be."""
        return Response({"m.upload.size": config.upload_bytes_max})

    return s


def _upload(request: Request) -> Upload:
    assert request.stream is not None, "the endpoint streams its body"
    return Upload(
        user_id=request.requester.user_id,
        chunks=request.stream,
        content_type=request.headers.get("content-type"),
        file_name=request.query_text("filename"),
    )
