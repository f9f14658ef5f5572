"""Events outside the graph: judged by their own auth events alone, and for good."""

import pytest

from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import ROOM_VERSIONS
from storage.rooms import RoomRow, get_room, insert_room
from tests.rooms.incoming.homeserver import Homeserver, room_with_another_server
from tests.rooms.incoming.remote_room import RemoteRoom


async def row(homeserver: Homeserver, remote: RemoteRoom) -> RoomRow:
    async with homeserver.worker.db.connection() as conn:
        return await get_room(conn, remote.room_id)


@pytest.mark.parametrize("version", ["1", "6", "12"])
async def test_a_room_can_be_stored_before_this_server_is_in_it(homeserver: Homeserver, version: str) -> None:
    remote = await room_with_another_server(homeserver, version=version)
    events = list(remote.server.events.values())
    async with homeserver.worker.db.connection() as conn:
        await conn.execute("DELETE FROM events")
        await conn.execute("DELETE FROM rooms")
        await insert_room(conn, remote.room_id, ROOM_VERSIONS[version])
    stored = await homeserver.outliers.store(await row(homeserver, remote), list(reversed(events)))
    assert stored.keys() == remote.server.events.keys()
    assert all(outlier.rejected is None for outlier in stored.values())
    nids = {event_id: outlier.event_nid for event_id, outlier in stored.items()}
    for pdu in events:
        assert all(nids[cited] < nids[pdu.event_id] for cited in pdu.auth_events)
        event = await homeserver.get(pdu)
        assert (event.topological, event.state_id, event.position) == (None, None, None)
    assert await homeserver.outliers.store(await row(homeserver, remote), events) == stored


async def test_rejection_is_for_good(homeserver: Homeserver) -> None:
    """S11: a rejected event stays so, though it comes by another way and its reason is not there any more."""
    remote = await room_with_another_server(homeserver, levels=(("dora", 50), ("mallory", 0)))
    mallory = remote.user("mallory")
    bad = remote.make("m.room.name", {"name": "mine"}, sender=mallory, state_key="")
    room = await row(homeserver, remote)
    first = await homeserver.outliers.store(room, [bad])
    assert first[bad.event_id].rejected is not None
    assert await homeserver.outliers.store(room, [bad]) == first
    assert (await homeserver.push(remote, bad))[bad.event_id] == first[bad.event_id].rejected
    stored = await homeserver.get(bad)
    assert stored.rejected is not None
    assert stored.state_id is not None


async def test_an_event_by_a_rejected_auth_event_is_rejected(homeserver: Homeserver) -> None:
    remote = await room_with_another_server(homeserver, levels=(("dora", 50), ("mallory", 0)))
    mallory = remote.user("mallory")
    levels = remote.make("m.room.power_levels", {"users": {mallory: 100}}, sender=mallory, state_key="")
    state = remote.server.current_state
    cites = {**state, ("m.room.power_levels", ""): levels.event_id}
    remote.server.events[levels.event_id] = levels
    named = remote.make("m.room.name", {"name": "mine"}, sender=mallory, state_key="", cites=cites)
    stored = await homeserver.outliers.store(await row(homeserver, remote), [named, levels])
    assert stored[levels.event_id].rejected is not None
    assert stored[named.event_id].rejected is not None


async def test_what_cannot_be_judged_is_not_stored(homeserver: Homeserver) -> None:
    """S13, S14: without an auth event, or in a circle of them, nothing is said of an event, and nothing hangs."""
    remote = await room_with_another_server(homeserver, version="1")
    dora = remote.user("dora")
    good = remote.make("m.room.message", {"body": "x"}, sender=dora)

    def citing(event_id: str, *cited: str) -> Pdu:
        json = {**good.json, "event_id": event_id, "auth_events": [[each, {"sha256": "AA"}] for each in cited]}
        return Pdu.trusted(json, EventId(event_id), good.room_version, good.room_id)

    a, b, c = citing("$a:x.org", "$b:x.org"), citing("$b:x.org", "$a:x.org"), citing("$c:x.org", "$nowhere:x.org")
    chain = [citing(f"${n}:x.org", f"${n - 1}:x.org") for n in range(1, 5000)]
    stored = await homeserver.outliers.store(await row(homeserver, remote), [a, b, c, good, *chain])
    assert stored.keys() == {good.event_id}


async def test_auth_events_of_another_room_reject(homeserver: Homeserver) -> None:
    """S10"""
    remote = await room_with_another_server(homeserver, version="10")
    other = await room_with_another_server(homeserver, version="10")
    foreign = other.server.current_state
    cites = {**remote.server.current_state, ("m.room.power_levels", ""): foreign[("m.room.power_levels", "")]}
    remote.server.events |= other.server.events
    pdu = remote.make("m.room.name", {"name": "x"}, sender=remote.user("dora"), state_key="", cites=cites)
    stored = await homeserver.outliers.store(await row(homeserver, remote), [pdu])
    assert "another room" in (stored[pdu.event_id].rejected or "")
    assert await homeserver.outliers.store(await row(homeserver, other), [pdu]) == {}


async def test_an_outlier_gets_its_place_when_it_comes_in_line(homeserver: Homeserver) -> None:
    """It keeps its number, is not stored twice, and takes its place in the state and in history."""
    remote = await room_with_another_server(homeserver)
    named = remote.send("m.room.name", {"name": "ours"}, sender=remote.user("dora"), state_key="")
    before = await homeserver.outliers.store(await row(homeserver, remote), [named])
    said = remote.say("after", sender=remote.user("dora"))
    assert await homeserver.push(remote, named, said) == {named.event_id: None, said.event_id: None}
    stored = await homeserver.get(named)
    assert stored.event_nid == before[named.event_id].event_nid
    assert stored.state_id is not None
    assert (stored.topological or 0) < ((await homeserver.get(said)).topological or 0)
    assert (await homeserver.state(remote.room_id))[("m.room.name", "")] == named.event_id
    assert await homeserver.ends(remote.room_id) == {said.event_id}
