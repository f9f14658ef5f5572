"""What requests for media ask for.

https://spec.matrix.org/v1.19/client-server-api/#content-repository
"""

from typing import Final, cast

from homeserver.core.errors import InvalidParam, NotFound
from homeserver.core.ids import MxcUri
from homeserver.services.media.downloads import WAIT_MS_MAX, Asker
from homeserver.services.media.thumbnails import Method, ThumbnailWish
from homeserver.web.endpoint import Request

TIMEOUT_MS_DEFAULT: Final = 20_000


def uri_of(request: Request) -> MxcUri:
    """The medium that a path names; ids are checked, so that none leads out of the repository.

    Raises:
        NotFound: there can be none of this name.
    """
    try:
        return MxcUri.parse(f"mxc://{request.path['server_name']}/{request.path['media_id']}")
    except InvalidParam:
        raise NotFound("There is no such content") from None


def asker_of(request: Request, name: str, *, authenticated: bool = True, allow_remote: bool = True) -> Asker:
    """Who asks for a medium, and how long for.

    Raises:
        InvalidParam: the time is none.
    """
    timeout_ms = request.query_integer("timeout_ms", TIMEOUT_MS_DEFAULT, maximum=WAIT_MS_MAX, clamp=True)
    return Asker(name=name, authenticated=authenticated, allow_remote=allow_remote, timeout_ms=timeout_ms)


def thumbnail_wish(request: Request) -> ThumbnailWish:
    """The thumbnail that a query asks for.

    Raises:
        MissingParam, InvalidParam: its size is not there, or none; its method is unknown.
    """
    request.query_required("width")
    request.query_required("height")
    return ThumbnailWish(
        width=request.query_integer("width", 0, minimum=1),
        height=request.query_integer("height", 0, minimum=1),
        method=cast(Method, request.query_choice("method", ("scale", "crop"), "scale")),
        animated=request.query_boolean("animated"),
    )
