"""What a Synapse and this server ask each other on behalf of their users, without being in a room together.

https://spec.matrix.org/v1.19/server-server-api/#querying-for-information and the sections that follow it
"""

from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from homeserver.core.signing import VerifyKey, verify_json
from synapse_compat_tests.federation.conftest import Pair
from tests.federation.servers.rooms import join, set_state, until_membership


def unique(pair: Pair, name: str) -> str:
    """A name that no other test uses."""
    return f"{name}-{pair.alice.user_id.split(':')[0][1:]}"


async def test_an_alias_of_another_server(pair: Pair) -> None:
    name = unique(pair, "lounge")
    room_id = await pair.alice.create_room(preset="public_chat", room_alias_name=name)
    alias = f"#{name}:{pair.home.name}"
    found = await pair.bob.get(f"/directory/room/{quote(alias)}")
    assert found["room_id"] == room_id
    assert pair.home.name in found["servers"]
    assert await join(pair.bob, alias) == room_id
    absent = await pair.bob.call("GET", f"/directory/room/{quote(f'#absent:{pair.home.name}')}")
    assert (absent.status, absent.body["errcode"]) == (404, "M_NOT_FOUND")
    # Once the other server is in the room, it may add aliases of its own.
    await pair.bob.put(f"/directory/room/{quote(f'#{name}:{pair.away.name}')}", {"room_id": room_id})
    assert (await pair.alice.get(f"/directory/room/{quote(f'#{name}:{pair.away.name}')}"))["room_id"] == room_id


async def test_a_profile_of_another_server(pair: Pair) -> None:
    alice, bob = pair.alice, pair.bob
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice of One"})
    assert (await bob.get(f"/profile/{alice.user_id}"))["displayname"] == "Alice of One"
    assert await bob.get(f"/profile/{alice.user_id}/displayname") == {"displayname": "Alice of One"}
    unset = await bob.call("GET", f"/profile/{alice.user_id}/avatar_url")
    assert (unset.status, unset.body) in [(200, {}), (200, {"avatar_url": None})] or unset.status == 404
    await alice.put(f"/profile/{alice.user_id}/avatar_url", {"avatar_url": f"mxc://{pair.home.name}/abc"})
    assert await bob.get(f"/profile/{alice.user_id}/avatar_url") == {"avatar_url": f"mxc://{pair.home.name}/abc"}
    absent = await bob.call("GET", f"/profile/@nobody:{pair.home.name}")
    assert (absent.status, absent.body["errcode"]) == (404, "M_NOT_FOUND")


async def test_a_field_of_ones_own_in_a_profile(pair: Pair) -> None:
    path = f"/profile/{pair.alice.user_id}/m.tz"
    await pair.alice.put(path, {"m.tz": "Europe/Berlin"})
    assert (await pair.bob.get(f"/profile/{pair.alice.user_id}"))["m.tz"] == "Europe/Berlin"
    assert await pair.bob.get(path) == {"m.tz": "Europe/Berlin"}


async def test_an_invitation_has_the_profile(pair: Pair) -> None:
    """The server that invites asks for the profile of whom it invites, though only the picture may be set."""
    alice, bob = pair.alice, pair.bob
    await bob.put(f"/profile/{bob.user_id}/avatar_url", {"avatar_url": f"mxc://{pair.away.name}/abc"})
    await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": ""})
    room_id = await alice.create_room(preset="private_chat", invite=[bob.user_id])
    content = await alice.get(f"/rooms/{quote(room_id)}/state/m.room.member/{bob.user_id}")
    assert content["avatar_url"] == f"mxc://{pair.away.name}/abc"


async def test_public_rooms_of_another_server(pair: Pair) -> None:
    name = unique(pair, "Found")
    room_id = await pair.alice.create_room(preset="public_chat", name=name, visibility="public", topic="of the day")
    await pair.alice.create_room(preset="public_chat", name=f"{name} hidden")
    path = f"/publicRooms?server={pair.home.name}"

    found = await pair.bob.post(path, {"filter": {"generic_search_term": name}})
    (room,) = found["chunk"]
    assert room["room_id"] == room_id
    assert (room["name"], room["topic"], room["num_joined_members"]) == (name, "of the day", 1)
    assert (room["world_readable"], room["guest_can_join"]) == (False, False)
    assert (await pair.bob.post(path, {"filter": {"generic_search_term": "nothing like it"}}))["chunk"] == []

    listed: list[str] = []
    page: dict[str, Any] = {}
    while True:
        answer = await pair.bob.get("/publicRooms", server=pair.home.name, limit=1, **page)
        assert len(answer["chunk"]) <= 1
        listed += [room["room_id"] for room in answer["chunk"]]
        if "next_batch" not in answer:
            break
        page = {"since": answer["next_batch"]}
    assert room_id in listed
    assert len(set(listed)) == len(listed)


