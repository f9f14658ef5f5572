"""Events in the form in which servers exchange them, put together from the stored JSON text without parsing it.

Whatever sends events to other servers takes them from here: `list_federation_forms` for events by their numbers. A form
is JSON text, to be wrapped in an `orjson.Fragment`. It says nothing in `unsigned`: what this server noted there is for
clients, and what the origin wrote there is bound by no signature.

https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Collection
from typing import Any

import orjson

from homeserver.core.canonical_json import encode_canonical, parse_json
from homeserver.core.client_event import federation_event
from homeserver.core.redaction import redact
from homeserver.core.room_versions import EventIdFormat
from storage.database import Connection
from storage.federation_events import FederationRow, list_federation_rows


async def list_federation_forms(
    conn: Connection, event_nids: Collection[int], *, redacted: Collection[int] = ()
) -> dict[int, str]:
    """The federation forms of events by their numbers; unknown events are absent.

    Args:
        conn: to read with.
        event_nids: the events, with one statement for all of them.
        redacted: those of them that are told only as a redaction would leave them. Their signatures hold all the same.
    """
    rows = await list_federation_rows(conn, event_nids)
    return {row.event_nid: redacted_form(row) if row.event_nid in redacted else federation_form(row) for row in rows}


def federation_form(row: FederationRow) -> str:
    """The federation form of a stored event, as JSON text whose members stand in no particular order."""
    if not _can_be_spliced(row):
        return encode_canonical(_parsed(row)).decode()
    # The id of the event is a hash over its content, so it cannot stand in there.
    content_end = row.client_json.index(f',"event_id":"{row.event_id}"')
    members = [row.client_json[:content_end], f'"origin_server_ts":{row.origin_server_ts}']
    if not (row.room_version.room_id_is_create_hash and row.type == "m.room.create"):
        members.append(f'"room_id":{_text(row.room_id)}')
    members.append(f'"sender":{_text(row.sender)}')
    if row.state_key is not None:
        members.append(f'"state_key":{_text(row.state_key)}')
    members.append(f'"type":{_text(row.type)}')
    return ",".join([*members, row.federation_json[1:]])


def redacted_form(row: FederationRow) -> str:
    """The federation form of a stored event, as a redaction would leave it."""
    return encode_canonical(redact(_parsed(row), row.room_version)).decode()


def _can_be_spliced(row: FederationRow) -> bool:
    """Whether the client form says the same as the federation form, in its own members but those that are left out."""
    if row.room_version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
        return False
    if row.type == "m.room.redaction" and not row.room_version.redacts_in_content:
        return False
    return '"unsigned":' not in row.federation_json


def _parsed(row: FederationRow) -> dict[str, Any]:
    """The federation form as a value."""
    # The old room versions allow integers that the fast parser would read as floats.
    parse = orjson.loads if row.room_version.strict_canonical_json else parse_json
    event = federation_event(parse(row.client_json), parse(row.federation_json), row.room_version)
    event.pop("unsigned", None)
    return event


def _text(value: str) -> str:
    return orjson.dumps(value).decode()
