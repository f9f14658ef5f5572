"""send_join: which joins become a part of the room, what is answered, and what is refused."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from homeserver.core.ids import EventId
from homeserver.core.room_versions import ROOM_VERSIONS
from tests.api.server import Client, refused
from tests.federation.memberships.world import HERE, V1, V2, Elsewhere, World, id_of, path_of

VERSIONS = ("1", "2", "3", "6", "9", "10", "11", "12")


def by_id(events: list[Mapping[str, Any]], version: str) -> dict[EventId, Mapping[str, Any]]:
    """Events by their ids; none may stand twice."""
    found = {id_of(event, version): event for event in events}
    assert len(found) == len(events)
    return found


def auth_chain(ids: set[EventId], events: Mapping[EventId, Mapping[str, Any]]) -> set[EventId]:
    """The auth chain of some events, as the specification defines it."""
    found: set[EventId] = set()
    waiting = list(ids)
    while waiting:
        for reference in events[waiting.pop()]["auth_events"]:
            event_id = EventId(reference if isinstance(reference, str) else reference[0])
            if event_id not in found:
                found.add(event_id)
                waiting.append(event_id)
    return found


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_join(world: World, alice: Client, other: Elsewhere, version: str) -> None:
    room_id = await world.create_room(alice, version, topic="News")
    bob = await world.site.register("bob")
    await bob.post(f"/join/{room_id}")
    before = {each["event_id"] for each in await alice.get(f"/rooms/{room_id}/state")}
    since = (await alice.get("/sync"))["next_batch"]
    event, _ = await other.made("join", room_id, other.user())
    reply = await other.hand_in("join", event, version)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json"), reply.body
    answer = reply.json
    assert answer["members_omitted"] is False
    assert "servers_in_room" not in answer
    assert id_of(answer["event"], version) == id_of(event, version)
    state = by_id(answer["state"], version)
    assert set(state) == before
    chain = by_id(answer["auth_chain"], version)
    known = {**state, **chain, id_of(event, version): event}
    assert set(chain) == auth_chain({*state, id_of(event, version)}, known)
    assert all(world.is_signed_here(each, version) for each in known.values() if each is not event)
    assert all("unsigned" not in each for each in known.values())
    timeline = (await alice.get("/sync", since=since))["rooms"]["join"][room_id]["timeline"]["events"]
    assert [each["event_id"] for each in timeline] == [id_of(event, version)]
    assert await world.membership(alice, room_id, other.user()) == "join"


async def test_the_older_form(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice)
    status, answer = await other.enter("join", room_id, other.user(), api=V1)
    assert status == 200
    assert {each["type"] for each in answer["state"]} >= {"m.room.create", "m.room.member"}


async def test_a_join_is_passed_on(world: World, alice: Client, other: Elsewhere) -> None:
    """The other servers in the room hear of the join from this one."""
    room_id = await world.create_room(alice)
    third = world.server("third.example")
    await third.enter("join", room_id, third.user())
    event, version = await other.made("join", room_id, other.user())
    assert (await other.hand_in("join", event, version)).status == 200
    assert id_of(event, version) in await world.relayed()


@pytest.mark.parametrize("version", ["1", "11"])
async def test_a_join_that_is_handed_in_again(world: World, alice: Client, other: Elsewhere, version: str) -> None:
    room_id = await world.create_room(alice, version)
    event, _ = await other.made("join", room_id, other.user())
    first = await other.hand_in("join", event, version)
    await world.set_state(alice, room_id, "m.room.topic", {"topic": "Later"})
    again = await other.hand_in("join", event, version)
    assert (first.status, again.status) == (200, 200)
    assert first.json == again.json


async def test_another_event_of_the_same_id(world: World, alice: Client, other: Elsewhere) -> None:
    """In the old versions, servers choose the ids of events."""
    room_id = await world.create_room(alice, "1")
    event, version = await other.made("join", room_id, other.user())
    assert (await other.hand_in("join", event, version)).status == 200
    changed = other.sign({**event, "content": {"membership": "join", "displayname": "Uma"}}, version)
    assert changed["event_id"] == event["event_id"]
    refused(await other.hand_in("join", changed, version), 400, "M_INVALID_PARAM")


async def test_a_join_is_no_longer_taken_when_the_room_has_closed(
    world: World, alice: Client, other: Elsewhere
) -> None:
    """S10: the event fits its own past, but not the room as it is now."""
    room_id = await world.create_room(alice)
    event, version = await other.made("join", room_id, other.user())
    await world.set_state(alice, room_id, "m.room.join_rules", {"join_rule": "invite"})
    refused(await other.hand_in("join", event, version), 403, "M_FORBIDDEN")
    assert await world.membership(alice, room_id, other.user()) is None


async def test_banned_users(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice)
    event, version = await other.made("join", room_id, other.user())
    await alice.post(f"/rooms/{room_id}/ban", {"user_id": other.user()})
    refused(await other.hand_in("join", event, version), 403, "M_FORBIDDEN")
    assert await world.membership(alice, room_id, other.user()) == "ban"


async def test_invited_users(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice, preset="private_chat")
    refused(await other.make("join", room_id, other.user()), 403, "M_FORBIDDEN")
    await alice.post(f"/rooms/{room_id}/invite", {"user_id": other.user()})
    answer = await other.enter("join", room_id, other.user())
    members = {
        each["state_key"]: each["content"]["membership"] for each in answer["state"] if each["type"] == "m.room.member"
    }
    assert members[other.user()] == "invite"
    assert await world.membership(alice, room_id, other.user()) == "join"


async def test_an_event_that_cites_auth_events_of_another_room(world: World, alice: Client, other: Elsewhere) -> None:
    """S10: the join is allowed by another room's rules only."""
    closed = await world.create_room(alice, preset="private_chat")
    template = (await other.make("join", await world.create_room(alice), other.user())).json["event"]
    foreign = other.sign({**template, "room_id": closed}, "11")
    refused(await other.hand_in("join", foreign, "11"), 400, "M_BAD_JSON")
    last = await world.set_state(alice, closed, "m.room.topic", {"topic": "the end of the room"})
    event = other.sign({**template, "room_id": closed, "prev_events": [last]}, "11")
    refused(await other.hand_in("join", event, "11"), 403, "M_FORBIDDEN")
    assert await world.membership(alice, closed, other.user()) is None


