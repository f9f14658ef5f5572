"""Follows what changes in the devices and cross-signing keys of this server's users, and queues that for other servers.

Each change of a device becomes an update with a number, for all servers that share a room with the user at that time.
The updates of a user form one chain, whoever is told of them: a server that has missed one finds out by the next. With
the EDUs the follower writes what was told, and takes away what was to be told: nothing is told twice or forgotten.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from federation.outbound.destination_wakes import wake_destinations
from federation.outbound.device_list_edus import (
    DEVICE_LIST_UPDATE,
    EduBody,
    device_edu,
    last_devices,
    last_edus,
    queue_edus,
    signing_key_edus,
)
from federation.outbound.edu_audience import EduAudience
from homeserver.core.clock import Clock
from homeserver.core.ids import DeviceId, ServerName, UserId
from homeserver.services.e2ee.key_queries import FoundKeys, KeyQueries
from homeserver.services.stream.follower import Batch
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.device_updates import (
    CROSS_SIGNING_KEYS,
    Arrival,
    ChangedDevice,
    ToldUpdate,
    delete_device_changes,
    list_arrivals,
    list_device_changes,
    list_told_updates,
    lock_told_updates,
    put_told_updates,
)
from storage.outgoing_edus import list_joined_rooms

NAME: Final = "device_list_sender"
KEYS: Final = frozenset(("user:",))
GATHER_SECONDS: Final = 0.1

USERS_MAX: Final = 20
ARRIVALS_MAX: Final = 200
UPDATES_PER_USER_MAX: Final = 20
"""Of more changed devices of a user at once, one is told: the other servers then ask for all."""

# A transaction holds back all readers of the streams while it is open, so it writes no more rows than this, if it can.
ROWS_MAX: Final = 3_000

_Servers = Collection[ServerName]


class DeviceListSender:
    """The consumer of a `Follower`."""

    def __init__(self, *, db: Database, bus: Bus, clock: Clock, queries: KeyQueries, audience: EduAudience) -> None:
        """Takes its means; `queries` knows the keys of this server's users."""
        self._db = db
        self._bus = bus
        self._clock = clock
        self._queries = queries
        self._audience = audience

    async def handle(self, batch: Batch) -> int:
        """Tells what has changed, and tells servers that users come to."""
        updated: set[UserId] = set()
        while (users := await self._tell_changes(batch.upto)) is not None:
            updated |= users
        return await self._tell_new_servers(batch, without=updated)

    async def _tell_changes(self, upto: int) -> set[UserId] | None:
        """Tells what has changed before a position, as much as one transaction should write.

        Returns:
            The users of whose devices it has told all servers that they share rooms with; None if nothing has changed.
        """
        async with self._db.connection() as conn:
            changes = await list_device_changes(conn, upto=upto, users_max=USERS_MAX)
            servers = await self._audience.of_users(conn, changes.keys())
        if not changes:
            return None
        chosen = _as_many_as_fit(changes, servers)
        wanted = {user_id: [change.device_id for change in changes[user_id]] for user_id in chosen}
        found = await self._queries.local(wanted, seen_by=None)
        async with self._db.transaction() as conn:
            ours = await delete_device_changes(conn, [each for user_id in chosen for each in changes[user_id]])
            last = await lock_told_updates(conn, chosen.keys())
            edus: dict[UserId, list[EduBody]] = {}
            for user_id, tells_all in chosen.items():
                own = [change for change in changes[user_id] if change in ours]
                if own:
                    last[user_id], edus[user_id] = self._updates(
                        last.get(user_id, ToldUpdate()), own, found, tells_all=tells_all
                    )
            await put_told_updates(conn, {user_id: last[user_id] for user_id in edus})
            by_server = _by_server({user: (servers.get(user, ()), bodies) for user, bodies in edus.items()})
            destinations = await queue_edus(conn, by_server, now_ms=self._clock.now_ms())
        await wake_destinations(self._bus, destinations)
        return {user_id for user_id, bodies in edus.items() if any(kind == DEVICE_LIST_UPDATE for kind, _ in bodies)}

    def _updates(
        self, last: ToldUpdate, changes: Sequence[ChangedDevice], found: FoundKeys, *, tells_all: bool
    ) -> tuple[ToldUpdate, list[EduBody]]:
        """The EDUs that tell changes of a user (at least one), and the last update, after the one that was last so far.

        Each changed device takes a number. If only the last one is told, that refers to one that nobody has got.
        """
        user_id = changes[0].user_id
        devices: list[EduBody] = []
        for change in changes:
            if change.device_id != CROSS_SIGNING_KEYS:
                last = self._next(last, DeviceId(change.device_id))
                devices.append(device_edu(user_id, last, found))
        has_keys = any(change.device_id == CROSS_SIGNING_KEYS for change in changes)
        keys = signing_key_edus(user_id, found) if has_keys else []
        return last, [*(devices if tells_all else devices[-1:]), *keys]

    def _next(self, update: ToldUpdate, device_id: DeviceId) -> ToldUpdate:
        """An update after another. The time in its number lets none be given again, even by a restored database."""
        return ToldUpdate(
            stream_id=max(update.stream_id + 1, self._clock.now_ms()),
            prev_id=update.stream_id or None,
            device_id=device_id,
        )

    async def _tell_new_servers(self, batch: Batch, *, without: Collection[UserId]) -> int:
        """Tells servers with which users begin to share a room what was told of these last; not of some users.

        Those that know nothing of a user's devices, or had known something before, find out that they have to ask.
        """
        async with self._db.connection() as conn:
            arrivals = await list_arrivals(conn, since=batch.since, upto=batch.upto, limit=ARRIVALS_MAX)
            servers = await self._new_servers(conn, [each for each in arrivals if each.user_id not in without])
            chosen, reached = _whose_arrivals_fit(batch, arrivals, servers)
            told = await list_told_updates(conn, chosen)
        if not told:
            return reached
        found = await self._queries.local(last_devices(told), seen_by=None)
        edus = {user_id: (servers[user_id], last_edus(user_id, update, found)) for user_id, update in told.items()}
        async with self._db.transaction() as conn:
            destinations = await queue_edus(conn, _by_server(edus), now_ms=self._clock.now_ms())
            await batch.save(conn, reached)
        await wake_destinations(self._bus, destinations)
        return reached

    async def _new_servers(self, conn: Connection, arrivals: Sequence[Arrival]) -> dict[UserId, frozenset[ServerName]]:
        """The servers that share with each user no rooms but such as it has entered just now, if there are any."""
        if not arrivals:
            return {}
        entered: dict[UserId, set[int]] = {}
        for arrival in arrivals:
            entered.setdefault(arrival.user_id, set()).add(arrival.room_nid)
        rooms_of = await list_joined_rooms(conn, entered.keys())
        servers_in = await self._audience.of_rooms(conn, {room for rooms in rooms_of.values() for room in rooms})
        found: dict[UserId, frozenset[ServerName]] = {}
        for user_id, rooms in rooms_of.items():
            new = _union(servers_in, [room for room in rooms if room in entered[user_id]])
            new -= _union(servers_in, [room for room in rooms if room not in entered[user_id]])
            if new:
                found[user_id] = new
        return found


