"""What clients are told of rooms and users of other servers, and of history that other servers have."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from homeserver.core.errors import RemoteUnavailable
from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.tokens import HistoryToken
from homeserver.runtime.other_servers import Remotes
from homeserver.services.rooms.drafts import Draft
from storage.history import END, at
from tests.api.history.api import ReadingServer, User, bodies, reading_server, refused
from tests.api.history.other_servers import (
    OTHER,
    THIRD,
    Directories,
    Past,
    Profiles,
    Times,
    child,
    refusal,
    space,
    summary,
)
from tests.api.server import composed_server
from tests.rooms.consistency import all_events

BOB = UserId(f"@bob:{OTHER}")
SPACE, ROOM, DEEP, SECRET = "!space:other.example", "!room:other.example", "!deep:third.example", "!s:other.example"


@pytest.fixture
def directories() -> Directories:
    """What other servers tell."""
    return Directories()


@pytest.fixture
def times() -> Times:
    """Events that other servers know by their time."""
    return Times()


@pytest.fixture
def past() -> Past:
    """What fetches history."""
    return Past()


@pytest.fixture
async def server(database_url: str, directories: Directories, times: Times, past: Past) -> AsyncIterator[ReadingServer]:
    """A server among others."""
    remotes = Remotes(directories=directories, public_rooms=directories, events=times)
    async with reading_server(database_url, remotes=remotes, backfill=past, imports=past) as running:
        yield running


async def _remote(server: ReadingServer, room_id: RoomId, event_type: str, content: Any, **more: Any) -> EventId:
    """An event of Bob, who is a user of another server."""
    draft = Draft(type=event_type, sender=BOB, content=content, **more)
    added = await server.rooms.appender.append(room_id, lambda _: [draft])
    return added.events[0].event_id


async def _join(server: ReadingServer, room_id: RoomId) -> None:
    await _remote(server, room_id, "m.room.member", {"membership": "join"}, state_key=BOB)


async def _execute(server: ReadingServer, statement: str, *values: Any) -> None:
    async with server.db.connection() as conn:
        await conn.execute(statement, *values)


# Aliases


async def test_an_alias_of_another_server(server: ReadingServer, alice: User, directories: Directories) -> None:
    directories.aliases["#here:other.example"] = (ROOM, [OTHER, THIRD])
    path = f"/directory/room/{quote('#here:other.example')}"
    for _ in range(3):
        assert await alice.get(path) == {"room_id": ROOM, "servers": [OTHER, THIRD]}
    assert directories.asked == [("alias", "#here:other.example")], "the answer is remembered"
    refused(await alice.call("GET", f"/directory/room/{quote('#gone:other.example')}"), 404, "M_NOT_FOUND")


async def test_an_alias_that_is_not_there_is_asked_for_again(alice: User, directories: Directories) -> None:
    path = f"/directory/room/{quote('#here:other.example')}"
    refused(await alice.call("GET", path), 404, "M_NOT_FOUND")
    directories.aliases["#here:other.example"] = (ROOM, [OTHER])
    assert (await alice.get(path))["room_id"] == ROOM


# Profiles


async def test_the_profiles_of_other_servers_users(database_url: str) -> None:
    profiles = Profiles({BOB: {"displayname": "Bob", "org.example.mood": {"now": 1}}})
    async with composed_server(database_url, remotes=Remotes(profiles=profiles)) as site:
        client = await site.register("alice")
        assert await client.get(f"/profile/{BOB}") == profiles.known[BOB]
        assert await client.get(f"/profile/{BOB}/displayname") == {"displayname": "Bob"}
        assert await client.get(f"/profile/{BOB}/org.example.mood") == {"org.example.mood": {"now": 1}}
        for path in (f"/profile/{BOB}/avatar_url", f"/profile/@nobody:{OTHER}", f"/profile/@x:{THIRD}/displayname"):
            refused(await client.call("GET", path), 404, "M_NOT_FOUND")


# Lists of public rooms


async def test_the_public_rooms_of_another_server(alice: User, directories: Directories) -> None:
    directories.lists[OTHER] = {
        "chunk": [summary(ROOM, name="Cheese"), "x", {"room_id": "nonsense"}, summary(SPACE, name=7)],
        "next_batch": "n",
        "prev_batch": 3,
        "total_room_count_estimate": 2,
        "more": "no",
    }
    page = await alice.get("/publicRooms", server=OTHER)
    assert page["next_batch"] == "n"
    assert page["total_room_count_estimate"] == 2
    assert set(page) == {"chunk", "next_batch", "total_room_count_estimate"}
    assert [room["room_id"] for room in page["chunk"]] == [ROOM, SPACE]
    assert (page["chunk"][0]["name"], "name" in page["chunk"][1]) == ("Cheese", False)
    search = {"limit": 5, "filter": {"generic_search_term": "x"}}
    found = await alice.call("POST", "/publicRooms", search, server=OTHER)
    assert found.status == 200
    assert directories.asked == [("list", OTHER, "100", "None"), ("list", OTHER, "5", "x")]


@pytest.mark.parametrize(
    ("error", "status", "errcode"),
    [
        (RemoteUnavailable("It is away"), 502, "M_UNKNOWN"),
        (refusal(403, "M_FORBIDDEN"), 403, "M_FORBIDDEN"),
        # Told as it is, this would log the client out.
        (refusal(401, "M_UNKNOWN_TOKEN"), 502, "M_UNKNOWN"),
        (refusal(500, "M_UNKNOWN"), 502, "M_UNKNOWN"),
    ],
)
async def test_public_rooms_that_cannot_be_had(
    alice: User, directories: Directories, error: Any, status: int, errcode: str
) -> None:
    directories.lists[OTHER] = error
    refused(await alice.call("GET", "/publicRooms", server=OTHER), status, errcode)
    refused(await alice.call("GET", "/publicRooms", server="no server"), 400, "M_INVALID_PARAM")


# Spaces


def _hierarchy(room_id: str) -> str:
    return f"/_matrix/client/v1/rooms/{quote(room_id)}/hierarchy"


async def _walk(user: User, room_id: str, **query: Any) -> list[str]:
    return [room["room_id"] for room in (await user.get(_hierarchy(room_id), **query))["rooms"]]


async def test_a_space_with_rooms_of_other_servers(alice: User, directories: Directories) -> None:
    """S20: what the server hides from this one is not asked for elsewhere."""
    own = await alice.create(preset="public_chat")
    top = await alice.create(preset="public_chat", creation_content={"type": "m.space"})
    for room_id, via in ((SPACE, OTHER), (own, "example.org"), ("!gone:x.example", "x.example")):
        await alice.set_state(top, "m.space.child", {"via": [via]}, room_id)
    directories.tell(
        OTHER,
        space(SPACE, child(ROOM, order="a"), child(SECRET, order="b"), child(DEEP, via=[THIRD], order="c")),
        summary(ROOM, name="Cheese"),
        hidden=[SECRET],
    )
    directories.tell(THIRD, summary(DEEP))
    rooms = (await alice.get(_hierarchy(top)))["rooms"]
    assert [room["room_id"] for room in rooms] == [top, SPACE, ROOM, DEEP, own]
    assert [each["state_key"] for each in rooms[1]["children_state"]] == [ROOM, SECRET, DEEP]
    assert rooms[2]["name"] == "Cheese"
    asked = set(directories.asked)
    assert ("hierarchy", OTHER, SPACE) in asked
    assert ("hierarchy", THIRD, DEEP) in asked
    assert not asked & {("hierarchy", OTHER, ROOM), ("hierarchy", OTHER, SECRET)}
    # Each page is read anew, but not each server.
    count = len(directories.asked)
    first = await alice.get(_hierarchy(top), limit=2)
    assert len((await alice.get(_hierarchy(top), limit=50, **{"from": first["next_batch"]}))["rooms"]) == 3
    assert len(directories.asked) == count


async def test_a_space_of_another_server_itself(alice: User, directories: Directories) -> None:
    directories.tell(OTHER, space(SPACE, child(ROOM)), summary(ROOM))
    assert await _walk(alice, SPACE) == [SPACE, ROOM]
    assert await _walk(alice, SPACE, max_depth=0) == [SPACE]
    refused(await alice.call("GET", _hierarchy("!gone:other.example")), 403, "M_FORBIDDEN")


async def test_loops_end(alice: User, directories: Directories) -> None:
    directories.tell(OTHER, space(SPACE, child(DEEP, via=[THIRD]), child(SPACE)))
    directories.tell(THIRD, space(DEEP, child(SPACE), child(DEEP)))
    assert await _walk(alice, SPACE) == [SPACE, DEEP]


async def test_who_may_know_of_a_room_elsewhere(server: ReadingServer, alice: User, directories: Directories) -> None:
    """S20: the other server tells this one what any of its users may know of; each user is judged here."""
    club = await alice.create(preset="private_chat")
    restricted = {"join_rule": "restricted", "allowed_room_ids": [club]}
    rooms: dict[str, dict[str, Any]] = {
        "!public:other.example": {},
        "!knock:other.example": {"join_rule": "knock"},
        "!readable:other.example": {"join_rule": "invite", "world_readable": True},
        "!restricted:other.example": restricted,
        "!invite:other.example": {"join_rule": "invite"},
    }
    directories.tell(
        OTHER,
        space(SPACE, *(child(room_id, order=f"{number}") for number, room_id in enumerate(rooms))),
        *(summary(room_id, **members) for room_id, members in rooms.items()),
    )
    carol = await server.user("carol")
    assert await _walk(alice, SPACE) == [SPACE, *list(rooms)[:4]]
    assert await _walk(carol, SPACE) == [SPACE, *list(rooms)[:3]]


async def test_nonsense_is_passed_over(alice: User, directories: Directories) -> None:
    """What another server sends may be anything."""
    directories.tell(
        OTHER,
        space(
            SPACE,
            child(ROOM),
            {"type": "m.space.child"},
            {**child(ROOM), "state_key": 7},
            {**child(ROOM), "content": []},
            {**child(ROOM), "sender": "x"},
            {**child(ROOM), "origin_server_ts": "x"},
            child("no room"),
            name=["x"],
            num_joined_members=-1,
            join_rule="public",
            allowed_room_ids=[1, {}],
        ),
        {"room_id": 7},
        summary("!stranger:other.example"),
    )
    directories.tell(OTHER, summary(ROOM, topic="x" * 70_000))
    rooms = (await alice.get(_hierarchy(SPACE)))["rooms"]
    assert [room["room_id"] for room in rooms] == [SPACE, ROOM]
    assert (rooms[0]["num_joined_members"], "name" in rooms[0], "topic" in rooms[1]) == (0, False, False)


async def test_few_servers_are_asked_for_a_room(alice: User, directories: Directories) -> None:
    servers = [f"s{number}.example" for number in range(10)]
    top = await alice.create(preset="public_chat", creation_content={"type": "m.space"})
    await alice.set_state(top, "m.space.child", {"via": ["example.org", *servers, 7, "no server"]}, ROOM)
    assert await _walk(alice, top) == [top]
    assert directories.asked == [("hierarchy", server, ROOM) for server in servers[:3]]
    # That nobody knew is remembered for a while too.
    assert await _walk(alice, top) == [top]
    assert len(directories.asked) == 3


async def test_the_fan_out_is_bounded(alice: User, directories: Directories) -> None:
    children = [f"!r{number}:other.example" for number in range(150)]
    directories.tell(OTHER, space(SPACE, *(child(room_id, via=["x.example"]) for room_id in children)))
    assert await _walk(alice, SPACE) == [SPACE]
    assert len(directories.asked) == 100


# Summaries


def _summary(name: str) -> str:
    return f"/_matrix/client/v1/room_summary/{quote(name, safe='')}"


async def test_the_summary_of_a_room_elsewhere(server: ReadingServer, alice: User, directories: Directories) -> None:
    directories.tell(THIRD, summary(ROOM, name="Cheese", children_state=[], secret="x"))
    shown = await alice.get(_summary(ROOM), via=["nonsense!", "other.example", THIRD])
    assert shown == {**summary(ROOM, name="Cheese")}
    assert directories.asked == [("hierarchy", OTHER, ROOM), ("hierarchy", THIRD, ROOM)]
    directories.aliases["#here:other.example"] = (DEEP, [THIRD])
    directories.tell(THIRD, summary(DEEP))
    assert (await alice.get(_summary("#here:other.example")))["room_id"] == DEEP
    # For somebody without an account no other server is asked.
    refused(await server.call("GET", _summary("!new:other.example")), 404, "M_NOT_FOUND")
    assert directories.asked[-1] == ("hierarchy", THIRD, DEEP)


async def test_a_summary_that_the_user_may_not_have(alice: User, bob: User, directories: Directories) -> None:
    """S20: absent and forbidden have one answer."""
    directories.tell(OTHER, summary(SECRET, join_rule="invite"))
    own = await bob.create(preset="private_chat")
    directories.tell(OTHER, summary(own))
    replies = [
        await alice.call("GET", _summary(room_id), via=OTHER) for room_id in (SECRET, "!gone:other.example", own)
    ]
    for reply in replies:
        refused(reply, 404, "M_NOT_FOUND")
    assert len({reply.body for reply in replies}) == 1
    assert ("hierarchy", OTHER, own) not in directories.asked, "this server knows better"


# History that is missing here


async def _with_gap(server: ReadingServer, alice: User) -> tuple[RoomId, str, list[EventId]]:
    """A room in which what preceded Bob's first message is missing; that message, and all events from it on."""
    room_id = await alice.create(preset="public_chat", room_version="11")
    await alice.send(room_id, "lost")
    await _join(server, room_id)
    first = await _remote(server, room_id, "m.room.message", {"msgtype": "m.text", "body": "first"})
    last = await alice.send(room_id, "last")
    await _execute(
        server,
        """UPDATE events SET state_id = NULL, topological = NULL, position = NULL
           WHERE room_nid = (SELECT room_nid FROM events WHERE event_id = $1)
               AND event_nid < (SELECT event_nid FROM events WHERE event_id = $1)""",
        first,
    )
    await _execute(
        server,
        """INSERT INTO missing_events (room_nid, event_id, topological)
           SELECT room_nid, '$before', topological FROM events WHERE event_id = $1""",
        first,
    )
    return room_id, first, [first, EventId(last)]


