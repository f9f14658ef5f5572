"""What `bench.compare` has a server do, through the client-server API alone, with a check of every answer.

Each workload prepares what it needs, measures its work, checks it, and returns how many operations it was.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from bench.client import Client
from bench.followers import Room, Sent, Transport, check, check_deliveries, following, send, wait_for_all
from bench.stage import FILL_AT_ONCE, Stage, in_parallel

SENDS_AT_ONCE: Final = 8
PAGE: Final = 100

_FILTER: Final = {"room": {"timeline": {"limit": 100}, "state": {"lazy_load_members": True}}}
_LAZY: Final = {"room": {"timeline": {"limit": 20}, "state": {"lazy_load_members": True}}}

T = TypeVar("T")
Workload = Callable[[Stage], Awaitable[int]]


async def _make_room(members: Sequence[Client]) -> Room:
    """A public room that the first member makes and the others join."""
    room_id = await members[0].create_room()
    await in_parallel([partial(one.join, room_id) for one in members[1:]], FILL_AT_ONCE)
    return Room(room_id, members)


async def _filter_ids(clients: Sequence[Client], definition: Mapping[str, Any]) -> dict[Client, str]:
    """Uploads a filter for each, as clients do."""

    async def upload(client: Client) -> str:
        answer = await client.call("POST", f"user/{client.user_id}/filter", definition)
        return str(answer["filter_id"])

    ids = await in_parallel([partial(upload, one) for one in clients], FILL_AT_ONCE)
    return dict(zip(clients, ids, strict=True))


async def _history(client: Client, room_id: str) -> list[str]:
    """The ids of all events of a room, from the newest to the oldest, by pages."""
    found: list[str] = []
    query: dict[str, str] = {}
    while True:
        page = await client.call("GET", f"rooms/{room_id}/messages", None, dir="b", limit=str(PAGE), **query)
        found += [event["event_id"] for event in page["chunk"]]
        if "end" not in page or not page["chunk"]:
            return found
        query = {"from": page["end"]}


def _check_history(room: Room, found: Sequence[str], sent: Iterable[Sent]) -> None:
    """Each event is in a room's history once, and what was sent there is."""
    expected = {one.event_id for one in sent if one.room_id == room.room_id}
    check(len(found) == len(set(found)), f"/messages of {room.room_id} has events twice")
    check(expected <= set(found), f"/messages of {room.room_id} lacks {len(expected - set(found))} messages")


async def create_room(stage: Stage) -> int:
    """Rooms with a name and a topic, a few at once."""
    users = await stage.users(FILL_AT_ONCE)
    count = stage.sizes.rooms

    async def create(number: int) -> str:
        wish = {"preset": "public_chat", "name": f"Room {number}", "topic": "Whatever there is to say"}
        return str((await users[number % len(users)].call("POST", "createRoom", wish))["room_id"])

    async with stage.measured():
        made = await in_parallel([partial(create, number) for number in range(count)], FILL_AT_ONCE)
    joined = [room_id for user in users for room_id in (await user.call("GET", "joined_rooms"))["joined_rooms"]]
    check(sorted(joined) == sorted(made) and len(set(made)) == count, f"{len(joined)} of {count} rooms are there")
    return count


async def send_messages(stage: Stage) -> int:
    """Messages in rooms of some members, several at once; nobody waits for them."""
    await _fill_send_rooms(stage)
    async with stage.measured():
        stage.sent = await _send_everywhere(stage)
    for room in stage.send_rooms:
        _check_history(room, await _history(room.members[-1], room.room_id), stage.sent)
    return len(stage.sent)


async def _fill_send_rooms(stage: Stage) -> None:
    if not stage.send_rooms:
        members = await stage.users(stage.sizes.send_members)
        stage.send_rooms = [await _make_room(members) for _ in range(stage.sizes.send_rooms)]


async def _send_everywhere(stage: Stage) -> list[Sent]:
    return await in_parallel(_sends(stage.send_rooms, stage.sizes.messages), SENDS_AT_ONCE)


