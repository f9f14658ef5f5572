"""Joins of other servers' users to rooms that this server is in.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

import orjson

from federation.inbound.handed_in import BODY_BYTES_MAX, HANDED_IN, as_older_servers_know_it, handed_in
from federation.inbound.origin import origin_of
from homeserver.core.ids import RoomId, UserId
from homeserver.services.rooms.resident_joins import AcceptedJoin, ResidentJoins
from homeserver.services.rooms.resident_templates import ResidentTemplates
from homeserver.web.endpoint import Access, RateLimit, Request, Response, Section

_JSON: Final = {"Content-Type": "application/json"}


def section(templates: ResidentTemplates, joins: ResidentJoins) -> Section:
    """The endpoints over their use cases."""
    s = Section("Joining rooms")

    @s.endpoint(
        "GET",
        "/_matrix/federation/v1/make_join/{room_id}/{user_id}",
        access=Access.SERVER,
        rate_limit=RateLimit.FEDERATION,
    )
    async def make_join(request: Request) -> Response:
        """A join to be signed by the joining server."""
        room_id, user_id = RoomId.parse(request.path["room_id"]), UserId.parse(request.path["user_id"])
        versions = request.query.get("ver") or ["1"]
        template = await templates.make_join(origin_of(request), room_id, user_id, versions=versions)
        return Response({"room_version": template.room_version.identifier, "event": template.event})

    @s.endpoint(
        "PUT",
        "/_matrix/federation/v2/send_join/{room_id}/{event_id}",
        access=Access.SERVER,
        body=HANDED_IN,
        body_bytes_max=BODY_BYTES_MAX,
        rate_limit=RateLimit.FEDERATION,
    )
    async def send_join_v2(request: Request) -> Response:
        """Makes a signed join a part of the room; answers with the room's state."""
        omit_members = request.query_boolean("omit_members")
        accepted = await joins.join(*handed_in(request), omit_members=omit_members)
        return Response(_answer(joins, accepted), headers=_JSON)

    @s.endpoint(
        "PUT",
        "/_matrix/federation/v1/send_join/{room_id}/{event_id}",
        access=Access.SERVER,
        body=HANDED_IN,
        body_bytes_max=BODY_BYTES_MAX,
        rate_limit=RateLimit.FEDERATION,
    )
    async def send_join_v1(request: Request) -> Response:
        """As version 2, for servers that do not know that yet."""
        with as_older_servers_know_it():
            accepted = await joins.join(*handed_in(request), omit_members=False)
        return Response(_older_answer(joins, accepted), headers=_JSON)

    return s


async def _older_answer(joins: ResidentJoins, accepted: AcceptedJoin) -> AsyncGenerator[bytes, None]:
    """The body of the older answer: the newer one in a list, beside a status."""
    yield b"[200,"
    async with aclosing(_answer(joins, accepted)) as parts:
        async for part in parts:
            yield part
    yield b"]"


async def _answer(joins: ResidentJoins, accepted: AcceptedJoin) -> AsyncGenerator[bytes, None]:
    """The body of the answer, some events at a time."""
    first: dict[str, Any] = {"members_omitted": accepted.members_omitted}
    if accepted.servers_in_room is not None:
        first["servers_in_room"] = accepted.servers_in_room
    yield orjson.dumps(first)[:-1]
    for name, event_nids in (("state", accepted.state), ("auth_chain", accepted.auth_chain)):
        yield f',"{name}":['.encode()
        async with aclosing(_events(joins, event_nids)) as parts:
            async for part in parts:
                yield part
        yield b"]"
    yield b',"event":'
    async with aclosing(_events(joins, [accepted.event])) as parts:
        async for part in parts:
            yield part
    yield b"}"


async def _events(joins: ResidentJoins, event_nids: Sequence[int]) -> AsyncGenerator[bytes, None]:
    """Events with commas between them."""
    separator = ""
    async with aclosing(joins.encoded(event_nids)) as chunks:
        async for events in chunks:
            if events:
                yield (separator + ",".join(events)).encode()
                separator = ","
