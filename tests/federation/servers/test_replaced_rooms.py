"""Rooms that are replaced, on a server that is in them without having done it.

https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
"""

from urllib.parse import quote

from tests.federation.servers.conftest import Pair
from tests.federation.servers.rooms import join, shared_room, until_content
from tests.waiting import wait_until


async def test_its_aliases_and_its_directory_show_the_new_room(pair: Pair) -> None:
    room_id = await shared_room(pair.places, room_version="11")
    path = f"/directory/room/{quote(f'#pub:{pair.two.name}')}"
    await pair.bob.put(path, {"room_id": room_id})
    levels = {"users": {pair.alice.user_id: 100, pair.bob.user_id: 100}}
    await pair.alice.put(f"/rooms/{room_id}/state/m.room.power_levels", levels)
    await until_content(pair.bob, room_id, "m.room.power_levels", levels)
    await pair.bob.put(f"/directory/list/room/{room_id}", {"visibility": "public"})
    upgraded = await pair.alice.post(f"/rooms/{room_id}/upgrade", {"new_version": "12"})
    new_room_id = upgraded["replacement_room"]
    assert await join(pair.bob, new_room_id, pair.one.name) == new_room_id

    async def is_shown() -> bool:
        target = (await pair.bob.get(path))["room_id"]
        listed = [room["room_id"] for room in (await pair.bob.get("/publicRooms"))["chunk"]]
        return (target, listed) == (new_room_id, [new_room_id])

    await wait_until(is_shown)
