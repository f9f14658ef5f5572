"""The answer with a file: so that no browser runs anything of it, whatever it is.

https://spec.matrix.org/v1.19/client-server-api/#serving-inline-content
"""

from base64 import urlsafe_b64encode
from types import MappingProxyType
from typing import Final

from homeserver.core.content_disposition import content_disposition
from homeserver.services.media.downloads import Downloads, Medium
from homeserver.web.byte_ranges import NoSuchRange, is_known, wanted_range
from homeserver.web.endpoint import Request, Response

CACHE_SECONDS: Final = 86_400

SAFETY_HEADERS: Final = MappingProxyType(
    {
        "Content-Security-Policy": (
            "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
            "style-src 'unsafe-inline'; object-src 'self';"
        ),
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Robots-Tag": "noindex, nofollow, noarchive, noimageindex",
    }
)
"""What goes with every file."""


async def media_answer(
    request: Request, downloads: Downloads, medium: Medium, *, allow_redirect: bool, file_name: str | None = None
) -> Response:
    """The answer with a medium, or with the part of it that is asked for, or with the place where it is.

    Args:
        request: what was asked.
        downloads: opens the file.
        medium: which.
        allow_redirect: the asker may be sent elsewhere.
        file_name: the name that the asker wants it to have; None for its own.

    Raises:
        NotFound: the file is not there any more.
    """
    disposition = content_disposition(medium.content_type, file_name or medium.file_name)
    etag = f'"{urlsafe_b64encode(medium.sha256).decode().rstrip("=")}"'
    headers = {
        **SAFETY_HEADERS,
        "Content-Type": medium.content_type,
        "Content-Disposition": disposition,
        "Cache-Control": f"private, max-age={CACHE_SECONDS}",
        "ETag": etag,
        "Accept-Ranges": "bytes",
    }
    if is_known(request.headers, etag):
        return Response(b"", status=304, headers=headers)
    url = await downloads.url(medium, content_disposition=disposition) if allow_redirect else None
    if url is not None:
        return Response(b"", status=307, headers={**SAFETY_HEADERS, "Location": url, "Cache-Control": "no-store"})
    try:
        part = wanted_range(request.headers, size_bytes=medium.size_bytes, etag=etag)
    except NoSuchRange:
        size = {"Content-Range": f"bytes */{medium.size_bytes}"}
        error = {"errcode": "M_INVALID_PARAM", "error": "The content has no such part"}
        return Response(error, status=416, headers={**SAFETY_HEADERS, **size})
    if part is None:
        opened = await downloads.open(medium)
        return Response(opened, headers={**headers, "Content-Length": str(medium.size_bytes)})
    opened = await downloads.open(medium, start=part.start, length=part.length)
    sizes = {"Content-Length": str(part.length), "Content-Range": part.content_range(medium.size_bytes)}
    return Response(opened, status=206, headers={**headers, **sizes})
