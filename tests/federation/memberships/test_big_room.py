"""A join to a room of thousands: the answer is complete, whole or without its members."""

from dataclasses import replace

from homeserver.config.schema import DatabaseConfig
from homeserver.core.ids import UserId
from homeserver.core.room_versions import ROOM_VERSIONS
from storage.database import Database
from tests.api.server import CONFIG
from tests.federation.memberships.test_send_join import auth_chain, by_id
from tests.federation.memberships.world import id_of, running_world
from tests.rooms.workers import ALICE, SERVER, Worker, member

MEMBERS = 2_000
TOGETHER = 250


async def test_two_thousand_members(database_url: str) -> None:
    async with Database(database_url, DatabaseConfig(pool_size_max=2)) as db:
        worker = Worker(db)
        room_id = await worker.create_room(room_version=ROOM_VERSIONS["11"])
        users = [UserId(f"@user{number}:{SERVER}") for number in range(MEMBERS - 1)]
        for begin in range(0, len(users), TOGETHER):
            await worker.add(room_id, *(member(user_id, "join") for user_id in users[begin : begin + TOGETHER]))
    async with running_world(database_url, replace(CONFIG, server_name=SERVER)) as world:
        other, third = world.server(), world.server("third.example")
        answer = await other.enter("join", room_id, other.user())
        state = by_id(answer["state"], "11")
        assert {each["state_key"] for each in state.values() if each["type"] == "m.room.member"} == {ALICE, *users}
        chain = by_id(answer["auth_chain"], "11")
        known = {**state, **chain, id_of(answer["event"], "11"): answer["event"]}
        assert set(chain) == auth_chain({*state, id_of(answer["event"], "11")}, known)

        small = await third.enter("join", room_id, third.user(), omit_members="true")
        assert small["servers_in_room"] == sorted([SERVER, other.name])
        assert small["members_omitted"] is True
        members = [each["state_key"] for each in small["state"] if each["type"] == "m.room.member"]
        assert members == [ALICE, *users[:4]]
        assert len(small["state"]) + len(small["auth_chain"]) < 20
