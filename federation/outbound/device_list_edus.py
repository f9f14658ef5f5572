"""The EDUs that tell other servers of changed devices and cross-signing keys, and for whom they are queued.

For a server that does not answer nothing is queued, and for one for which very much waits nothing more: it is noted
that it lags behind (`device_list_recovery.py`).

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.ids import ServerName, UserId
from homeserver.core.key_wishes import WantedDevices
from homeserver.services.e2ee.key_queries import FoundKeys
from storage.database import Connection
from storage.destination_queues import NewEdu, insert_edus
from storage.device_updates import CROSS_SIGNING_KEYS, ToldUpdate, list_lagging_among, note_lags

DEVICE_LIST_UPDATE: Final = "m.device_list_update"
SIGNING_KEY_UPDATE: Final = "m.signing_key_update"

WAITING_MAX: Final = 1_000
"""A server for which so many EDUs wait is told later."""

EduBody = tuple[str, str]
"""The type of an EDU, and its content as JSON text."""


def device_edu(user_id: UserId, update: ToldUpdate, found: FoundKeys) -> EduBody:
    """Tells of a device as it is now; one without keys is gone."""
    keys: Mapping[str, Any] | None = found.device_keys.get(user_id, {}).get(str(update.device_id))
    content: dict[str, Any] = {
        "user_id": user_id,
        "device_id": update.device_id,
        "stream_id": update.stream_id,
        "prev_id": [] if update.prev_id is None else [update.prev_id],
    }
    if keys is None:
        content["deleted"] = True
    else:
        content["keys"] = {name: value for name, value in keys.items() if name != "unsigned"}
        content.update(keys.get("unsigned", {}))
    return DEVICE_LIST_UPDATE, encode_canonical(content).decode()


def signing_key_edus(user_id: UserId, found: FoundKeys) -> list[EduBody]:
    """Tells of a user's cross-signing keys, if there are any."""
    keys = {"master_key": found.master_keys.get(user_id), "self_signing_key": found.self_signing_keys.get(user_id)}
    told = {name: key for name, key in keys.items() if key is not None}
    return [(SIGNING_KEY_UPDATE, encode_canonical({"user_id": user_id, **told}).decode())] if told else []


def last_devices(told: Mapping[UserId, ToldUpdate]) -> WantedDevices:
    """The devices that must be known for `last_edus`."""
    return {user_id: [update.device_id or CROSS_SIGNING_KEYS] for user_id, update in told.items()}


def last_edus(user_id: UserId, told: ToldUpdate, found: FoundKeys) -> list[EduBody]:
    """Tells again what was told of a user last: whoever has missed anything before finds out by that."""
    devices = [] if told.device_id is None else [device_edu(user_id, told, found)]
    return [*devices, *signing_key_edus(user_id, found)]


async def queue_edus(
    conn: Connection, bodies: Mapping[ServerName, Sequence[EduBody]], *, now_ms: int
) -> set[ServerName]:
    """Queues EDUs for servers, in their order, within a transaction; returns the servers for which that was done."""
    if not bodies:
        return set()
    lagging = await list_lagging_among(conn, bodies.keys(), edus_max=WAITING_MAX)
    if lagging:
        await note_lags(conn, lagging)
    edus = [
        NewEdu(destination=server, edu_type=edu_type, content=content)
        for server, of_server in bodies.items()
        if server not in lagging
        for edu_type, content in of_server
    ]
    if edus:
        await insert_edus(conn, edus, now_ms=now_ms)
    return bodies.keys() - lagging
