"""Filters that clients define once and name by their id in later requests.

https://spec.matrix.org/v1.19/client-server-api/#filtering
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from homeserver.core.canonical_json import encode_canonical, parse_json
from homeserver.core.errors import Forbidden, NotFound, UnavailableForNow
from homeserver.core.filters import Filter
from homeserver.core.ids import UserId
from homeserver.core.requester import Requester
from storage import filters
from storage.bounded_cache import BoundedCache
from storage.database import Database
from storage.errors import UniqueViolation

FILTERS_KEPT: Final = 1000
_CACHED_MAX: Final = 10_000
_FILTER_BYTES: Final = 2_000
_ATTEMPTS: Final = 5


class Filters:
    """Stores and finds filters."""

    def __init__(self, *, db: Database) -> None:
        self._db = db
        # A filter never changes once it has an id.
        self._cached: BoundedCache[tuple[str, str], Filter] = BoundedCache(
            "filters", weight_max=_CACHED_MAX, bytes_each=_FILTER_BYTES
        )

    async def define(self, requester: Requester, user_id: UserId, definition: Mapping[str, Any]) -> str:
        """Stores a filter; its id, which is the same for the same definition.

        Raises:
            Forbidden: it would be another user's.
            BadJson: the definition is wrong.
        """
        _check_own(requester, user_id)
        Filter.parse(definition)
        encoded = encode_canonical(definition)
        definition_hash = hashlib.sha256(encoded).digest()
        for _ in range(_ATTEMPTS):
            async with self._db.connection() as conn:
                known = await filters.find_filter_id(conn, user_id=user_id, definition_hash=definition_hash)
                if known is not None:
                    return str(known)
                try:
                    return str(
                        await filters.insert_filter(
                            conn,
                            user_id=user_id,
                            definition_hash=definition_hash,
                            definition=encoded.decode(),
                            kept=FILTERS_KEPT,
                        )
                    )
                except UniqueViolation:
                    continue  # another request has taken the id, or stored the same
        raise UnavailableForNow("Too many filters are being stored at this moment")

    async def get_definition(self, requester: Requester, user_id: UserId, filter_id: str) -> Any:
        """A filter as it was defined, as JSON ready to be sent.

        Raises:
            Forbidden: it is another user's.
            NotFound: there is none of that id.
        """
        _check_own(requester, user_id)
        return orjson.Fragment(await self._definition(user_id, filter_id))

    async def get(self, user_id: UserId, filter_id: str) -> Filter:
        """A user's filter, ready to be used.

        Raises:
            NotFound: there is none of that id.
        """
        key = (user_id, filter_id)
        cached = self._cached.get(key)
        if cached is None:
            cached = Filter.parse(parse_json(await self._definition(user_id, filter_id)))
            self._cached.put(key, cached)
        return cached

    async def _definition(self, user_id: UserId, filter_id: str) -> str:
        definition = None
        if filter_id.isascii() and filter_id.isdigit() and len(filter_id) <= 9:
            async with self._db.connection() as conn:
                definition = await filters.find_definition(conn, user_id=user_id, filter_id=int(filter_id))
        if definition is None:
            raise NotFound("There is no such filter")
        return definition


def _check_own(requester: Requester, user_id: UserId) -> None:
    if requester.user_id != user_id:
        raise Forbidden("Filters are only for the user itself")