def _sends(rooms: Sequence[Room], count: int) -> list[Callable[[], Awaitable[Sent]]]:
    """Messages to the rooms in turn, by their members in turn."""
    works: list[Callable[[], Awaitable[Sent]]] = []
    for number in range(count):
        turn, index = divmod(number, len(rooms))
        room = rooms[index]
        sender = room.members[turn % len(room.members)]
        works.append(partial(send, sender, room.room_id))
    return works


async def _deliver(
    stage: Stage,
    clients: Sequence[Client],
    rooms: Sequence[Room],
    count: int,
    *,
    per_second: float | None = None,
    transport: Transport = Transport.LONG_POLL,
) -> int:
    """Sends messages to those who wait, at a rate or as fast as they are taken."""
    works = _sends(rooms, count)
    async with following(clients, rooms, transport, await _filter_ids(clients, _FILTER)) as followers:
        async with stage.measured():
            sent = await (in_parallel(works, SENDS_AT_ONCE) if per_second is None else _at_rate(works, per_second))
            await wait_for_all(followers, sent)
        return check_deliveries(followers, sent)


async def _at_rate(works: Sequence[Callable[[], Awaitable[T]]], per_second: float) -> list[T]:
    """Begins each work at its time, whether those before have ended or not."""
    tasks = []
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, work in enumerate(works):
            await asyncio.sleep(max(0.0, started + number / per_second - time.perf_counter()))
            tasks.append(group.create_task(_awaited(work)))
    return [task.result() for task in tasks]


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


async def _readers(stage: Stage) -> list[Client]:
    """Users who are in two rooms each, and so with many others."""
    if not stage.reader_rooms:
        users, count = await stage.users(stage.sizes.readers), stage.sizes.reader_rooms
        members: list[list[Client]] = [[] for _ in range(count)]
        for number, user in enumerate(users):
            for index in {number % count, (number + 1) % count}:
                members[index].append(user)
        stage.reader_rooms = [await _make_room(each) for each in members]
    return list(dict.fromkeys(user for room in stage.reader_rooms for user in room.members))


async def sync_fanout(stage: Stage, transport: Transport = Transport.LONG_POLL) -> int:
    """Messages at a rate to users who wait."""
    sizes, readers = stage.sizes, await _readers(stage)
    rate = sizes.fanout_per_second
    rooms = stage.reader_rooms
    return await _deliver(stage, readers, rooms, sizes.fanout_messages, per_second=rate, transport=transport)


async def sync_burst(stage: Stage, transport: Transport = Transport.LONG_POLL) -> int:
    """Messages as fast as they are taken, to users who wait."""
    readers = await _readers(stage)
    return await _deliver(stage, readers, stage.reader_rooms, stage.sizes.burst_messages, transport=transport)


async def websocket_fanout(stage: Stage) -> int:
    """As `sync_fanout`; what is new is pushed over WebSockets."""
    return await sync_fanout(stage, Transport.WEBSOCKET)


async def websocket_burst(stage: Stage) -> int:
    """As `sync_burst`; what is new is pushed over WebSockets."""
    return await sync_burst(stage, Transport.WEBSOCKET)


async def initial_sync(stage: Stage) -> int:
    """First syncs of new devices of a user in many rooms."""
    return await _initial_sync(stage, None)


async def initial_sync_lazy(stage: Stage) -> int:
    """The same with members loaded lazily and 20 events of each room."""
    return await _initial_sync(stage, _LAZY)