async def _point(server: ReadingServer, room_id: RoomId, event_id: str) -> HistoryToken:
    """The point behind an event and all that stands at the same place."""
    return replace(at(await _stored(server, room_id, event_id)), event_nid=END.event_nid)


async def test_a_page_that_comes_to_a_gap_asks_for_what_is_missing(
    server: ReadingServer, alice: User, past: Past
) -> None:
    room_id, first, _ = await _with_gap(server, alice)
    past.outcomes = [False]
    page = await alice.messages(room_id, limit=10)
    assert bodies(page["chunk"]) == ["last", "first"]
    assert past.reached == [(room_id, await _point(server, room_id, first), 10)]
    past.reached.clear()
    # What is local comes first, without asking.
    assert bodies((await alice.messages(room_id, limit=1))["chunk"]) == ["last"]
    assert past.reached == []
    # Nor does it matter to who reads in the other direction, or a part that has no gap.
    await alice.messages(room_id, dir="f", limit=10)
    assert past.reached == []


async def test_what_was_fetched_is_on_the_page(server: ReadingServer, alice: User, past: Past) -> None:
    room_id, first, _ = await _with_gap(server, alice)

    async def find_the_lost() -> None:
        await _execute(
            server,
            """UPDATE events SET topological = 0,
                   state_id = (SELECT state_id FROM events WHERE event_id = $1)
               WHERE topological IS NULL AND room_nid = (SELECT room_nid FROM events WHERE event_id = $1)""",
            first,
        )
        await _execute(server, "DELETE FROM missing_events")

    past.on_fetch, past.outcomes = find_the_lost, [True]
    page = await alice.messages(room_id, limit=10)
    assert bodies(page["chunk"])[:3] == ["last", "first", "lost"]
    assert len(past.reached) == 1