async def test_a_space_with_rooms_of_another_server(pair: Pair) -> None:
    space_type = {"creation_content": {"type": "m.space"}}
    child = await pair.alice.create_room(preset="public_chat", name="Child")
    secret = await pair.alice.create_room(preset="private_chat", name="Secret child")
    inner = await pair.alice.create_room(preset="public_chat", name="Inner", **space_type)
    space = await pair.bob.create_room(preset="public_chat", name="Space", **space_type)
    # The other server must know that it has a user who may come in.
    club = await pair.share_room()
    allow = [{"type": "m.room_membership", "room_id": club}]
    restricted = await pair.alice.create_room(
        preset="private_chat",
        name="Restricted child",
        room_version="12",
        initial_state=[
            {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "restricted", "allow": allow}}
        ],
    )
    via = {"via": [pair.home.name]}
    for number, room_id in enumerate((child, secret, restricted)):
        await set_state(pair.alice, inner, "m.space.child", {**via, "order": str(number)}, state_key=room_id)
    await set_state(pair.bob, space, "m.space.child", via, state_key=inner)
    answer = await pair.bob.get(f"/_matrix/client/v1/rooms/{quote(space)}/hierarchy")
    rooms = {room["room_id"]: room for room in answer["rooms"]}
    assert list(rooms) == [space, inner, child, restricted]
    assert [rooms[room_id]["name"] for room_id in (inner, child, restricted)] == ["Inner", "Child", "Restricted child"]
    assert rooms[restricted]["join_rule"] == "restricted"
    assert rooms[restricted]["allowed_room_ids"] == [club]
    assert [event["state_key"] for event in rooms[inner]["children_state"]] != []


async def test_the_summary_of_a_room_elsewhere(pair: Pair) -> None:
    room_id = await pair.alice.create_room(preset="public_chat", name="Elsewhere", room_version="11")
    answer = await pair.bob.call("GET", f"/_matrix/client/v1/room_summary/{quote(room_id)}?via={pair.home.name}")
    assert answer.status == 200, answer.body
    summary = answer.body
    assert (summary["name"], summary["num_joined_members"], summary["room_version"]) == ("Elsewhere", 1, "11")
    closed = await pair.alice.create_room(preset="private_chat", name="Closed")
    answer = await pair.bob.call("GET", f"/_matrix/client/v1/room_summary/{quote(closed)}?via={pair.home.name}")
    assert answer.status == 404


async def test_an_openid_token_is_checked_by_its_server(pair: Pair, trusting: aiohttp.ClientSession) -> None:
    token = await pair.alice.post(f"/user/{pair.alice.user_id}/openid/request_token", {})
    assert token["matrix_server_name"] == pair.home.name
    url = f"https://{pair.home.name}/_matrix/federation/v1/openid/userinfo"
    async with trusting.get(url, params={"access_token": token["access_token"]}) as answer:
        assert (answer.status, await answer.json()) == (200, {"sub": pair.alice.user_id})
    async with trusting.get(url, params={"access_token": "wrong"}) as answer:
        assert (answer.status, (await answer.json())["errcode"]) == (401, "M_UNKNOWN_TOKEN")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_each_vouches_for_the_keys_of_the_other(pair: Pair, trusting: aiohttp.ClientSession, method: str) -> None:
    """As a notary, each server signs the other's keys with its own."""
    async with trusting.get(f"https://{pair.home.name}/_matrix/key/v2/server") as answer:
        notary = await answer.json()
    async with trusting.get(f"https://{pair.away.name}/_matrix/key/v2/server") as answer:
        asked = await answer.json()
    url = f"https://{pair.home.name}/_matrix/key/v2/query" + (f"/{pair.away.name}" if method == "GET" else "")
    body: dict[str, Any] | None = {"server_keys": {pair.away.name: {}}} if method == "POST" else None
    async with trusting.request(method, url, json=body) as answer:
        assert answer.status == 200, await answer.text()
        (vouched,) = (await answer.json())["server_keys"]
    assert vouched["verify_keys"] == asked["verify_keys"]
    for server_keys in (asked, notary):
        (key_id, published), *_ = server_keys["verify_keys"].items()
        assert verify_json(
            vouched, server_keys["server_name"], VerifyKey.parse(key_id=key_id, key_base64=published["key"])
        )


async def test_a_room_is_peeked_into_by_nobody(pair: Pair) -> None:
    """A room that the world may read is read only by servers that are in it; nothing breaks when others ask."""
    room_id = await pair.alice.create_room(preset="public_chat")
    await set_state(pair.alice, room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    answer = await pair.bob.call("GET", f"/rooms/{quote(room_id)}/state")
    assert answer.status in (403, 404)
    await join(pair.bob, room_id, pair.home.name)
    await until_membership(pair.alice, room_id, pair.bob.user_id, "join")
