"""What tests do in rooms that a Synapse and this server share, and how they wait until both agree."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from tests.federation.servers.rooms import State, state, state_content
from tests.real_client import Client
from tests.waiting import WAIT_SECONDS_MAX, wait_until

VERSIONS = ("1", "6", "10", "11", "12")
"""One room version for each set of rules; what came with others is tested for those."""


async def until_agreed(room_id: str, members: Iterable[Client], *, seconds_max: float = WAIT_SECONDS_MAX) -> State:
    """Waits until all members of a room see the same state, event by event.

    Returns:
        The state.
    """
    clients = list(members)
    views: list[set[tuple[str, str, str]]] = []

    async def agreed() -> bool:
        views.clear()
        for client in clients:
            entries = await state(client, room_id)
            views.append({(*slot, event["event_id"]) for slot, event in entries.items()})
        return all(view == views[0] for view in views)

    try:
        await wait_until(agreed, seconds_max=seconds_max)
    except TimeoutError:
        apart = [sorted(view ^ views[0]) for view in views[1:]]
        raise AssertionError(f"the servers do not agree; the first and each other one differ in {apart}") from None
    return await state(clients[0], room_id)


async def until_member(client: Client, room_id: str, user_id: str, **expected: Any) -> Any:
    """Waits until a member event has these values in its content, as a client sees it; returns the content."""
    contents: list[Any] = []

    async def holds() -> bool:
        contents[:] = [await state_content(client, room_id, "m.room.member", user_id)]
        return contents[0] is not None and expected.items() <= contents[0].items()

    try:
        await wait_until(holds)
    except TimeoutError:
        raise AssertionError(f"the member {user_id} stays {contents} in place of {expected}") from None
    return contents[0]


async def event_of(client: Client, room_id: str, event_id: str) -> Any:
    """An event as a client sees it; None if it does not."""
    answer = await client.call("GET", f"/rooms/{quote(room_id)}/event/{quote(event_id, safe='')}")
    return answer.body if answer.status == 200 else None


async def until_event(client: Client, room_id: str, event_id: str) -> Any:
    """Waits until a client sees an event; returns it."""
    found: list[Any] = []

    async def is_seen() -> bool:
        found[:] = [await event_of(client, room_id, event_id)]
        return found[0] is not None

    await wait_until(is_seen)
    return found[0]


async def redact(client: Client, room_id: str, event_id: str, **content: Any) -> str:
    """Redacts an event; returns the id of the redaction."""
    answer = await client.put(f"/rooms/{quote(room_id)}/redact/{quote(event_id, safe='')}/of{event_id[1:9]}", content)
    redaction_id: str = answer["event_id"]
    return redaction_id


async def send_event(client: Client, room_id: str, event_type: str, content: Any, *, txn_id: str) -> str:
    """Sends an event that is no state; returns its id."""
    path = f"/rooms/{quote(room_id)}/send/{event_type}/{quote(txn_id, safe='')}"
    event_id: str = (await client.put(path, content))["event_id"]
    return event_id


def bodies(events: Iterable[dict[str, Any]]) -> list[str]:
    """The texts of those events that have one."""
    return [event["content"]["body"] for event in events if "body" in event["content"]]
