"""Redactions of other servers: by whom they take effect, before and after their target, and on its traces."""

import orjson
import pytest

from homeserver.core.hashing import content_hash
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from homeserver.core.signing import sign_event
from homeserver.core.unpadded_base64 import encode_base64
from storage.rooms import get_room
from tests.rooms.consistency import check_consistent
from tests.rooms.incoming.homeserver import Homeserver, room_with_another_server
from tests.rooms.incoming.remote_room import RemoteRoom, key_of
from tests.rooms.workers import message

VERSIONS = ("1", "3", "10", "11", "12")
LEVELS = (("dora", 50), ("carol", 0))


def redaction(remote: RemoteRoom, target: EventId, *, by: str = "dora") -> Pdu:
    content = {"redacts": target} if remote.room_version.redacts_in_content else {}
    return remote.send("m.room.redaction", content, sender=remote.user(by), redacts=target)


async def is_redacted(homeserver: Homeserver, pdu: Pdu) -> bool:
    event = await homeserver.get(pdu)
    unsigned = orjson.loads(event.client_json)["unsigned"]
    assert (event.redacted_by is not None) == ("redacted_because" in unsigned) == (event.content == {})
    return event.redacted_by is not None


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_redaction_takes_its_effect(homeserver: Homeserver, version: str) -> None:
    remote = await room_with_another_server(homeserver, version=version, levels=LEVELS)
    said = remote.say("to be redacted", sender=remote.user("carol"))
    redacts = redaction(remote, said.event_id)
    assert await homeserver.push(remote, said, redacts) == {said.event_id: None, redacts.event_id: None}
    assert await is_redacted(homeserver, said)
    assert (await homeserver.get(said)).redacted_by == redacts.event_id
    assert (await homeserver.shown(remote.room_id))[-2:] == [said.event_id, redacts.event_id]
    await check_consistent(homeserver.worker.db, remote.room_id)


@pytest.mark.parametrize("version", VERSIONS)
async def test_without_power_only_events_of_ones_own_server_are_redacted(homeserver: Homeserver, version: str) -> None:
    """Versions 1 and 2 reject the others; from 3 on they are kept, but clients never see them."""
    remote = await room_with_another_server(homeserver, version=version, levels=LEVELS)
    ours = (await homeserver.worker.add(remote.room_id, message("ours"))).events[0]
    await homeserver.tell(remote)
    own = remote.say("own", sender=remote.user("dora"))
    good, bad = redaction(remote, own.event_id, by="carol"), redaction(remote, ours.event_id, by="carol")
    outcome = await homeserver.push(remote, own, good, bad)
    assert outcome[good.event_id] is None
    assert (outcome[bad.event_id] is not None) == (version == "1")
    assert await is_redacted(homeserver, own)
    assert not await is_redacted(homeserver, ours)
    shown = await homeserver.shown(remote.room_id)
    assert good.event_id in shown
    assert bad.event_id not in shown


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("later", ["pushed", "outlier"])
async def test_a_redaction_may_come_before_its_target(homeserver: Homeserver, version: str, later: str) -> None:
    remote = await room_with_another_server(homeserver, version=version, levels=LEVELS)
    base = sorted(remote.server.extremities)
    said = remote.say("never seen", sender=remote.user("carol"))
    content = {"redacts": said.event_id} if remote.room_version.redacts_in_content else {}
    redacts = remote.make(
        "m.room.redaction", content, sender=remote.user("dora"), redacts=said.event_id, prev_events=base
    )
    assert await homeserver.push(remote, redacts) == {redacts.event_id: None}
    assert (redacts.event_id in await homeserver.shown(remote.room_id)) == (version == "1")
    if later == "outlier":
        async with homeserver.worker.db.connection() as conn:
            room = await get_room(conn, remote.room_id)
        await homeserver.outliers.store(room, [said])
        assert await is_redacted(homeserver, said)
    assert await homeserver.push(remote, said) == {said.event_id: None}
    assert await is_redacted(homeserver, said)
    async with homeserver.worker.db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM pending_redactions") == 0