async def _initial_sync(stage: Stage, definition: Mapping[str, Any] | None) -> int:
    if not stage.initial_rooms:
        members = await stage.users(3)
        works = [partial(_make_room, members)] * stage.sizes.initial_rooms
        rooms = await in_parallel(works, FILL_AT_ONCE)
        await in_parallel(_sends(rooms, len(rooms)), FILL_AT_ONCE)
        stage.initial_rooms = rooms
    user = stage.initial_rooms[0].members[-1]
    devices = [await stage.device(user) for _ in range(stage.sizes.initial_syncs)]
    filters = {} if definition is None else await _filter_ids(devices, definition)
    answers = []
    async with stage.measured():
        for device in devices:
            answers.append(await (device.sync_answer(filter=filters[device]) if filters else device.sync_answer()))
    expected = {room.room_id for room in stage.initial_rooms}
    for answer in answers:
        joined = answer["rooms"]["join"]
        check(joined.keys() == expected, f"a first sync has {len(joined)} of {len(expected)} rooms")
        empty = [room_id for room_id, room in joined.items() if not room["timeline"]["events"]]
        check(not empty, f"a first sync has {len(empty)} rooms without events")
    return len(devices)


async def big_join(stage: Stage) -> int:
    """Many users join one room, a few at once."""
    return await _join_big_room(stage, measured=True)


async def _join_big_room(stage: Stage, *, measured: bool) -> int:
    members = await stage.users(1 + stage.sizes.big_members)
    room_id = await members[0].create_room()
    joins = [partial(one.join, room_id) for one in members[1:]]
    if measured:
        async with stage.measured():
            await in_parallel(joins, FILL_AT_ONCE)
    else:
        await in_parallel(joins, FILL_AT_ONCE)
    joined = (await members[-1].call("GET", f"rooms/{room_id}/joined_members"))["joined"]
    check(joined.keys() == {one.user_id for one in members}, f"{len(joined)} of {len(members)} users are in the room")
    stage.big_room = Room(room_id, members)
    return len(joins)


async def _big_room(stage: Stage) -> Room:
    if stage.big_room is None:
        await _join_big_room(stage, measured=False)
    assert stage.big_room is not None
    return stage.big_room


async def big_send(stage: Stage) -> int:
    """Messages in the large room; nobody waits for them."""
    room = await _big_room(stage)
    async with stage.measured():
        sent = await in_parallel(_sends([room], stage.sizes.big_messages), 2)
    _check_history(room, await _history(room.members[-1], room.room_id), sent)
    return len(sent)


async def big_members(stage: Stage) -> int:
    """The members of the large room, by one of them after the other."""
    return await _read_big_room(stage, "members")


async def big_state(stage: Stage) -> int:
    """The state of the large room, by one of them after the other."""
    return await _read_big_room(stage, "state")


async def _read_big_room(stage: Stage, path: str) -> int:
    room = await _big_room(stage)
    readers = [room.members[number % len(room.members)] for number in range(stage.sizes.big_reads)]
    async with stage.measured():
        answers = [await reader.call("GET", f"rooms/{room.room_id}/{path}") for reader in readers]
    expected = {member.user_id for member in room.members}
    for answer in answers:
        events = answer["chunk"] if path == "members" else answer
        found = [event["state_key"] for event in events if event["type"] == "m.room.member"]
        check(sorted(found) == sorted(expected), f"{path} has {len(found)} of {len(expected)} members")
    return len(answers)


async def big_fanout(stage: Stage) -> int:
    """Messages in the large room, at a rate, to a part of its members who wait."""
    sizes, room = stage.sizes, await _big_room(stage)
    readers = room.members[-sizes.big_readers :]
    rate = sizes.big_fanout_per_second
    return await _deliver(stage, readers, [room], sizes.big_fanout_messages, per_second=rate)


async def paginate(stage: Stage) -> int:
    """The history of the rooms of `send`, back to their beginning."""
    if not stage.sent:
        await _fill_send_rooms(stage)
        stage.sent = await _send_everywhere(stage)
    readers = [(room.members[-1], room.room_id) for room in stage.send_rooms]
    works = [partial(_history, *one) for one in readers] * stage.sizes.passes
    async with stage.measured():
        found = await in_parallel(works, 1)
    for room, history in zip(stage.send_rooms * stage.sizes.passes, found, strict=True):
        _check_history(room, history, stage.sent)
    return sum(map(len, found))
