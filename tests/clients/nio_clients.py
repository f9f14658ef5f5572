"""matrix-nio's client as it is. It checks answers against schemas of its own: what does not fit comes as an error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from nio import (
    AsyncClient,
    AsyncClientConfig,
    BadEvent,
    ErrorResponse,
    Event,
    LoginResponse,
    RegisterResponse,
    RoomInfo,
    RoomMessageText,
    SyncResponse,
    UnknownBadEvent,
)

PASSWORD = "correct horse battery staple"
# nio waits and tries again for ever where the connection fails; here a failure shall be seen.
CONFIG = AsyncClientConfig(max_timeouts=0, max_limit_exceeded=0, request_timeout=30)

R = TypeVar("R")


def good(response: Any, kind: type[R]) -> R:
    """The response, which must be of its kind: nio makes an ErrorResponse of what it does not understand."""
    assert not isinstance(response, ErrorResponse), f"nio does not accept the answer: {response}"
    assert isinstance(response, kind), f"{type(response).__name__} instead of {kind.__name__}"
    return response


@asynccontextmanager
async def registered(url: str, name: str) -> AsyncIterator[AsyncClient]:
    """A client of a user that registers now."""
    client = AsyncClient(url, name, config=CONFIG)
    try:
        good(await client.register(name, PASSWORD, device_name=f"{name}'s phone"), RegisterResponse)
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def logged_in(url: str, name: str) -> AsyncIterator[AsyncClient]:
    """A client of a user that has an account; it starts from nothing, as a new device does."""
    client = AsyncClient(url, name, config=CONFIG)
    try:
        good(await client.login(PASSWORD, device_name=f"{name}'s laptop"), LoginResponse)
        yield client
    finally:
        await client.close()


async def synced(client: AsyncClient, **options: Any) -> SyncResponse:
    """One sync, of which nio has understood every event."""
    response = good(await client.sync(**options), SyncResponse)
    for room in (*response.rooms.join.values(), *response.rooms.leave.values()):
        events = [*understood(room.state), *understood(room.timeline.events)]
        assert all(event.event_id and event.sender for event in events)
    for invitation in response.rooms.invite.values():
        understood(invitation.invite_state)
    return response


def understood(events: list[Any]) -> list[Event]:
    """The events, of which nio must have understood every one."""
    bad = [event for event in events if isinstance(event, BadEvent | UnknownBadEvent)]
    assert not bad, f"nio does not understand {bad}"
    return events


def joined(response: SyncResponse, room_id: str) -> RoomInfo:
    """What a sync tells of a room that the user is in."""
    assert room_id in response.rooms.join, f"nothing of {room_id}, but of {list(response.rooms.join)}"
    return response.rooms.join[room_id]


async def heard_messages(client: AsyncClient, room_id: str, count: int) -> list[RoomMessageText]:
    """The next messages in a room, waited for by syncs."""
    heard: list[RoomMessageText] = []
    while len(heard) < count:
        room = (await synced(client, timeout=10_000)).rooms.join.get(room_id)
        if room is not None:
            heard += [event for event in room.timeline.events if isinstance(event, RoomMessageText)]
    return heard


async def received(client: AsyncClient, room_id: str, kind: type[R], *, syncs_max: int = 10) -> R:
    """The next event of a kind in a room's timeline or among its ephemeral events, waited for by syncs."""
    for _ in range(syncs_max):
        room = (await synced(client, timeout=10_000)).rooms.join.get(room_id)
        if room is None:
            continue
        for event in (*room.timeline.events, *room.ephemeral):
            if isinstance(event, kind):
                return event
    raise AssertionError(f"{client.user_id} has received no {kind.__name__} in {room_id}")