def _as_many_as_fit(
    changes: Mapping[UserId, Sequence[ChangedDevice]], servers: Mapping[UserId, _Servers]
) -> dict[UserId, bool]:
    """Of whom is told in one transaction, and whether each change is, or only the last of too many devices."""
    chosen: dict[UserId, bool] = {}
    rows = 0
    for user_id, of_user in changes.items():
        count = len(servers.get(user_id, ()))
        tells_all = len(of_user) <= UPDATES_PER_USER_MAX and len(of_user) * count <= ROWS_MAX
        added = count * (len(of_user) if tells_all else 2)
        if chosen and rows + added > ROWS_MAX:
            break
        chosen[user_id] = tells_all
        rows += added
    return chosen


def _whose_arrivals_fit(
    batch: Batch, arrivals: Sequence[Arrival], servers: Mapping[UserId, _Servers]
) -> tuple[set[UserId], int]:
    """Whose arrivals are told in one transaction, and up to which position these are all."""
    chosen: set[UserId] = set()
    rows, position = 0, batch.since
    for arrival in arrivals:
        # Only whole positions are handled: of one that is cut in two, the second half would be passed over.
        if rows >= ROWS_MAX and arrival.position > position:
            return chosen, arrival.position
        position = arrival.position
        if arrival.user_id in servers and arrival.user_id not in chosen:
            chosen.add(arrival.user_id)
            rows += 2 * len(servers[arrival.user_id])
    if len(arrivals) < ARRIVALS_MAX:
        return chosen, batch.upto
    return chosen, max(arrivals[-1].position, batch.since + 1)


def _by_server(edus: Mapping[UserId, tuple[_Servers, Sequence[EduBody]]]) -> dict[ServerName, list[EduBody]]:
    """The EDUs for each server, those of each user in their order."""
    found: dict[ServerName, list[EduBody]] = {}
    for servers, bodies in edus.values():
        for server in servers:
            found.setdefault(server, []).extend(bodies)
    return found


def _union(servers_in: Mapping[int, frozenset[ServerName]], rooms: Collection[int]) -> frozenset[ServerName]:
    return frozenset[ServerName]().union(*(servers_in.get(room, frozenset()) for room in rooms))