class TestWhatIsNotTheJoinOfThePath:
    """S1, S8: path, body, signature and key must all say the same."""

    @pytest.fixture
    async def room_id(self, world: World, alice: Client) -> str:
        """An open room."""
        return await world.create_room(alice)

    @pytest.fixture
    async def event(self, other: Elsewhere, room_id: str) -> dict[str, Any]:
        """A join to it that would be taken."""
        event, _ = await other.made("join", room_id, other.user())
        return event

    async def test_other_events(self, world: World, alice: Client, other: Elsewhere, event: dict[str, Any]) -> None:
        others: list[dict[str, Any]] = [
            {"type": "m.room.topic"},
            {"type": "m.room.create", "state_key": ""},
            {"content": {"membership": "leave"}},
            {"content": {"membership": "invite"}},
            {"content": {"membership": "ban"}},
            {"content": {"membership": ["join"]}},
            {"content": {}},
            {"state_key": "@alice:test"},
            {"state_key": "@other:elsewhere.example"},
            {"state_key": ""},
            {"sender": "@alice:test"},
            {"sender": "@alice:test", "state_key": "@alice:test"},
        ]
        for changes in others:
            reply = await other.hand_in("join", other.sign({**event, **changes}, "11"), "11")
            refused(reply, 400, "M_INVALID_PARAM")
        assert await world.membership(alice, event["room_id"], other.user()) is None

    async def test_no_state_key(self, other: Elsewhere, event: dict[str, Any]) -> None:
        del event["state_key"]
        refused(await other.hand_in("join", other.sign(event, "11"), "11"), 400, "M_INVALID_PARAM")

    async def test_another_path(self, world: World, alice: Client, other: Elsewhere, event: dict[str, Any]) -> None:
        refused(await other.hand_in("join", event, "11", event_id="$" + 43 * "a"), 400, "M_INVALID_PARAM")
        elsewhere = await world.create_room(alice)
        refused(await other.hand_in("join", event, "11", room_id=elsewhere), 400, "M_BAD_JSON")
        refused(await other.hand_in("join", event, "11", room_id="!unknown:test"), 404, "M_NOT_FOUND")
        refused(await other.hand_in("join", event, "11", room_id="room"), 400, "M_INVALID_PARAM")
        refused(await other.hand_in("join", event, "11", event_id="event"), 400, "M_INVALID_PARAM")
        assert await world.membership(alice, event["room_id"], other.user()) is None

    async def test_another_servers_event(
        self, world: World, alice: Client, other: Elsewhere, event: dict[str, Any]
    ) -> None:
        thief = world.server("thief.example")
        refused(await thief.hand_in("join", event, "11"), 400, "M_INVALID_PARAM")
        # As the older form has it.
        refused(await thief.hand_in("join", event, "11", api=V1), 403, "M_FORBIDDEN")
        signed_by_both = thief.sign(event, "11")
        signed_by_both["signatures"] |= event["signatures"]
        refused(await thief.hand_in("join", signed_by_both, "11"), 400, "M_INVALID_PARAM")
        assert await world.membership(alice, event["room_id"], other.user()) is None

    @pytest.mark.parametrize("api", [V1, V2])
    async def test_signatures(self, other: Elsewhere, event: dict[str, Any], api: str) -> None:
        refusal = (403, "M_FORBIDDEN") if api == V1 else (400, "M_INVALID_PARAM")
        name, key_id = str(other.name), other.key.key_id
        wrong: list[dict[str, dict[str, str]]] = [
            {},
            {name: {}},
            {name: {key_id: "a" * 86}},
            {name: {key_id: ""}},
            {name: {"ed25519:unknown": event["signatures"][name][key_id]}},
            {"third.example": event["signatures"][name]},
        ]
        for signatures in wrong:
            refused(await other.hand_in("join", {**event, "signatures": signatures}, "11", api=api), *refusal)
        bare = {member: value for member, value in event.items() if member not in ("signatures", "hashes")}
        refused(await other.hand_in("join", bare, "11", api=api), *refusal)
        assert (await other.hand_in("join", event, "11", api=api)).status == 200

    async def test_a_key_that_cannot_be_had(self, world: World, alice: Client, event: dict[str, Any]) -> None:
        stranger = world.server("stranger.example", is_known=False)
        event, version = await stranger.made("join", event["room_id"], stranger.user())
        refused(await stranger.hand_in("join", event, version), 400, "M_INVALID_PARAM")

    async def test_a_changed_content(self, other: Elsewhere, event: dict[str, Any]) -> None:
        changed = {**event, "content": {"membership": "join", "displayname": "Somebody else"}}
        refused(await other.hand_in("join", changed, "11"), 400, "M_INVALID_PARAM")


