"""What servers ask each other on behalf of their users, without being in a room together.

https://spec.matrix.org/v1.19/server-server-api/#querying-for-information
"""

from typing import Any
from urllib.parse import quote

from tests.federation.servers.conftest import Pair
from tests.federation.servers.rooms import join, set_state, until_membership


async def test_an_alias_of_another_server(pair: Pair) -> None:
    room_id = await pair.alice.create_room(preset="public_chat", room_alias_name="lounge")
    alias = f"#lounge:{pair.one.name}"
    found = await pair.bob.get(f"/directory/room/{quote(alias)}")
    assert found["room_id"] == room_id
    assert pair.one.name in found["servers"]
    assert await join(pair.bob, alias) == room_id
    absent = await pair.bob.call("GET", f"/directory/room/{quote('#absent:' + pair.one.name)}")
    assert (absent.status, absent.body["errcode"]) == (404, "M_NOT_FOUND")


async def test_whoever_joins_by_an_alias_comes_to_where_it_points_now(pair: Pair) -> None:
    """Even if it has been looked up a moment ago."""
    path = f"/directory/room/{quote(f'#lounge:{pair.one.name}')}"
    await pair.alice.create_room(preset="public_chat", room_alias_name="lounge")
    await pair.bob.get(path)
    room_id = await pair.alice.create_room(preset="public_chat")
    assert (await pair.alice.call("DELETE", path)).status == 200
    await pair.alice.put(path, {"room_id": room_id})
    assert await join(pair.bob, f"#lounge:{pair.one.name}") == room_id


async def test_a_profile_of_another_server(pair: Pair) -> None:
    await pair.alice.put(f"/profile/{pair.alice.user_id}/displayname", {"displayname": "Alice of One"})
    assert (await pair.bob.get(f"/profile/{pair.alice.user_id}"))["displayname"] == "Alice of One"
    assert await pair.bob.get(f"/profile/{pair.alice.user_id}/displayname") == {"displayname": "Alice of One"}
    absent = await pair.bob.call("GET", f"/profile/@nobody:{pair.one.name}")
    assert (absent.status, absent.body["errcode"]) == (404, "M_NOT_FOUND")


async def test_public_rooms_of_another_server(pair: Pair) -> None:
    room_id = await pair.alice.create_room(preset="public_chat", name="Found", visibility="public")
    await pair.alice.create_room(preset="public_chat", name="Hidden")
    answer = await pair.bob.get("/publicRooms", server=pair.one.name)
    assert [room["room_id"] for room in answer["chunk"]] == [room_id]
    path = f"/publicRooms?server={pair.one.name}"
    searched = await pair.bob.post(path, {"filter": {"generic_search_term": "nothing like it"}})
    assert searched["chunk"] == []


async def test_a_space_with_rooms_of_another_server(pair: Pair) -> None:
    room_id = await pair.alice.create_room(preset="public_chat", name="Child")
    secret = await pair.alice.create_room(preset="private_chat", name="Secret child")
    inner = await pair.alice.create_room(preset="public_chat", name="Inner", creation_content={"type": "m.space"})
    space = await pair.bob.create_room(preset="public_chat", name="Space", creation_content={"type": "m.space"})
    via = {"via": [pair.one.name]}
    await set_state(pair.alice, inner, "m.space.child", via, state_key=room_id)
    await set_state(pair.alice, inner, "m.space.child", via, state_key=secret)
    await set_state(pair.bob, space, "m.space.child", via, state_key=inner)
    answer = await pair.bob.get(f"/_matrix/client/v1/rooms/{space}/hierarchy")
    assert [room["room_id"] for room in answer["rooms"]] == [space, inner, room_id]


async def test_the_summary_of_a_room_elsewhere(pair: Pair) -> None:
    room_id = await pair.alice.create_room(preset="public_chat", name="Elsewhere")
    answer = await pair.bob.call("GET", f"/_matrix/client/v1/room_summary/{room_id}?via={pair.one.name}")
    assert answer.status == 200, answer.body
    assert (answer.body["name"], answer.body["num_joined_members"]) == ("Elsewhere", 1)


async def test_an_openid_token_is_checked_by_its_server(pair: Pair) -> None:
    token: Any = await pair.alice.post(f"/user/{pair.alice.user_id}/openid/request_token")
    assert token["matrix_server_name"] == pair.one.name
    assert await pair.userinfo(pair.one, token["access_token"]) == (200, {"sub": pair.alice.user_id})
    status, body = await pair.userinfo(pair.one, "wrong")
    assert (status, body["errcode"]) == (401, "M_UNKNOWN_TOKEN")


async def test_the_day_of_an_event_elsewhere(pair: Pair) -> None:
    """The first message was sent before the second server came, and is found nevertheless."""
    room_id = await pair.alice.create_room(preset="public_chat")
    event_id = await pair.alice.send(room_id, "long ago")
    event = await pair.alice.get(f"/rooms/{room_id}/event/{quote(event_id, safe='')}")
    await join(pair.bob, room_id, pair.one.name)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "join")
    path = f"/_matrix/client/v1/rooms/{room_id}/timestamp_to_event"
    answer = await pair.bob.get(path, ts=event["origin_server_ts"], dir="f")
    assert answer["event_id"] == event_id
