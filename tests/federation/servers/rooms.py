"""What tests of whole servers do in rooms, and how they wait for what the other servers are told."""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote

import asyncpg

from tests.federation.deployment import Homeserver
from tests.real_client import Answer, Client
from tests.waiting import WAIT_SECONDS_MAX, wait_until

State = dict[tuple[str, str], dict[str, Any]]


async def try_join(client: Client, room: str, *via: str) -> Answer:
    """Asks to join a room, by id or alias, through some servers."""
    query = "&".join(f"via={quote(server)}&server_name={quote(server)}" for server in via)
    return await client.call("POST", f"/join/{quote(room)}" + (f"?{query}" if query else ""), {})


async def join(client: Client, room: str, *via: str) -> str:
    """Joins a room; returns its id."""
    answer = await try_join(client, room, *via)
    assert answer.status == 200, answer.body
    room_id: str = answer.body["room_id"]
    return room_id


async def shared_room(places: Sequence[tuple[Homeserver, Client]], **options: Any) -> str:
    """A room of the first client that all others have joined through its server, as all of them know."""
    (home, host), *others = places
    room_id = await host.create_room(**{"preset": "public_chat", **options})
    for _, guest in others:
        await join(guest, room_id, home.name)
    for _, member in places:
        for _, guest in others:
            await until_membership(member, room_id, guest.user_id, "join")
    return room_id


async def act(client: Client, action: str, room_id: str, **body: Any) -> None:
    """Invites, leaves, kicks, bans, unbans, forgets: the last word of the path."""
    await client.post(f"/rooms/{quote(room_id)}/{action}", body)


async def set_state(client: Client, room_id: str, event_type: str, content: Any, *, state_key: str = "") -> str:
    """Sends state; returns its event id."""
    path = f"/rooms/{quote(room_id)}/state/{event_type}/{quote(state_key, safe='')}"
    event_id: str = (await client.put(path, content))["event_id"]
    return event_id


async def state(client: Client, room_id: str) -> State:
    """The whole current state, as a member sees it."""
    events = await client.get(f"/rooms/{quote(room_id)}/state")
    return {(event["type"], event["state_key"]): event for event in events}


async def state_content(client: Client, room_id: str, event_type: str, state_key: str = "") -> Any:
    """The content at a slot of the current state; None if it is empty or cannot be seen."""
    answer = await client.call("GET", f"/rooms/{quote(room_id)}/state/{event_type}/{quote(state_key, safe='')}")
    return answer.body if answer.status == 200 else None


async def membership(client: Client, room_id: str, user_id: str) -> str | None:
    """A user's membership as another one sees it."""
    content = await state_content(client, room_id, "m.room.member", user_id)
    return None if content is None else content["membership"]


async def until_membership(client: Client, room_id: str, user_id: str, expected: str | None) -> None:
    """Waits until a client sees a membership."""

    async def holds() -> bool:
        return await membership(client, room_id, user_id) == expected

    await wait_until(holds)


async def until_content(client: Client, room_id: str, event_type: str, expected: Any, *, state_key: str = "") -> None:
    """Waits until a client sees a content in the state."""

    async def holds() -> bool:
        return bool(await state_content(client, room_id, event_type, state_key) == expected)

    await wait_until(holds)


async def until_synced(
    client: Client, condition: Callable[[Any], bool], *, seconds_max: float = WAIT_SECONDS_MAX, **query: Any
) -> Any:
    """Syncs on, from the beginning, until an answer fulfils the condition; returns that answer."""
    since: str | None = None
    async with asyncio.timeout(seconds_max):
        while True:
            answer = await client.sync(since, timeout_ms=2_000, **query)
            if condition(answer):
                return answer
            since = answer["next_batch"]


async def until_seen(client: Client, room_id: str, *bodies: str) -> None:
    """Waits until the timelines of a client's syncs have had these messages."""
    missing = set(bodies)

    def complete(answer: Any) -> bool:
        room = answer.get("rooms", {}).get("join", {}).get(room_id, {})
        events = room.get("timeline", {}).get("events", [])
        missing.difference_update(event["content"].get("body") for event in events)
        return not missing

    try:
        await until_synced(client, complete)
    except TimeoutError:
        raise AssertionError(f"{client.user_id} has not seen {sorted(missing)}") from None


async def until_invited(client: Client, room_id: str) -> list[dict[str, Any]]:
    """Waits for an invitation; returns what is told of the room."""
    answer = await until_synced(client, lambda each: room_id in each.get("rooms", {}).get("invite", {}))
    events: list[dict[str, Any]] = answer["rooms"]["invite"][room_id]["invite_state"]["events"]
    return events


async def until_out(client: Client, room_id: str, *, seconds_max: float = WAIT_SECONDS_MAX) -> None:
    """Waits until a client's syncs tell that the user is out of a room, be it that they begin after that."""
    with_left_rooms = json.dumps({"room": {"include_leave": True}})
    await until_synced(
        client,
        lambda answer: room_id in answer.get("rooms", {}).get("leave", {}),
        seconds_max=seconds_max,
        filter=with_left_rooms,
    )


async def extremities(server: Homeserver, room_id: str) -> set[str]:
    """The ends of a room's graph, as a server has them."""
    connection = await asyncpg.connect(server.config.database.url)
    try:
        rows = await connection.fetch(
            "SELECT event_id FROM events WHERE event_nid IN "
            "(SELECT unnest(forward_extremities) FROM rooms WHERE room_id = $1)",
            room_id,
        )
        return {row["event_id"] for row in rows}
    finally:
        await connection.close()


async def until_agreed(
    room_id: str, places: Iterable[tuple[Homeserver, Client]], *, seconds_max: float = WAIT_SECONDS_MAX
) -> State:
    """Waits until all servers have the same state of a room and the same ends; each client is joined to it.

    Returns:
        The state.
    """
    members = list(places)
    views: list[tuple[dict[tuple[str, str], str], set[str]]] = []

    async def agreed() -> bool:
        views.clear()
        for server, client in members:
            entries = {slot: event["event_id"] for slot, event in (await state(client, room_id)).items()}
            views.append((entries, await extremities(server, room_id)))
        return all(view == views[0] for view in views)

    try:
        await wait_until(agreed, seconds_max=seconds_max)
    except TimeoutError:
        raise AssertionError(f"the servers do not agree: {views}") from None
    return await state(members[0][1], room_id)


async def visible(client: Client, room_id: str) -> set[str]:
    """The ids of all events of a room that a client can page to."""
    return {event["event_id"] for event in await client.history(room_id)}
