"""Who must know of changed devices and keys: the streams behind `device_lists` of a sync, and `/keys/changes`.

https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user
"""

from collections.abc import Collection

from homeserver.core.errors import InvalidParam
from homeserver.core.ids import UserId
from storage import timelines
from storage.database import Connection, Database
from storage.device_lists import DeviceListChanges, list_device_lists, upsert_device_list_changes
from storage.device_updates import CROSS_SIGNING_KEYS, upsert_device_changes
from storage.memberships import list_rooms_of_user
from storage.positions import stream_bound


async def note_changed_devices(conn: Connection, user_ids: Collection[UserId]) -> tuple[int, set[str]]:
    """Notes, within a transaction, that the devices or keys of users (at least one) have changed.

    Returns:
        The position, and the keys to wake after the commit: the users, and all with whom they share rooms.
    """
    position = await upsert_device_list_changes(conn, user_ids)
    keys = {f"user:{user_id}" for user_id in user_ids}
    for user_id in user_ids:
        keys.update(f"room:{row.room_id}" for row in await list_rooms_of_user(conn, user_id, ("join",)))
    return position, keys


async def note_own_changes(
    conn: Connection, user_id: UserId, *, devices: Collection[str] = (), cross_signing: bool = False
) -> tuple[int, set[str]]:
    """As `note_changed_devices`, for a user of this server: other servers are told too.

    Args:
        devices: the devices that came, changed or went.
        cross_signing: the user's cross-signing keys have changed, or got signatures.
    """
    await upsert_device_changes(conn, user_id, [*devices, CROSS_SIGNING_KEYS] if cross_signing else devices)
    return await note_changed_devices(conn, [user_id])


async def read_device_lists(
    conn: Connection, user_id: UserId, *, since: int, upto: int, has_moved: bool, active: Collection[int]
) -> DeviceListChanges:
    """What a user must know of others' devices and its own, from `since` on and before `upto`.

    Args:
        has_moved: whether the user may have come to rooms or left some.
        active: the rooms (`room_nid`) whose state has changed, as far as the user is in them.
    """
    entered: set[int] = set()
    left: set[int] = set()
    if has_moved:
        changes = await timelines.list_membership_changes(conn, user_id, since=since)
        moves = [change for change in changes if change.position < upto]
        before = await timelines.memberships_before(conn, user_id, {move.room_nid for move in moves}, position=since)
        after = {move.room_nid: move.membership for move in moves}
        was_in = {room_nid for room_nid, earlier in before.items() if earlier.membership == "join"}
        was_in |= {move.room_nid for move in moves if move.membership == "join"}
        left = {room_nid for room_nid in was_in if after.get(room_nid, "join") != "join"}
        entered = {
            room_nid
            for room_nid, membership in after.items()
            if membership == "join" and not (room_nid in before and before[room_nid].membership == "join")
        }
    return await list_device_lists(
        conn, user_id, since=since, upto=upto, entered=entered, left=left, active=set(active) - entered
    )


class KeyChanges:
    """Answers what happened while a client was away."""

    def __init__(self, *, db: Database) -> None:
        self._db = db

    async def between(self, user_id: UserId, *, since: int, upto: int) -> DeviceListChanges:
        """What happened between two sync tokens (positions).

        Raises:
            InvalidParam: the tokens are not in order, or from the future.
        """
        async with self._db.connection() as conn:
            bound = await stream_bound(conn)
            if since > upto or upto > bound:
                raise InvalidParam("The tokens are not from this server, or in the wrong order")
            rooms = await list_rooms_of_user(conn, user_id, ("join",))
            return await read_device_lists(
                conn, user_id, since=since, upto=upto, has_moved=True, active=[row.room_nid for row in rooms]
            )