async def test_a_redaction_that_waits_must_still_be_allowed(homeserver: Homeserver) -> None:
    remote = await room_with_another_server(homeserver, levels=LEVELS)
    base = sorted(remote.server.extremities)
    ours = await homeserver.worker.appender.prepare(remote.room_id, lambda _: [message("ours")])
    assert ours is not None
    redacts = remote.make(
        "m.room.redaction",
        {"redacts": ours.event_id},
        sender=remote.user("carol"),
        redacts=ours.event_id,
        prev_events=base,
    )
    await homeserver.push(remote, redacts)
    await homeserver.incoming.add(remote.name, ours)
    assert not await is_redacted(homeserver, ours)
    async with homeserver.worker.db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM pending_redactions") == 0


async def test_state_that_is_redacted_leaves_no_trace(homeserver: Homeserver) -> None:
    remote = await room_with_another_server(homeserver, levels=LEVELS)
    dora = remote.user("dora")
    secret = remote.send("m.room.name", {"name": "secret"}, sender=dora, state_key="")
    redacts = redaction(remote, secret.event_id)
    after = remote.send("m.room.name", {"name": "open"}, sender=dora, state_key="")
    late = redaction(remote, after.event_id)
    await homeserver.push(remote, secret, redacts, after)
    async with homeserver.worker.db.connection() as conn:
        assert await conn.fetchval("SELECT name FROM room_summaries WHERE name IS NOT NULL") == "open"
    await homeserver.push(remote, late)
    async with homeserver.worker.db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM room_summaries WHERE name IS NOT NULL") == 0
        rows = await conn.fetch("SELECT client_json FROM events")
    assert not any("secret" in row["client_json"] or '"open"' in row["client_json"] for row in rows)
    await check_consistent(homeserver.worker.db, remote.room_id)


async def test_a_create_event_is_not_redacted(homeserver: Homeserver) -> None:
    """S14: it would lose the room's version."""
    remote = await room_with_another_server(homeserver, version="10", levels=LEVELS)
    create = remote.server.current_state[("m.room.create", "")]
    redacts = redaction(remote, create)
    await homeserver.push(remote, redacts)
    assert (await homeserver.get(remote.server.events[create])).redacted_by is None
    assert redacts.event_id not in await homeserver.shown(remote.room_id)


async def test_redactions_of_each_other_come_to_an_end(homeserver: Homeserver) -> None:
    """S14: in version 1 ids are chosen, so two redactions can name each other, and one itself."""
    remote = await room_with_another_server(homeserver, version="1", levels=LEVELS)
    dora = remote.user("dora")
    first = remote.send("m.room.redaction", {}, sender=dora, redacts=EventId("$second:elsewhere.org"))
    said = remote.say("goes on", sender=dora)
    third = redaction(remote, first.event_id)
    fourth = redaction(remote, third.event_id)
    outcome = await homeserver.push(remote, first, said, third, fourth)
    assert set(outcome.values()) == {None}
    assert (await homeserver.get(first)).redacted_by == third.event_id
    assert (await homeserver.get(third)).redacted_by == fourth.event_id


async def test_a_redaction_of_itself_is_an_event_like_others(homeserver: Homeserver) -> None:
    """S14: in version 1, where the rules alone judge redactions, it is shown, and nothing waits for it."""
    remote = await room_with_another_server(homeserver, version="1", levels=LEVELS)
    template = redaction(remote, EventId("$elsewhere"))
    own_id = EventId(f"$itself:{remote.name}")
    json = {**template.json, "event_id": own_id, "redacts": own_id, "signatures": {}}
    json["hashes"] = {"sha256": encode_base64(content_hash(json))}
    signed = sign_event(json, remote.name, key_of(remote.name), template.room_version)
    assert await homeserver.incoming.receive(remote.name, remote.room_id, [signed]) == {own_id: None}
    assert (await homeserver.shown(remote.room_id))[-1] == own_id
    async with homeserver.worker.db.connection() as conn:
        assert await conn.fetchval("SELECT redacted_by FROM events WHERE event_id = $1", own_id) is None
        assert await conn.fetchval("SELECT count(*) FROM pending_redactions") == 0


async def test_redactions_do_not_reach_into_other_rooms(homeserver: Homeserver) -> None:
    remote = await room_with_another_server(homeserver, levels=LEVELS)
    other = await room_with_another_server(homeserver, levels=LEVELS)
    said = other.say("elsewhere", sender=other.user("carol"))
    await homeserver.push(other, said)
    redacts = redaction(remote, said.event_id)
    await homeserver.push(remote, redacts)
    assert not await is_redacted(homeserver, said)
    async with homeserver.worker.db.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM pending_redactions") == 0
