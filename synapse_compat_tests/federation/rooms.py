"""How tests wait until a Synapse and this server agree on a room."""

from collections.abc import Iterable

from tests.federation.servers.rooms import State, state
from tests.real_client import Client
from tests.waiting import WAIT_SECONDS_MAX, wait_until


async def until_agreed(room_id: str, members: Iterable[Client], *, seconds_max: float = WAIT_SECONDS_MAX) -> State:
    """Waits until all members of a room see the same state, event by event.

    Returns:
        The state.
    """
    clients = list(members)
    views: list[dict[tuple[str, str], str]] = []

    async def agreed() -> bool:
        views.clear()
        for client in clients:
            views.append({slot: event["event_id"] for slot, event in (await state(client, room_id)).items()})
        return all(view == views[0] for view in views)

    try:
        await wait_until(agreed, seconds_max=seconds_max)
    except TimeoutError:
        apart = [set(view.items()) - set(views[0].items()) for view in views[1:]]
        back = [set(views[0].items()) - set(view.items()) for view in views[1:]]
        raise AssertionError(f"the servers do not agree; only the others: {apart}, only the first: {back}") from None
    return await state(clients[0], room_id)
