"""Server-side key backups.

https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups
"""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from homeserver.core.errors import NotFound
from homeserver.core.ids import RoomId
from homeserver.services.e2ee.key_backup import KeyBackups, KeySelection, parse_key, parse_rooms, parse_sessions
from homeserver.web.endpoint import EMPTY, RateLimit, Request, Response, Section
from storage.key_backups import BackedUpKey

VERSION: Final = {
    "type": "object",
    "required": ["algorithm", "auth_data"],
    "properties": {
        "algorithm": {"type": "string"},
        "auth_data": {"type": "object"},
        "version": {"type": "string"},
    },
}
# The keys themselves are checked by hand: a client uploads hundreds at once.
ROOMS: Final = {"type": "object", "required": ["rooms"]}
SESSIONS: Final = {"type": "object", "required": ["sessions"]}
KEY: Final = {"type": "object", "required": ["session_data"]}
KEYS_BYTES_MAX: Final = 4 * 1024 * 1024

_VERSIONS: Final = "/_matrix/client/v3/room_keys/version"
_KEYS: Final = "/_matrix/client/v3/room_keys/keys"


def section(backups: KeyBackups) -> Section:
    """The endpoints."""
    s = Section("Server-side key backups")
    _declare_versions(s, backups)
    _declare_writing(s, backups)
    _declare_reading(s, backups)
    _declare_deleting(s, backups)
    return s


def _declare_versions(s: Section, backups: KeyBackups) -> None:
    @s.endpoint("POST", _VERSIONS, body=VERSION, rate_limit=RateLimit.WRITE)
    async def post_room_keys_version(request: Request) -> Response:
        """Makes a backup."""
        version = await backups.create(
            request.requester.user_id, algorithm=request.body["algorithm"], auth_data=request.body["auth_data"]
        )
        return Response({"version": version})

    @s.endpoint("GET", _VERSIONS)
    async def get_room_keys_version_current(request: Request) -> Response:
        """The current backup."""
        return Response(await backups.get(request.requester.user_id))

    @s.endpoint("GET", f"{_VERSIONS}/{{version}}")
    async def get_room_keys_version(request: Request) -> Response:
        """A backup."""
        return Response(await backups.get(request.requester.user_id, request.path["version"]))

    @s.endpoint("PUT", f"{_VERSIONS}/{{version}}", body=VERSION, rate_limit=RateLimit.WRITE)
    async def put_room_keys_version(request: Request) -> Response:
        """Replaces the data of a backup's algorithm."""
        await backups.update(
            request.requester.user_id,
            request.path["version"],
            algorithm=request.body["algorithm"],
            auth_data=request.body["auth_data"],
            named_version=request.body.get("version"),
        )
        return EMPTY

    @s.endpoint("DELETE", f"{_VERSIONS}/{{version}}", rate_limit=RateLimit.WRITE)
    async def delete_room_keys_version(request: Request) -> Response:
        """Deletes a backup with all its keys."""
        await backups.delete(request.requester.user_id, request.path["version"])
        return EMPTY


def _declare_writing(s: Section, backups: KeyBackups) -> None:
    @s.endpoint("PUT", _KEYS, body=ROOMS, body_bytes_max=KEYS_BYTES_MAX, rate_limit=RateLimit.WRITE)
    async def put_room_keys(request: Request) -> Response:
        """Adds keys of several rooms."""
        version, keys = request.query_required("version"), parse_rooms(request.body["rooms"])
        return Response(await backups.put_keys(request.requester.user_id, version, keys))

    @s.endpoint("PUT", f"{_KEYS}/{{room_id}}", body=SESSIONS, body_bytes_max=KEYS_BYTES_MAX, rate_limit=RateLimit.WRITE)
    async def put_room_keys_by_room_id(request: Request) -> Response:
        """Adds keys of one room."""
        version = request.query_required("version")
        keys = parse_sessions(RoomId.parse(request.path["room_id"]), request.body)
        return Response(await backups.put_keys(request.requester.user_id, version, keys))

    @s.endpoint("PUT", f"{_KEYS}/{{room_id}}/{{session_id}}", body=KEY, rate_limit=RateLimit.WRITE)
    async def put_room_key_by_session_id(request: Request) -> Response:
        """Adds one key."""
        version = request.query_required("version")
        key = parse_key(RoomId.parse(request.path["room_id"]), request.path["session_id"], request.body)
        return Response(await backups.put_keys(request.requester.user_id, version, [key]))


def _declare_reading(s: Section, backups: KeyBackups) -> None:
    async def read(request: Request) -> list[BackedUpKey]:
        version = request.query_required("version")
        return await backups.list_keys(request.requester.user_id, version, _selection(request))

    @s.endpoint("GET", _KEYS)
    async def get_room_keys(request: Request) -> Response:
        """All keys of a backup."""
        rooms: dict[str, list[BackedUpKey]] = {}
        for key in await read(request):
            rooms.setdefault(key.room_id, []).append(key)
        return Response({"rooms": {room_id: _sessions_json(keys) for room_id, keys in rooms.items()}})

    @s.endpoint("GET", f"{_KEYS}/{{room_id}}")
    async def get_room_keys_by_room_id(request: Request) -> Response:
        """The keys of one room."""
        return Response(_sessions_json(await read(request)))

    @s.endpoint("GET", f"{_KEYS}/{{room_id}}/{{session_id}}")
    async def get_room_key_by_session_id(request: Request) -> Response:
        """One key."""
        keys = await read(request)
        if not keys:
            raise NotFound("Key not found")
        return Response(_key_json(keys[0]))


def _declare_deleting(s: Section, backups: KeyBackups) -> None:
    async def delete(request: Request) -> Response:
        version = request.query_required("version")
        return Response(await backups.delete_keys(request.requester.user_id, version, _selection(request)))

    @s.endpoint("DELETE", _KEYS, rate_limit=RateLimit.WRITE)
    async def delete_room_keys(request: Request) -> Response:
        """Removes all keys of a backup."""
        return await delete(request)

    @s.endpoint("DELETE", f"{_KEYS}/{{room_id}}", rate_limit=RateLimit.WRITE)
    async def delete_room_keys_by_room_id(request: Request) -> Response:
        """Removes the keys of one room."""
        return await delete(request)

    @s.endpoint("DELETE", f"{_KEYS}/{{room_id}}/{{session_id}}", rate_limit=RateLimit.WRITE)
    async def delete_room_key_by_session_id(request: Request) -> Response:
        """Removes one key."""
        return await delete(request)


def _selection(request: Request) -> KeySelection:
    """Which keys the path names."""
    room_id = request.path.get("room_id")
    return KeySelection(None if room_id is None else RoomId.parse(room_id), request.path.get("session_id"))


def _sessions_json(keys: Iterable[BackedUpKey]) -> dict[str, Any]:
    return {"sessions": {key.session_id: _key_json(key) for key in keys}}


def _key_json(key: BackedUpKey) -> dict[str, Any]:
    return {
        "first_message_index": key.first_message_index,
        "forwarded_count": key.forwarded_count,
        "is_verified": key.is_verified,
        "session_data": orjson.Fragment(key.session_data),
    }
