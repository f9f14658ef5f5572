"""What this server does when others have changed the state of a room: its guests leave, and its aliases move."""

from typing import Any

import pytest

from homeserver.core.ids import RoomAlias, RoomId, UserId
from homeserver.services.rooms.drafts import Draft
from homeserver.services.rooms.state_consequences import StateConsequences
from homeserver.services.rooms.succession import RoomSuccession
from homeserver.services.stream.follower import Batch
from storage.aliases import find_rooms_of_aliases
from storage.positions import stream_bound
from storage.published_rooms import is_published
from tests.api.rooms.api import RoomsApi, User

DORA = UserId("@dora:elsewhere.example")


@pytest.fixture
def consequences(api: RoomsApi) -> StateConsequences:
    """The consumer of the stream of events."""
    succession = RoomSuccession(db=api.db, bus=api.bus, room_rules=api.rules)
    return StateConsequences(db=api.db, appender=api.appender, succession=succession)


async def _handle(api: RoomsApi, consequences: StateConsequences) -> None:
    async with api.db.connection() as conn:
        upto = await stream_bound(conn)
    assert await consequences.handle(Batch(follower="state_consequences", since=0, upto=upto, saved_upto=0)) == upto


async def _by_dora(api: RoomsApi, room_id: str, event_type: str, content: Any, *, state_key: str = "") -> None:
    """A state event of a user of another server."""
    draft = Draft(type=event_type, sender=DORA, state_key=state_key, content=content)
    await api.appender.append(RoomId(room_id), lambda _: [draft])


async def _room_with_dora(api: RoomsApi, alice: User, **options: Any) -> str:
    powers = {"users": {str(alice.user_id): 100, str(DORA): 100}}
    room_id = await alice.create(preset="public_chat", power_level_content_override=powers, **options)
    await _by_dora(api, room_id, "m.room.member", {"membership": "join"}, state_key=DORA)
    return room_id


async def test_guests_leave_a_room_that_another_server_closes_to_them(
    api: RoomsApi, consequences: StateConsequences, alice: User
) -> None:
    guest = await api.user("guest", is_guest=True)
    opened = {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}}
    room_id = await _room_with_dora(api, alice, room_version="11", initial_state=[opened])
    await guest.join(room_id)
    await _handle(api, consequences)
    assert await alice.membership(room_id, guest) == "join"
    await _by_dora(api, room_id, "m.room.guest_access", {"guest_access": "forbidden"})
    for _ in range(2):
        await _handle(api, consequences)
        assert await alice.membership(room_id, guest) == "leave"
    assert await alice.membership(room_id, alice) == "join"


async def test_aliases_and_the_directory_show_the_room_that_another_server_has_put_in_place(
    api: RoomsApi, consequences: StateConsequences, alice: User
) -> None:
    """Both rooms have to say so, and this server has to be in the new one."""
    old = await _room_with_dora(api, alice, room_version="11", room_alias_name="pub", visibility="public")
    alias = RoomAlias(f"#pub:{alice.user_id.server_name}")

    async def shown() -> tuple[str, list[str]]:
        async with api.db.connection() as conn:
            target = (await find_rooms_of_aliases(conn, [alias]))[alias]
            return target, [room_id for room_id in (old, unrelated, new) if await is_published(conn, RoomId(room_id))]

    unrelated = await alice.create(preset="public_chat")
    new = await alice.create(preset="public_chat", creation_content={"predecessor": {"room_id": old}})
    for replacement in (unrelated, "!unknown:elsewhere.example", "nonsense", None):
        await _by_dora(api, old, "m.room.tombstone", {"replacement_room": replacement})
        await _handle(api, consequences)
        assert await shown() == (old, [old])
    await _by_dora(api, old, "m.room.tombstone", {"replacement_room": new})
    for _ in range(2):
        await _handle(api, consequences)
        assert await shown() == (new, [new])
    # Whoever points the alias back has a reason.
    async with api.db.connection() as conn:
        await conn.execute("UPDATE room_aliases SET room_id = $1", old)
    await alice.send(old)
    async with api.db.connection() as conn:
        since, upto = (await conn.fetchval("SELECT max(position) FROM events")), await stream_bound(conn)
    await consequences.handle(Batch(follower="state_consequences", since=since, upto=upto, saved_upto=since))
    assert await shown() == (old, [new])
