"""Media, for administrators and their tools, as these know it from Synapse.

https://element-hq.github.io/synapse/latest/admin_api/media_admin_api.html
"""

from typing import Any, Final, cast

from client_api.media_wishes import uri_of
from homeserver.core.errors import InvalidParam
from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.services.media.administration import MediaAdministration
from homeserver.web.endpoint import Access, Request, Response, Section
from storage.local_media import LocalMedia, Order

_V1: Final = "/_synapse/admin/v1"
_ONE: Final = "{server_name}/{media_id}"
_OF_USER: Final = f"{_V1}/users/{{user_id}}/media"
_OF_ROOM: Final = f"{_V1}/room/{{room_id}}/media"
_ORDERS: Final = {
    "media_id": "media_id",
    "created_ts": "created_ts",
    "last_access_ts": "last_access_ts",
    "media_length": "size_bytes",
}
_LIMIT_DEFAULT: Final = 100
_LIMIT_MAX: Final = 1000
# Administrators who mean seconds would remove nothing, those who mean nothing would remove all.
_BEFORE_TS_MIN: Final = 30_000_000_000


def section(media: MediaAdministration, server_name: ServerName) -> Section:
    """The endpoints."""
    s = Section("Administration of media")

    @s.endpoint("POST", f"{_V1}/media/quarantine/{_ONE}", access=Access.ADMIN)
    async def admin_quarantine_media(request: Request) -> Response:
        """Has nobody given a medium any more, nor what has the same bytes."""
        await media.quarantine(uri_of(request), by=request.requester.user_id)
        return Response()

    @s.endpoint("POST", f"{_V1}/media/unquarantine/{_ONE}", access=Access.ADMIN)
    async def admin_unquarantine_media(request: Request) -> Response:
        """Takes a medium out of quarantine."""
        await media.release(uri_of(request))
        return Response()

    @s.endpoint("POST", f"{_V1}/user/{{user_id}}/media/quarantine", access=Access.ADMIN)
    async def admin_quarantine_media_of_user(request: Request) -> Response:
        """Quarantines what a user has uploaded, but for what is protected."""
        user_id = UserId.parse(request.path["user_id"])
        count = await media.quarantine_user(user_id, by=request.requester.user_id)
        return Response({"num_quarantined": count})

    @s.endpoint("POST", f"{_V1}/media/protect/{{media_id}}", access=Access.ADMIN)
    async def admin_protect_media(request: Request) -> Response:
        """Spares a medium from the quarantine of its user's, and from retention."""
        await media.protect(request.path["media_id"], protected=True)
        return Response()

    @s.endpoint("POST", f"{_V1}/media/unprotect/{{media_id}}", access=Access.ADMIN)
    async def admin_unprotect_media(request: Request) -> Response:
        """Spares it no longer."""
        await media.protect(request.path["media_id"], protected=False)
        return Response()

    @s.endpoint("DELETE", f"{_V1}/media/{_ONE}", access=Access.ADMIN)
    async def admin_delete_media(request: Request) -> Response:
        """Removes a medium of this server."""
        uri = uri_of(request)
        if uri.server_name != server_name:
            raise InvalidParam("Only media of this server can be deleted")
        await media.delete(uri)
        return Response(_deleted([uri.media_id]))

    @s.endpoint("POST", f"{_V1}/media/delete", access=Access.ADMIN)
    async def admin_delete_unused_media(request: Request) -> Response:
        """Removes media of this server that nobody has asked for since a time."""
        deleted: list[str] = []
        async for batch in media.delete_unused(
            before_ts=_before_ts(request),
            larger_than_bytes=request.query_integer("size_gt", 0),
            keep_profiles=request.query_boolean("keep_profiles", default=True),
        ):
            deleted += batch
        return Response(_deleted(deleted))

    @s.endpoint("POST", f"{_V1}/purge_media_cache", access=Access.ADMIN)
    async def admin_purge_remote_media(request: Request) -> Response:
        """Removes media of other servers that nobody has asked for since a time."""
        count = 0
        async for batch in media.purge_remote(before_ts=_before_ts(request)):
            count += batch
        return Response({"deleted": count})

    @s.endpoint("GET", _OF_USER, access=Access.ADMIN)
    async def admin_list_media_of_user(request: Request) -> Response:
        """What a user has uploaded."""
        offset, limit, order, descending = _page(request)
        page = await media.list_of_user(
            UserId.parse(request.path["user_id"]), order=order, descending=descending, offset=offset, limit=limit
        )
        body: dict[str, Any] = {"media": [_media_json(one) for one in page.media], "total": page.total}
        if offset + limit < page.total:
            body["next_token"] = offset + len(page.media)
        return Response(body)

    @s.endpoint("DELETE", _OF_USER, access=Access.ADMIN)
    async def admin_delete_media_of_user(request: Request) -> Response:
        """Removes what a user has uploaded, a page of it."""
        offset, limit, order, descending = _page(request)
        deleted = await media.delete_of_user(
            UserId.parse(request.path["user_id"]), order=order, descending=descending, offset=offset, limit=limit
        )
        return Response(_deleted(deleted))

    _add_rooms(s, media, server_name)
    return s


