"""Checks of the types in what other servers answer; whatever is wrong is the server's fault, not the caller's."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from federation.wire.json_stream import LargeObjectParser
from homeserver.core.errors import InvalidParam, NotJson, RemoteUnavailable, UnsupportedRoomVersion
from homeserver.core.ids import EventId, ServerName
from homeserver.core.room_versions import RoomVersion, room_version_named
from homeserver.services.remote import EventJson, EventTemplate

BATCH_BYTES: Final = 256 * 1024
SERVERS_MAX: Final = 50_000


def nonsense(server: ServerName) -> RemoteUnavailable:
    """The error that a server's answer has not the form it must have."""
    return RemoteUnavailable(f"The server {server} answers nonsense")


async def read_large(server: ServerName, chunks: AsyncGenerator[bytes, None]) -> Mapping[str, Any]:
    """A large answer, parsed in a thread as it comes.

    Raises:
        RemoteUnavailable: it is no JSON object; or whatever the chunks raise.
    """
    parser = LargeObjectParser()
    batch = bytearray()
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                batch += chunk
                if len(batch) >= BATCH_BYTES:
                    await asyncio.to_thread(parser.feed, bytes(batch))
                    batch.clear()
        await asyncio.to_thread(parser.feed, bytes(batch))
        return parser.finish()
    except NotJson as error:
        raise nonsense(server) from error


def member(server: ServerName, answer: object, name: str) -> object:
    """A member of an answer, which must be an object; None if it is not there.

    Raises:
        RemoteUnavailable: the answer is something else.
    """
    if not isinstance(answer, dict):
        raise nonsense(server)
    value: object = answer.get(name)
    return value


def json_object(server: ServerName, value: object) -> Mapping[str, Any]:
    """A value that must be an object.

    Raises:
        RemoteUnavailable: it is something else.
    """
    if not isinstance(value, dict):
        raise nonsense(server)
    return value


def events(server: ServerName, answer: object, name: str, *, limit: int | None = None) -> Sequence[EventJson]:
    """The events in a list of an answer, no more than the limit; what is no object is left out.

    Raises:
        RemoteUnavailable: there is no such list.
    """
    value = member(server, answer, name)
    if not isinstance(value, list):
        raise nonsense(server)
    return [entry for entry in value[:limit] if isinstance(entry, dict)]


def event_ids(server: ServerName, answer: object, name: str) -> Sequence[EventId]:
    """The event ids in a list of an answer.

    Raises:
        RemoteUnavailable: there is no such list, or there is something else in it.
    """
    value = member(server, answer, name)
    if not isinstance(value, list):
        raise nonsense(server)
    try:
        return [EventId.parse(entry) for entry in value]
    except InvalidParam as error:
        raise nonsense(server) from error


def server_names(value: object, *, limit: int = SERVERS_MAX) -> Sequence[ServerName]:
    """The server names in a list, each once; whatever else is there is left out."""
    found: dict[ServerName, None] = {}
    for entry in value if isinstance(value, list) else ():
        try:
            found[ServerName.parse(entry)] = None
        except InvalidParam:
            continue
        if len(found) >= limit:
            break
    return list(found)


def template(server: ServerName, answer: object) -> EventTemplate:
    """The answer to a make_join, make_leave or make_knock.

    Raises:
        RemoteUnavailable: there is no event in it, or the room's version is none that this server knows.
    """
    event = json_object(server, member(server, answer, "event"))
    return EventTemplate(room_version=_room_version(server, answer), event=event)


def _room_version(server: ServerName, answer: object) -> RoomVersion:
    """A server that does not name the version is of the time when there were two, which do not differ here."""
    named = member(server, answer, "room_version")
    try:
        return room_version_named("1" if named is None else named)
    except UnsupportedRoomVersion as error:
        raise RemoteUnavailable(f"The room is of a version that only {server} knows") from error
