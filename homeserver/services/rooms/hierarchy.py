"""Walking through the tree of a space.

The tree is read (`space_tree.py`) and then walked depth first. A page's token says how far the walk had come, and for
how long it holds; the walk starts anew for each page.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, InvalidParam
from homeserver.core.ids import RoomId
from homeserver.core.requester import Requester
from homeserver.services.rooms.space_tree import SpaceTrees, Tree, TreeRoom

LIMIT_MAX: Final = 50
DEPTH_MAX: Final = 10
_TOKEN_LIFETIME_MS: Final = 60 * 60 * 1000
_TOKEN: Final = re.compile(r"h(\d{1,15})_(\d{1,2})_([01])_(\d{1,4})", re.ASCII)


@dataclass(frozen=True, slots=True)
class HierarchyRequest:
    """Which part of a tree is wanted.

    Attributes:
        max_depth: how many levels below the space.
        from_token: where to go on; None to start.
        limit: how many rooms at most.
    """

    suggested_only: bool = False
    max_depth: int = DEPTH_MAX
    from_token: str | None = None
    limit: int = LIMIT_MAX


@dataclass(frozen=True, slots=True)
class HierarchyPage:
    """Rooms in the form of the client-server API, and where the next page starts; None if there is none."""

    rooms: Sequence[Mapping[str, Any]]
    next_batch: str | None


class SpaceHierarchies:
    """Shows the trees of spaces, as far as the rooms in it may be known to who asks."""

    def __init__(self, *, trees: SpaceTrees, clock: Clock) -> None:
        self._trees = trees
        self._clock = clock

    async def page(self, requester: Requester, room_id: RoomId, request: HierarchyRequest) -> HierarchyPage:
        """A page of the tree, with the space itself first.

        Raises:
            InvalidParam: the token is none, is too old, or belongs to another request.
            Forbidden: the requester may not know of the space, or there is none.
        """
        started_ms, offset = self._clock.now_ms(), 0
        if request.from_token is not None:
            started_ms, offset = self._parse_token(request.from_token, request)
        depth = min(request.max_depth, DEPTH_MAX)
        tree = await self._trees.read(requester.user_id, room_id, depth=depth, suggested_only=request.suggested_only)
        if room_id not in tree:
            raise Forbidden("You are not allowed to view this room")
        limit = min(request.limit, LIMIT_MAX)
        shown = list(islice(_walk(tree, room_id, depth), offset, offset + limit + 1))
        token = None
        if len(shown) > limit:
            token = f"h{started_ms}_{request.max_depth}_{int(request.suggested_only)}_{offset + limit}"
        return HierarchyPage([each.json() for each in shown[:limit]], token)

    def _parse_token(self, token: str, request: HierarchyRequest) -> tuple[int, int]:
        """When the first page was served, and how many rooms have been."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise InvalidParam("Unknown pagination token")
        started_ms, max_depth, suggested_only, offset = (int(each) for each in match.groups())
        if not 0 <= self._clock.now_ms() - started_ms <= _TOKEN_LIFETIME_MS:
            raise InvalidParam("The pagination token has expired")
        if (max_depth, suggested_only) != (request.max_depth, int(request.suggested_only)):
            raise InvalidParam("suggested_only and max_depth cannot change on paginated requests")
        return started_ms, offset


def _walk(tree: Tree, root: RoomId, depth: int) -> Iterator[TreeRoom]:
    """The rooms of a tree depth first, each once; loops and whatever is too deep are passed over."""
    seen: set[RoomId] = set()
    stack = [(root, 0)]
    while stack:
        room_id, level = stack.pop()
        if room_id in seen or room_id not in tree:
            continue
        seen.add(room_id)
        yield tree[room_id]
        if level < depth:
            stack.extend((child.room_id, level + 1) for child in reversed(tree[room_id].children))