async def test_hostile_bodies(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice)
    event, _ = await other.made("join", room_id, other.user())
    path = f"{V2}/send_join/{path_of(room_id, id_of(event, '11'))}"
    nowhere = "$" + 43 * "a"
    hostile: list[dict[str, Any]] = [
        {"content": {"membership": "join", "float": 1.5}},
        {"content": {"membership": "join", "large": 2**60}},
        {"content": []},
        {"depth": -1},
        {"depth": "1"},
        {"origin_server_ts": None},
        {"prev_events": nowhere},
        {"prev_events": [nowhere] * 21},
        {"auth_events": [nowhere] * 11},
        {"auth_events": [[nowhere, {}]]},
        {"hashes": {}},
        {"hashes": []},
        {"unsigned": []},
        {"signatures": {"elsewhere.example": []}},
        {"signatures": []},
        {"sender": "nobody"},
        {"state_key": 1},
        {"type": 1},
        {"room_id": 1},
        {"room_id": None},
    ]
    for changes in hostile:
        reply = await other.ask("PUT", path, {**event, **changes})
        assert reply.status == 400, (changes, reply.body)
    assert await world.membership(alice, room_id, other.user()) is None


async def test_requests_side_by_side(world: World, alice: Client, other: Elsewhere) -> None:
    """The same join twice at a time, and others beside it."""
    room_id = await world.create_room(alice)
    event, version = await other.made("join", room_id, other.user())
    more = [(await other.made("join", room_id, other.user(f"uma{number}")))[0] for number in range(3)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(other.hand_in("join", each, version)) for each in (event, event, *more)]
    assert [task.result().status for task in tasks] == [200] * 5
    assert tasks[0].result().json == tasks[1].result().json
    members = await alice.get(f"/rooms/{room_id}/joined_members")
    assert len(members["joined"]) == 5


async def test_bodies_that_are_no_events(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice)
    path = f"{V2}/send_join/{path_of(room_id, '$' + 43 * 'a')}"
    bodies: list[Any] = [[], "event", 1, {}, {"event": {}}]
    for body in bodies:
        assert (await other.ask("PUT", path, body)).status == 400
    large = {"content": {"membership": "join", "filler": "x" * 300_000}}
    refused(await other.ask("PUT", path, large), 413, "M_TOO_LARGE")


async def test_events_that_follow_what_nobody_knows(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice)
    template = (await other.make("join", room_id, other.user())).json["event"]
    event = other.sign({**template, "prev_events": ["$" + 43 * "a"]}, "11")
    reply = await other.hand_in("join", event, "11")
    assert reply.status in (403, 502, 503), reply.body
    assert await world.membership(alice, room_id, other.user()) is None


async def test_what_is_left_out_on_request(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice, name="A room")
    for name in ("bob", "carol", "dave"):
        await (await world.site.register(name)).post(f"/join/{room_id}")
    third = world.server("third.example")
    await third.enter("join", room_id, third.user())
    answer = await other.enter("join", room_id, other.user(), omit_members="true")
    assert answer["members_omitted"] is True
    assert answer["servers_in_room"] == sorted([HERE, third.name])
    state = by_id(answer["state"], "11")
    assert "m.room.member" not in {each["type"] for each in state.values()}
    chain = by_id(answer["auth_chain"], "11")
    assert not state.keys() & chain.keys()
    known = {**state, **chain, id_of(answer["event"], "11"): answer["event"]}
    assert set(chain) == auth_chain({*state, id_of(answer["event"], "11")}, known) - set(state)


async def test_a_room_without_a_name_is_told_by_its_heroes(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice)
    members = [alice.user_id]
    for number in range(6):
        user = await world.site.register(f"user{number}")
        await user.post(f"/join/{room_id}")
        members.append(user.user_id)
    answer = await other.enter("join", room_id, other.user(), omit_members="true")
    shown = [each["state_key"] for each in answer["state"] if each["type"] == "m.room.member"]
    assert shown == members[:5]
    assert answer["members_omitted"] is True


async def test_wrong_parameters(world: World, alice: Client, other: Elsewhere) -> None:
    room_id = await world.create_room(alice)
    event, version = await other.made("join", room_id, other.user())
    refused(await other.hand_in("join", event, version, omit_members="perhaps"), 400, "M_INVALID_PARAM")
    assert ROOM_VERSIONS[version].identifier == version
