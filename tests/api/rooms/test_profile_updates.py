"""Changed profiles in the rooms that users are in."""

import pytest

from homeserver.services.rooms.profile_updates import ProfileUpdates
from homeserver.services.stream.follower import Batch
from storage.positions import stream_bound
from storage.profiles import remove_fields, upsert_fields
from tests.api.rooms.api import RoomsApi, User


@pytest.fixture
def updates(api: RoomsApi) -> ProfileUpdates:
    """The consumer of the profile stream."""
    return ProfileUpdates(db=api.db, appender=api.appender)


async def _handle(api: RoomsApi, updates: ProfileUpdates) -> None:
    async with api.db.connection() as conn:
        upto = await stream_bound(conn)
    assert await updates.handle(Batch(follower="profile_updates", since=0, upto=upto, saved_upto=0)) == upto


async def _event_count(api: RoomsApi) -> int:
    async with api.db.connection() as conn:
        count: int = await conn.fetchval("SELECT count(*) FROM events")
    return count


async def test_a_new_name_comes_into_all_joined_rooms(
    api: RoomsApi, updates: ProfileUpdates, alice: User, bob: User
) -> None:
    joined = [await alice.create(preset="public_chat", invite=[bob.user_id]) for _ in range(6)]
    left, invited = await alice.create(preset="public_chat"), await alice.create(invite=[bob.user_id])
    for room_id in (*joined, left):
        await bob.post(room_id, "join", reason="fun")
    await bob.post(left, "leave")
    async with api.db.transaction() as conn:
        fields = {"displayname": '"Bob"', "avatar_url": '"mxc://example.org/b"', "m.tz": '"UTC"'}
        await upsert_fields(conn, user_id=bob.user_id, values=fields)
    await _handle(api, updates)
    for room_id in joined:
        content = (await alice.get_state(room_id, "m.room.member", bob.user_id)).json
        assert content == {"membership": "join", "displayname": "Bob", "avatar_url": "mxc://example.org/b"}
    assert (await alice.get_state(left, "m.room.member", bob.user_id)).json == {"membership": "leave"}
    assert (await alice.get_state(invited, "m.room.member", bob.user_id)).json == {"membership": "invite"}
    before = await _event_count(api)
    await _handle(api, updates)
    assert await _event_count(api) == before
    async with api.db.transaction() as conn:
        await remove_fields(conn, user_id=bob.user_id, name="displayname")
    await _handle(api, updates)
    content = (await alice.get_state(joined[0], "m.room.member", bob.user_id)).json
    assert content == {"membership": "join", "avatar_url": "mxc://example.org/b"}


async def test_a_name_for_one_room_stays_when_the_avatar_changes(
    api: RoomsApi, updates: ProfileUpdates, alice: User
) -> None:
    room_id = await alice.create()
    nickname = {"membership": "join", "displayname": "The Boss", "org.example": 1}
    await alice.set_state(room_id, "m.room.member", nickname, alice.user_id)
    async with api.db.transaction() as conn:
        await upsert_fields(conn, user_id=alice.user_id, values={"avatar_url": '"mxc://example.org/a"'})
    await _handle(api, updates)
    content = (await alice.get_state(room_id, "m.room.member", alice.user_id)).json
    assert content == {**nickname, "avatar_url": "mxc://example.org/a"}