async def test_asking_for_history_has_a_bound(server: ReadingServer, alice: User, past: Past) -> None:
    """However much there is said to be more."""
    room_id, _, _ = await _with_gap(server, alice)
    past.outcomes = [True] * 10
    await alice.messages(room_id, limit=10)
    assert len(past.reached) == 2


async def test_nobody_is_asked_in_rooms_that_are_whole(server: ReadingServer, alice: User, past: Past) -> None:
    room_id = await alice.create(preset="public_chat")
    await alice.send(room_id)
    await _join(server, room_id)
    await alice.send(room_id)
    page = await alice.messages(room_id, limit=100)
    assert page["chunk"][-1]["type"] == "m.room.create"
    assert past.reached == []


# Jumping to a date


def _time(room_id: str) -> str:
    return f"/_matrix/client/v1/rooms/{quote(room_id)}/timestamp_to_event"


async def test_a_closer_event_elsewhere(server: ReadingServer, alice: User, times: Times, past: Past) -> None:
    """It is told only once it has been fetched, and then as it is here."""
    room_id, first, _ = await _with_gap(server, alice)
    ts = (await _stored(server, room_id, first)).origin_server_ts
    times.answers = {OTHER: ("$closer", ts - 500)}
    # It cannot be fetched: what is here is told.
    assert (await alice.get(_time(room_id), ts=ts - 1000, dir="f"))["event_id"] == first
    assert past.fetched == [(OTHER, "$closer")]
    lost = next(event for event in await all_events(server.db, room_id) if "lost" in event.client_json)

    async def fetch() -> None:
        await _execute(
            server,
            """UPDATE events SET topological = 0, origin_server_ts = $3,
                   state_id = (SELECT state_id FROM events WHERE event_id = $1)
               WHERE event_id = $2""",
            first,
            lost.event_id,
            ts - 400,
        )

    past.on_fetch, past.outcomes = fetch, [True]
    found = await alice.get(_time(room_id), ts=ts - 1000, dir="f")
    assert found == {"event_id": lost.event_id, "origin_server_ts": ts - 400}


