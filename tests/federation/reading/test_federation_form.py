"""Events put together for other servers from their stored text."""

from typing import Any

import orjson
from hypothesis import given

from homeserver.core.canonical_json import encode_canonical, parse_json
from homeserver.core.client_event import client_event, federation_remainder
from homeserver.core.event_format import parse_pdu
from homeserver.core.hashing import event_id_of
from homeserver.core.pdu import Pdu
from homeserver.core.redaction import redact
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.services.rooms.federation_form import federation_form, redacted_form
from storage.federation_events import FederationRow
from tests.core.event_strategies import minimal_event, versioned_events


def _stored(pdu: Pdu, *, unsigned: dict[str, Any] | None = None) -> FederationRow:
    return FederationRow(
        event_nid=1,
        event_id=pdu.event_id,
        room_id=pdu.room_id,
        room_version=pdu.room_version,
        origin_server_ts=pdu.origin_server_ts,
        type=pdu.type,
        state_key=pdu.state_key,
        sender=pdu.sender,
        client_json=encode_canonical(client_event(pdu, unsigned=unsigned)).decode(),
        federation_json=encode_canonical(federation_remainder(pdu)).decode(),
    )


def _canonical(form: str) -> bytes:
    return encode_canonical(parse_json(form.encode()))


@given(versioned_events())
def test_the_form_is_the_event_without_what_is_bound_by_no_signature(
    versioned: tuple[RoomVersion, dict[str, Any]],
) -> None:
    version, event = versioned
    for whole in (event, redact(event, version), event | {"unsigned": {"age": 7, "secret": "x"}}):
        stored = _stored(
            parse_pdu(whole, version), unsigned={"prev_content": {"event_id": "$x"}, "replaces_state": "$x"}
        )
        signed = {name: value for name, value in whole.items() if name != "unsigned"}
        assert _canonical(federation_form(stored)) == encode_canonical(signed)
        assert _canonical(redacted_form(stored)) == encode_canonical(redact(signed, version))


def test_the_text_of_the_content_is_taken_as_it_stands() -> None:
    """Content that looks like the members behind it does not lead astray."""
    version = ROOM_VERSIONS["11"]
    content = {"event_id": "$x", "text": '","event_id":"$x","unsigned":{}}', "unsigned": {"a": {}}}
    event = minimal_event(version, "m.room.message", content=content)
    row = _stored(parse_pdu(event, version), unsigned={"a": {"unsigned": {}}})
    form = orjson.loads(federation_form(row))
    assert form == event
    assert event_id_of(form, version) == row.event_id
