"""Which threads events of other servers belong to, by what they say about events that are stored.

https://spec.matrix.org/v1.19/client-server-api/#threading
"""

from collections.abc import Mapping, Sequence

from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from homeserver.core.relations import relation_of, thread_root_of
from storage.database import Connection
from storage.incoming_rooms import list_thread_roots


async def find_thread_roots(conn: Connection, room_nid: int, events: Sequence[Pdu]) -> Mapping[EventId, EventId]:
    """The roots of the threads that events of a room belong to, by event; those that belong to none are absent.

    The events come one after the other, each perhaps related to one before. A parent that is not known belongs to none.
    """
    relations = {pdu.event_id: relation for pdu in events if (relation := relation_of(pdu.content)) is not None}
    if not relations:
        return {}
    parents = {relation.event_id for relation in relations.values()}
    of_parents = dict(await list_thread_roots(conn, room_nid, list(parents)))
    roots: dict[EventId, EventId] = {}
    for pdu in events:
        relation = relations.get(pdu.event_id)
        root = None
        if relation is not None:
            root = thread_root_of(relation, thread_root_of_parent=of_parents.get(relation.event_id))
        of_parents[pdu.event_id] = root
        if root is not None:
            roots[pdu.event_id] = root
    return roots