def _add_rooms(s: Section, media: MediaAdministration, server_name: ServerName) -> None:
    """The endpoints about the media of a room: what its events show, unless they are encrypted."""

    @s.endpoint("GET", _OF_ROOM, access=Access.ADMIN)
    async def admin_list_media_of_room(request: Request) -> Response:
        """What the events of a room show."""
        uris = [uri async for uri in media.all_of_room(RoomId.parse(request.path["room_id"]))]
        return Response(
            {
                "local": [uri for uri in uris if uri.server_name == server_name],
                "remote": [uri for uri in uris if uri.server_name != server_name],
            }
        )

    @s.endpoint("DELETE", _OF_ROOM, access=Access.ADMIN)
    async def admin_delete_media_of_room(request: Request) -> Response:
        """Removes what this room shows, and neither another room nor a profile."""
        deleted: list[str] = []
        async for batch in media.delete_of_room(RoomId.parse(request.path["room_id"])):
            deleted += batch
        return Response(_deleted(deleted))

    @s.endpoint("POST", f"{_OF_ROOM}/quarantine", aliases=(f"{_V1}/quarantine_media/{{room_id}}",), access=Access.ADMIN)
    async def admin_quarantine_media_of_room(request: Request) -> Response:
        """Quarantines what the events of a room show, but for what is protected."""
        room_id = RoomId.parse(request.path["room_id"])
        count = await media.quarantine_room(room_id, by=request.requester.user_id)
        return Response({"num_quarantined": count})


def _before_ts(request: Request) -> int:
    request.query_required("before_ts")
    return request.query_integer("before_ts", 0, minimum=_BEFORE_TS_MIN)


def _page(request: Request) -> tuple[int, int, Order, bool]:
    offset = request.query_integer("from", 0)
    limit = request.query_integer("limit", _LIMIT_DEFAULT, minimum=1, maximum=_LIMIT_MAX, clamp=True)
    wanted = request.query_choice("order_by", tuple(_ORDERS))
    direction = request.query_choice("dir", ("f", "b"))
    # The newest first, unless something is said.
    descending = direction == "b" or (direction is None and wanted is None)
    return offset, limit, cast(Order, _ORDERS[wanted or "created_ts"]), descending


def _deleted(media_ids: Any) -> dict[str, Any]:
    return {"deleted_media": list(media_ids), "total": len(media_ids)}


def _media_json(media: LocalMedia) -> dict[str, Any]:
    return {
        "media_id": media.media_id,
        "media_type": media.content_type,
        "media_length": media.size_bytes,
        "upload_name": media.file_name,
        "created_ts": media.created_ts,
        "last_access_ts": media.last_access_ts,
        "quarantined_by": media.quarantined_by,
        "safe_from_quarantine": media.protected,
    }
