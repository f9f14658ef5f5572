"""GET /rooms/{roomId}/messages."""

import orjson
import pytest

from homeserver.core.tokens import SyncToken
from tests.api.history.api import ReadingServer, User, bodies, event_ids, refused

LAZY = orjson.dumps({"lazy_load_members": True}).decode()


async def _say(user: User, room_id: str, *texts: str) -> list[str]:
    return [await user.send(room_id, text) for text in texts]


async def test_pages_backwards_through_all_of_the_history(alice: User) -> None:
    room_id = await alice.create()
    sent = await _say(alice, room_id, *(f"message {number}" for number in range(7)))
    seen: list[str] = []
    page = await alice.messages(room_id, limit=3)
    while True:
        seen += event_ids(page["chunk"])
        if "end" not in page:
            break
        assert len(page["chunk"]) <= 3
        following = await alice.messages(room_id, limit=3, **{"from": page["end"]})
        assert following["start"] == page["end"]
        page = following
    assert seen[:7] == sent[::-1]
    assert seen[-1] == (await alice.get(f"/rooms/{room_id}/state/m.room.create/", format="event"))["event_id"]
    assert len(seen) == len(set(seen))


async def test_the_way_forwards_is_the_way_backwards_reversed(alice: User) -> None:
    room_id = await alice.create()
    await _say(alice, room_id, "one", "two", "three")
    backwards = (await alice.messages(room_id, limit=100))["chunk"]
    forwards = await alice.messages(room_id, dir="f", limit=100)
    assert event_ids(forwards["chunk"]) == event_ids(backwards)[::-1]
    end = forwards["end"]
    await _say(alice, room_id, "four")
    assert bodies((await alice.messages(room_id, dir="f", **{"from": end}))["chunk"]) == ["four"]


async def test_stops_at_the_other_token(alice: User) -> None:
    room_id = await alice.create()
    await _say(alice, room_id, "one", "two", "three", "four")
    point = (await alice.messages(room_id, limit=2))["end"]
    assert bodies((await alice.messages(room_id, limit=9, to=point))["chunk"]) == ["four", "three"]
    start = (await alice.messages(room_id, limit=3))["end"]
    page = await alice.messages(room_id, dir="f", limit=9, to=point, **{"from": start})
    assert bodies(page["chunk"]) == ["two"]


async def test_a_sync_token_names_a_point_of_the_history(server: ReadingServer, alice: User) -> None:
    room_id = await alice.create()
    await _say(alice, room_id, "before")
    token = SyncToken(await server.hub.bound()).format()
    await _say(alice, room_id, "behind")
    page = await alice.messages(room_id, limit=1, **{"from": token})
    assert (bodies(page["chunk"]), page["start"]) == (["before"], token)
    assert bodies((await alice.messages(room_id, dir="f", **{"from": token}))["chunk"]) == ["behind"]
    assert bodies((await alice.messages(room_id, limit=5, to=token))["chunk"]) == ["behind"]
    other = await alice.create(name="Younger than the token")
    assert (await alice.messages(other, **{"from": token}))["chunk"] == []


async def test_the_filter(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    await _say(alice, room_id, "from alice")
    await _say(bob, room_id, "from bob")
    await alice.send(room_id, "a picture", url="mxc://example.org/picture")

    async def texts(**members: object) -> list[str]:
        wanted = orjson.dumps(members).decode()
        return bodies((await alice.messages(room_id, limit=50, filter=wanted))["chunk"])

    assert await texts(types=["m.room.m*"], not_types=["m.room.member"]) == ["a picture", "from bob", "from alice"]
    assert await texts(senders=[bob.user_id]) == ["from bob"]
    assert await texts(not_senders=[alice.user_id]) == ["from bob"]
    assert await texts(contains_url=True) == ["a picture"]
    assert await texts(types=[]) == []
    assert await texts(not_rooms=[room_id]) == []
    assert await texts(rooms=["!other:example.org"]) == []
    assert await texts(limit=1) == ["a picture"]


async def test_members_are_loaded_lazily(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    await carol.join(room_id)
    await _say(bob, room_id, "from bob")
    page = await alice.messages(room_id, limit=1, filter=LAZY)
    assert [(event["type"], event["state_key"]) for event in page["state"]] == [("m.room.member", bob.user_id)]
    assert "state" not in await alice.messages(room_id, limit=1)
    nothing = await alice.messages(room_id, dir="f", filter=LAZY, **{"from": page["start"]})
    assert nothing["chunk"] == []
    assert "state" not in nothing
    assert "end" not in nothing


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"dir": "x"}, "M_INVALID_PARAM"),
        ({"dir": "b", "limit": "-1"}, "M_INVALID_PARAM"),
        ({"dir": "b", "limit": "many"}, "M_INVALID_PARAM"),
        ({"dir": "b", "from": "nonsense"}, "M_INVALID_PARAM"),
        ({"dir": "b", "to": "t1_2_3"}, "M_INVALID_PARAM"),
        ({"dir": "b", "from": "s99999999999999999999"}, "M_INVALID_PARAM"),
        ({"dir": "b", "filter": "{"}, "M_NOT_JSON"),
        ({"dir": "b", "filter": "[]"}, "M_BAD_JSON"),
        ({"dir": "b", "filter": '{"types": "m.room.message"}'}, "M_BAD_JSON"),
        ({"dir": "b", "filter": '{"types": ["\\u0000"]}'}, "M_BAD_JSON"),
    ],
)
async def test_wrong_parameters(alice: User, query: dict[str, str], errcode: str) -> None:
    room_id = await alice.create()
    refused(await alice.call("GET", f"/rooms/{room_id}/messages", **query), 400, errcode)