async def test_backwards_from_before_everything_that_is_here(
    server: ReadingServer, alice: User, times: Times, past: Past
) -> None:
    room_id, first, _ = await _with_gap(server, alice)
    ts = (await _stored(server, room_id, first)).origin_server_ts
    refused(await alice.call("GET", _time(room_id), ts=ts - 1000, dir="b"), 404, "M_NOT_FOUND")
    assert times.asked == [OTHER]
    assert past.fetched == []
    times.answers = {OTHER: ("$older", ts - 2000)}
    refused(await alice.call("GET", _time(room_id), ts=ts - 1000, dir="b"), 404, "M_NOT_FOUND")
    assert past.fetched == [(OTHER, "$older")]


async def test_no_server_is_asked_where_nothing_is_missing(server: ReadingServer, alice: User, times: Times) -> None:
    room_id, _, (_, last) = await _with_gap(server, alice)
    ts = (await _stored(server, room_id, last)).origin_server_ts
    assert (await alice.get(_time(room_id), ts=ts, dir="f"))["event_id"] == last
    assert (await alice.get(_time(room_id), ts=ts, dir="b"))["event_id"] == last
    refused(await alice.call("GET", _time(room_id), ts=ts + 1, dir="f"), 404, "M_NOT_FOUND")
    assert times.asked == []
    bob = await server.user("bob")
    refused(await bob.call("GET", _time(room_id), ts=ts, dir="f"), 403, "M_FORBIDDEN")


async def test_an_event_that_is_no_closer_is_not_fetched(
    server: ReadingServer, alice: User, times: Times, past: Past
) -> None:
    room_id, first, _ = await _with_gap(server, alice)
    ts = (await _stored(server, room_id, first)).origin_server_ts
    times.answers = {OTHER: ("$later", ts + 500)}
    assert (await alice.get(_time(room_id), ts=ts - 1000, dir="f"))["event_id"] == first
    assert times.asked == [OTHER]
    assert past.fetched == []


async def _stored(server: ReadingServer, room_id: RoomId, event_id: str) -> Any:
    return next(event for event in await all_events(server.db, room_id) if event.event_id == event_id)
