"""Previews of the pages that messages link to.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url
"""

import orjson

from homeserver.services.media.previews import UrlPreviews
from homeserver.web.endpoint import RateLimit, Request, Response, Section


def section(previews: UrlPreviews) -> Section:
    """The endpoints."""
    s = Section("Previews of URLs")

    async def preview(request: Request) -> Response:
        request.query_integer("ts", 0)  # a preview is as new as it can be had
        text = await previews.preview(
            request.requester.user_id,
            request.query_required("url"),
            accept_language=request.headers.get("accept-language"),
        )
        return Response(orjson.Fragment(text))

    @s.endpoint("GET", "/_matrix/client/v1/media/preview_url", rate_limit=RateLimit.READ)
    async def get_url_preview_authed(request: Request) -> Response:
        """What a page says of itself."""
        return await preview(request)

    @s.endpoint(
        "GET",
        "/_matrix/media/v3/preview_url",
        aliases=("/_matrix/media/v1/preview_url",),
        rate_limit=RateLimit.READ,
    )
    async def get_url_preview(request: Request) -> Response:
        """What a page says of itself; deprecated."""
        return await preview(request)

    return s
