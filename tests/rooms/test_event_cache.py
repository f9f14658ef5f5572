"""Events in memory are used only as long as they are what is stored, whichever worker changes them."""

from homeserver.core.ids import DeviceId
from homeserver.core.requester import Requester
from homeserver.services.rooms.redactions import Redactions
from storage.events import EVENT_COLUMNS, EVENT_COLUMNS_IN_ROOM, EventCache, StoredEvent
from tests.rooms.workers import ALICE, SERVER, Worker, message


async def test_a_redaction_by_another_worker_is_seen(worker: Worker, other_worker: Worker) -> None:
    room_id = await worker.create_room()
    nids: list[int] = []
    for body in ("one", "two"):
        nids += (await worker.add(room_id, message(body))).event_nids
    cache = EventCache()
    async with worker.db.connection() as conn:
        first = await cache.load(conn, nids)
        again = await cache.load(conn, nids[::-1])
    assert [event.content["body"] for event in first] == ["one", "two"]
    assert all(one is other for one, other in zip(first, again, strict=True))
    redactions = Redactions(db=other_worker.db, appender=other_worker.appender, server_name=SERVER)
    await redactions.redact(Requester(ALICE, DeviceId("D")), room_id, first[0].event_id, {})
    async with worker.db.connection() as conn:
        redacted = await cache.load(conn, nids)
    assert redacted[0].content == {}
    assert redacted[0].redacted_by is not None
    assert redacted[1] is first[1]


async def test_what_is_gone_is_gone(worker: Worker) -> None:
    room_id = await worker.create_room()
    nids = (await worker.add(room_id, message("one"))).event_nids
    cache = EventCache()
    async with worker.db.connection() as conn:
        assert len(await cache.load(conn, [*nids, 10**12])) == 1
        await conn.execute("DELETE FROM events WHERE event_nid = ANY ($1::bigint[])", nids)
        assert await cache.load(conn, nids) == []
        assert await cache.load(conn, []) == []


async def test_events_are_read_by_the_order_of_the_columns(worker: Worker) -> None:
    async with worker.db.connection() as conn:
        for statement in (
            "SELECT * FROM stored_events",
            f"SELECT {EVENT_COLUMNS} FROM events",
            f"SELECT {EVENT_COLUMNS_IN_ROOM} FROM events, LATERAL (SELECT '' AS room_id) AS in_room",
        ):
            columns = [attribute.name for attribute in (await conn.prepare(statement)).get_attributes()]
            assert tuple(columns) == StoredEvent._fields