async def test_large_limits_are_cut_and_none_is_none(alice: User) -> None:
    room_id = await alice.create()
    assert len((await alice.messages(room_id, limit=10**9))["chunk"]) < 20
    nothing = await alice.messages(room_id, limit=0)
    assert (nothing["chunk"], nothing["end"]) == ([], nothing["start"])


async def test_who_may_not_read_the_room(server: ReadingServer, alice: User, bob: User) -> None:
    room_id = await alice.create()
    for room in (room_id, "!absent:example.org"):
        refused(await bob.call("GET", f"/rooms/{room}/messages", dir="b"), 403, "M_FORBIDDEN")
    await alice.invite(room_id, bob)
    refused(await bob.call("GET", f"/rooms/{room_id}/messages", dir="b"), 403, "M_FORBIDDEN")
    refused(await server.call("GET", f"/rooms/{room_id}/messages", dir="b"), 401, "M_MISSING_TOKEN")
    refused(await alice.call("GET", "/rooms/nonsense/messages", dir="b"), 400, "M_INVALID_PARAM")


async def test_who_left_sees_what_was_before_until_it_forgets_the_room(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    await _say(alice, room_id, "before")
    await bob.leave(room_id)
    await _say(alice, room_id, "behind")
    page = await bob.messages(room_id, limit=3)
    assert page["chunk"][0]["content"]["membership"] == "leave"
    assert bodies(page["chunk"]) == ["before"]
    assert "behind" not in bodies((await bob.messages(room_id, dir="f", limit=100))["chunk"])
    await bob.post(f"/rooms/{room_id}/forget")
    refused(await bob.call("GET", f"/rooms/{room_id}/messages", dir="b"), 403, "M_FORBIDDEN")


async def test_who_rejected_an_invitation_was_never_in_the_room(alice: User, bob: User) -> None:
    room_id = await alice.create()
    await alice.invite(room_id, bob)
    await bob.leave(room_id)
    refused(await bob.call("GET", f"/rooms/{room_id}/messages", dir="b"), 403, "M_FORBIDDEN")


async def test_everybody_reads_a_world_readable_room(server: ReadingServer, alice: User) -> None:
    guest = await server.user("guest", is_guest=True)
    room_id = await alice.create()
    await _say(alice, room_id, "for members")
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    await _say(alice, room_id, "for everybody")
    page = await guest.messages(room_id, limit=50)
    assert bodies(page["chunk"]) == ["for everybody"]
    assert [event["type"] for event in page["chunk"]] == ["m.room.message", "m.room.history_visibility"]
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "shared"})
    refused(await guest.call("GET", f"/rooms/{room_id}/messages", dir="b"), 403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("visibility", "seen"),
    [
        ("shared", ["joined", "invited", "before"]),
        ("invited", ["joined", "invited"]),
        ("joined", ["joined"]),
    ],
)
async def test_history_visibility(alice: User, bob: User, visibility: str, seen: list[str]) -> None:
    state = [
        {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": visibility}},
    ]
    room_id = await alice.create(initial_state=state)
    await _say(alice, room_id, "before")
    await alice.invite(room_id, bob)
    await _say(alice, room_id, "invited")
    await bob.join(room_id)
    await _say(alice, room_id, "joined")
    assert bodies((await bob.messages(room_id, limit=100))["chunk"]) == seen


async def test_s37_invisible_pages_do_not_end_the_history(alice: User, bob: User) -> None:
    """A page full of what the reader may not see leads on to what it may (lesson S37)."""
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    await _say(alice, room_id, "visible")
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    await bob.leave(room_id)
    await _say(alice, room_id, *(f"hidden {number}" for number in range(30)))
    await bob.join(room_id)
    page = await bob.messages(room_id, limit=1)
    texts: list[str] = []
    requests = 0
    while "end" in page:
        texts += bodies(page["chunk"])
        page = await bob.messages(room_id, limit=2, **{"from": page["end"]})
        requests += 1
        assert requests < 20
    assert texts == ["visible"]


async def test_s37_a_rare_type_is_found_however_much_lies_before_it(server: ReadingServer, alice: User) -> None:
    """Reading is bounded, and a client that goes on finds what there is (lesson S37)."""
    room_id = await alice.create()
    rare = await alice.send_event(room_id, "org.example.rare", {"n": 1})
    await fill(server, room_id, count=2500)
    wanted = orjson.dumps({"types": ["org.example.rare"]}).decode()
    page = await alice.messages(room_id, filter=wanted)
    while not page["chunk"]:
        page = await alice.messages(room_id, filter=wanted, **{"from": page["end"]})
    assert event_ids(page["chunk"]) == [rare]


async def test_messages_of_ignored_users_are_left_out_but_not_their_state(alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    await _say(bob, room_id, "noise")
    await _say(alice, room_id, "signal")
    await alice.ignore(bob)
    page = await alice.messages(room_id, limit=3)
    assert bodies(page["chunk"]) == ["signal"]
    assert [event["sender"] for event in page["chunk"] if event["type"] == "m.room.member"] == [bob.user_id]


async def test_s23_what_concerns_one_device_is_told_to_that_device_only(
    server: ReadingServer, alice: User, bob: User
) -> None:
    """Each reader gets a form of its own: transaction ids go to the sending device alone (lesson S23)."""
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    await _say(alice, room_id, "hello")

    async def unsigned(user: User) -> dict[str, object]:
        newest = (await user.messages(room_id, limit=1))["chunk"][0]
        assert newest["content"]["body"] == "hello"
        result: dict[str, object] = newest["unsigned"]
        return result

    assert str((await unsigned(alice))["transaction_id"]).startswith("txn")
    for reader in (server.other_device(alice), bob):
        told = await unsigned(reader)
        assert "transaction_id" not in told
        assert told["membership"] == "join"


async def test_content_of_erased_users_is_for_those_who_were_there(
    server: ReadingServer, alice: User, bob: User, carol: User
) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    await _say(alice, room_id, "my secret")
    await carol.join(room_id)
    async with server.db.connection() as conn:
        await conn.execute("UPDATE users SET erased = true WHERE user_id = $1", alice.user_id)
    wanted = orjson.dumps({"types": ["m.room.message"]}).decode()
    assert bodies((await bob.messages(room_id, filter=wanted))["chunk"]) == ["my secret"]
    stranger = (await carol.messages(room_id, filter=wanted))["chunk"]
    assert [event["content"] for event in stranger] == [{}]


async def test_nul_characters_in_messages_hinder_nobody(alice: User) -> None:
    room_id = await alice.create()
    event_id = await alice.send(room_id, "a\0b")
    relation = {"rel_type": "m.replace", "event_id": event_id}
    content = {"msgtype": "m.text", "body": "* \0", "m.new_content": {"msgtype": "m.text", "body": "\0"}}
    await alice.send_event(room_id, "m.room.message", {**content, "m.relates_to": relation})
    page = await alice.messages(room_id, limit=2)
    edited = page["chunk"][1]
    assert edited["event_id"] == event_id
    assert edited["unsigned"]["m.relations"]["m.replace"]["content"]["m.new_content"]["body"] == "\0"


async def test_the_number_of_statements_does_not_grow_with_the_page(
    server: ReadingServer, alice: User, bob: User
) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    for number in range(15):
        await _say(alice, room_id, f"one {number}")
        await _say(bob, room_id, f"two {number}")
    path = f"/rooms/{room_id}/messages"
    await alice.get(path, dir="b", limit=1, filter=LAZY)
    few = await server.statements_of(alice, path, dir="b", limit=2, filter=LAZY)
    many = await server.statements_of(alice, path, dir="b", limit=30, filter=LAZY)
    assert many.statements <= few.statements + 1


async def fill(server: ReadingServer, room_id: str, *, count: int) -> None:
    """Puts many messages at the end of a room's history at once, by copies of its last one."""
    async with server.db.connection() as conn:
        await conn.execute(
            """
            INSERT INTO events (event_id, room_nid, position, topological, depth, origin_server_ts, type, sender,
                state_id, client_json, federation_json)
            SELECT '$copy' || n, e.room_nid, stream_position(), e.topological + n, e.depth, e.origin_server_ts + n,
                'm.room.message', e.sender, e.state_id,
                replace(e.client_json, e.event_id, '$copy' || n), e.federation_json
            FROM events e JOIN rooms r USING (room_nid), generate_series(1, $2::integer) AS n
            WHERE r.room_id = $1 AND e.event_nid = (SELECT max(m.event_nid) FROM events m WHERE m.room_nid = r.room_nid)
            """,
            room_id,
            count,
        )
