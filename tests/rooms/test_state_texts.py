"""The texts of a room's state in memory are those that hold, whichever worker changes the state or a text in it."""

import orjson

from homeserver.core.ids import DeviceId
from homeserver.core.requester import Requester
from homeserver.services.rooms.drafts import Draft
from homeserver.services.rooms.redactions import Redactions
from homeserver.services.rooms.state_texts import StateTexts
from storage.rooms import get_room
from storage.state import StateStore
from storage.state_events import StateText
from tests.rooms.workers import ALICE, BOB, SERVER, Worker, member, message


def _topic(text: str) -> Draft:
    return Draft(type="m.room.topic", sender=ALICE, state_key="", content={"topic": text})


async def test_texts_are_read_once_and_again_after_every_change(worker: Worker, other_worker: Worker) -> None:
    room_id = await worker.create_room(_topic("one"))
    texts = StateTexts(states=StateStore())

    async def read() -> list[StateText]:
        async with worker.db.connection() as conn:
            return list(await texts.of_room(conn, await get_room(conn, room_id)))

    def topic_of(state: list[StateText]) -> object:
        contents = {event["type"]: event["content"] for event in (orjson.loads(text.client_json) for text in state)}
        return contents["m.room.topic"]

    first = await read()
    assert topic_of(first) == {"topic": "one"}
    assert [text.membership for text in first if text.is_member] == ["join"]
    await other_worker.add(room_id, message("no state"))
    assert all(text is known for text, known in zip(await read(), first, strict=True))

    added = await other_worker.add(room_id, _topic("two"))
    assert topic_of(await read()) == {"topic": "two"}
    await other_worker.add(room_id, member(BOB, "join"))
    assert [text.membership for text in await read() if text.is_member] == ["join", "join"]
    redactions = Redactions(db=other_worker.db, appender=other_worker.appender, server_name=SERVER)
    await redactions.redact(Requester(ALICE, DeviceId("D")), room_id, added.events[0].event_id, {})
    assert topic_of(await read()) == {}


async def test_large_states_are_not_kept(worker: Worker) -> None:
    room_id = await worker.create_room()
    texts = StateTexts(states=StateStore(), bytes_max=100)
    async with worker.db.connection() as conn:
        first = await texts.of_room(conn, await get_room(conn, room_id))
        again = await texts.of_room(conn, await get_room(conn, room_id))
    assert first == again
    assert first is not again
