"""Events without their content, for readers from whom it is kept though the event has not been redacted."""

from collections.abc import Sequence

import orjson

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.client_event import client_event
from homeserver.core.pdu import Pdu
from homeserver.core.redaction import redact
from storage.database import Connection
from storage.events import StoredEvent, list_pdus


async def prune(conn: Connection, events: Sequence[StoredEvent]) -> dict[int, StoredEvent]:
    """The events as a redaction would leave them, by their numbers."""
    pdus = await list_pdus(conn, [event.event_nid for event in events])
    return {
        event.event_nid: event._replace(client_json=_pruned_json(event, pdus[event.event_nid]))
        for event in events
        if event.event_nid in pdus
    }


def _pruned_json(event: StoredEvent, pdu: Pdu) -> str:
    redacted = Pdu.trusted(redact(pdu.json, pdu.room_version), pdu.event_id, pdu.room_version, pdu.room_id)
    unsigned = orjson.loads(event.client_json).get("unsigned", {})
    unsigned.pop("prev_content", None)
    return encode_canonical({**client_event(redacted), "unsigned": unsigned}).decode()
