"""What is noted of events by the push rules of the members, and what finding it out costs."""

import asyncio
from dataclasses import replace

import pytest

from homeserver.core.ids import UserId
from homeserver.core.pdu import Pdu
from homeserver.core.push_rules.rule import PushRuleKind
from homeserver.core.room_versions import DEFAULT_ROOM_VERSION, ROOM_VERSIONS
from homeserver.services.push.counts import NotificationCounts
from homeserver.services.push.rule_sets import RuleChanges
from homeserver.services.rooms.drafts import Draft, PushedRoom
from homeserver.services.rooms.push_evaluation import ACTIONS_BYTES_MAX
from homeserver.services.stream.hub import Hub
from storage.push_actions import list_push_actions
from storage.rooms import get_room
from tests.fast_clock import FastClock
from tests.push.workers import CAROL, PushWorker, mentioning
from tests.rooms.workers import ALICE, BOB, member, message
from tests.waiting import wait_until

HIGHLIGHT = {"set_tweak": "highlight"}
STRANGER = UserId("@stranger:elsewhere.org")


async def test_ordinary_messages_note_nothing_and_cost_no_statement(worker: PushWorker) -> None:
    await worker.register(ALICE, BOB)
    room_id = await worker.create_room()
    await worker.add(room_id, member(BOB, "join"))
    await worker.add(room_id, message("first"))
    for sender, transaction_id in ((ALICE, "1"), (BOB, "2"), (ALICE, "3")):
        assert await worker.statements_of(room_id, message("hello", sender=sender, transaction_id=transaction_id)) == 0
    added = await worker.add(room_id, message("last"))
    assert await worker.exceptions_of(added) == {}
    assert await worker.unread(room_id, BOB) == NotificationCounts(2, 0)


async def test_known_rules_cost_no_statement_and_named_users_one(worker: PushWorker) -> None:
    await worker.register(ALICE, BOB, CAROL)
    room_id = await worker.create_room()
    await worker.add(room_id, member(BOB, "join"), member(CAROL, "join"))
    await worker.put_rule(BOB, PushRuleKind.CONTENT, "tea", "notify", HIGHLIGHT, pattern="tea")
    await worker.put_rule(BOB, PushRuleKind.OVERRIDE, "name", "notify", conditions=[{"kind": "contains_display_name"}])
    await worker.add(room_id, message("first"))
    assert await worker.statements_of(room_id, message("tea")) == 0
    await worker.statements_of(room_id, mentioning(CAROL, STRANGER, sender=ALICE))
    assert await worker.statements_of(room_id, mentioning(CAROL, STRANGER, sender=ALICE)) == 1
    assert await worker.statements_of(room_id, mentioning(BOB, STRANGER, sender=ALICE)) == 0, "BOB is known anyway"
    assert await worker.unread(room_id, BOB) == NotificationCounts(5, 2)
    assert await worker.unread(room_id, CAROL) == NotificationCounts(5, 2)


async def test_those_who_are_not_in_the_room_are_not_notified(worker: PushWorker) -> None:
    await worker.register(ALICE, BOB, CAROL)
    room_id = await worker.create_room()
    await worker.put_rule(CAROL, PushRuleKind.CONTENT, "hello", "notify", HIGHLIGHT, pattern="hello")
    await worker.add(room_id, member(BOB, "join"), member(CAROL, "join"))
    await worker.add(room_id, member(CAROL, "leave"))
    added = await worker.add(room_id, mentioning(CAROL, STRANGER, sender=ALICE))
    assert await worker.exceptions_of(added) == {}


async def test_members_who_come_with_the_same_call_are_heard(worker: PushWorker) -> None:
    await worker.register(ALICE, BOB, CAROL)
    room_id = await worker.create_room()
    await worker.put_rule(CAROL, PushRuleKind.CONTENT, "hello", "notify", HIGHLIGHT, pattern="hello")
    joins = (member(BOB, "join"), member(CAROL, "join"))
    added = await worker.add(room_id, *joins, message("hello"), mentioning(BOB, CAROL, sender=ALICE))
    assert set(await worker.exceptions_of(replace(added, event_nids=added.event_nids[2:3]))) == {CAROL}
    assert set(await worker.exceptions_of(replace(added, event_nids=added.event_nids[3:]))) == {BOB, CAROL}
    assert await worker.unread(room_id, CAROL) == NotificationCounts(2, 2)


async def test_a_new_room_tells_the_invited(worker: PushWorker) -> None:
    await worker.register(ALICE, BOB, CAROL)
    await worker.put_rule(CAROL, PushRuleKind.OVERRIDE, "quiet", conditions=[])
    await worker.create_room(*(member(user_id, "invite", sender=ALICE) for user_id in (BOB, CAROL, STRANGER)))
    async with worker.db.connection() as conn:
        rows = await conn.fetch("SELECT user_id, notify, notify_delta FROM event_push_exceptions")
    assert [tuple(row) for row in rows] == [(BOB, True, 1)]


async def test_changes_of_rules_are_seen_by_other_processes(worker: PushWorker, other_worker: PushWorker) -> None:
    await worker.register(ALICE, BOB)
    room_id = await worker.create_room()
    await worker.add(room_id, member(BOB, "join"))
    await other_worker.add(room_id, message("first"))
    clock = FastClock()
    hub = Hub(db=other_worker.db, bus=worker.bus, clock=clock, streams=())
    changes = RuleChanges(db=other_worker.db, hub=hub, clock=clock, rule_sets=other_worker.rule_sets)

    async def is_muted(expected: bool) -> bool:
        return (BOB in await other_worker.exceptions_of(await other_worker.add(room_id, message("hello")))) is expected

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(run()) for run in (hub.run, changes.run)]
        for _ in range(2):
            await worker.put_rule(BOB, PushRuleKind.ROOM, room_id)
            await wait_until(lambda: is_muted(True))
            await worker.rules.delete_rule(BOB, PushRuleKind.ROOM, room_id)
            await wait_until(lambda: is_muted(False))
        for task in running:
            task.cancel()


async def test_a_lost_wake_is_made_up_for(worker: PushWorker, other_worker: PushWorker) -> None:
    await worker.register(BOB)
    assert (await other_worker.rule_sets.load([BOB]))[BOB].is_default
    clock = FastClock()
    hub = Hub(db=other_worker.db, bus=other_worker.bus, clock=clock, streams=())
    changes = RuleChanges(db=other_worker.db, hub=hub, clock=clock, rule_sets=other_worker.rule_sets)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(run()) for run in (hub.run, changes.run)]
        await worker.put_rule(BOB, PushRuleKind.ROOM, "!room:example.org")

        async def is_seen() -> bool:
            return not (await other_worker.rule_sets.load([BOB]))[BOB].is_default

        await wait_until(is_seen)
        for task in running:
            task.cancel()


async def test_long_actions_are_kept_in_short(worker: PushWorker) -> None:
    await worker.register(ALICE, BOB)
    room_id = await worker.create_room()
    await worker.add(room_id, member(BOB, "join"))
    long = {"set_tweak": "sound", "value": "x" * ACTIONS_BYTES_MAX}
    await worker.put_rule(BOB, PushRuleKind.CONTENT, "hello", "notify", long, HIGHLIGHT, pattern="hello")
    added = await worker.add(room_id, message("hello"))
    assert await worker.exceptions_of(added) == {BOB: ('["notify",{"set_tweak":"highlight"}]', True, True)}


async def test_users_add_nothing_to_the_lists_of_actions(worker: PushWorker, other_worker: PushWorker) -> None:
    await worker.register(ALICE, BOB)
    rooms = [await worker.create_room() for _ in range(4)]
    for number, room_id in enumerate(rooms):
        await worker.add(room_id, member(BOB, "join"))
        sound = {"set_tweak": "sound", "value": f"bell{number}"}
        await worker.put_rule(BOB, PushRuleKind.ROOM, room_id, "notify", sound)
    drafts = [
        message("hello"),
        mentioning(room=True, sender=ALICE),
        Draft(type="m.call.invite", sender=ALICE, content={}),
        Draft(type="m.room.tombstone", sender=ALICE, state_key="", content={}),
    ]
    async with asyncio.TaskGroup() as tasks:
        for room_id, each in zip(rooms, (worker, other_worker, worker, other_worker), strict=True):
            tasks.create_task(each.add(room_id, *drafts))
    async with worker.db.connection() as conn:
        actions = await list_push_actions(conn)
    highlighted = {text for text, actions_id in actions.items() if actions_id < 0}
    assert highlighted == {'["notify",{"set_tweak":"highlight"}]'}
    assert len(actions) == 3
    assert len(set(actions.values())) == 3


@pytest.mark.parametrize("content", [{"notifications": []}, {"users": {ALICE: "much"}}, {"users": 5}, {"ban": None}])
async def test_odd_power_levels_notify_no_room(worker: PushWorker, content: dict[str, object]) -> None:
    room_version = ROOM_VERSIONS["11"]
    room_id = await worker.create_room(room_version=room_version)
    await worker.add(room_id, member(BOB, "join"))
    async with worker.db.connection() as conn:
        room = await get_room(conn, room_id)
    added = await worker.add(room_id, mentioning(room=True, sender=ALICE))
    create, levels = (
        _state(added.events[0], "m.room.create", {}),
        _state(added.events[0], "m.room.power_levels", content),
    )
    state = {each.state_slot: each for each in (create, levels) if each.state_slot is not None}
    pushed = PushedRoom(room.room_nid, room_id, room_version, room.state_version, state)
    (odd,) = await worker.measured.evaluate(pushed, added.events)
    (nothing,) = await worker.measured.evaluate(replace(pushed, state={}), added.events)
    async with worker.db.connection() as conn:
        plain = (await list_push_actions(conn))['["notify",{"set_tweak":"sound","value":"default"}]']
    assert odd.actions_id == nothing.actions_id == plain


def _state(like: Pdu, event_type: str, content: dict[str, object]) -> Pdu:
    return replace(like, type=event_type, state_key="", content=content)


async def test_a_room_that_does_not_exist_has_no_members(worker: PushWorker) -> None:
    room_id = await worker.create_room()
    added = await worker.add(room_id, mentioning(BOB, sender=ALICE))
    pushed = PushedRoom(999_999, room_id, DEFAULT_ROOM_VERSION, 1, {})
    (outcome,) = await worker.measured.evaluate(pushed, added.events)
    assert outcome.exceptions == []


async def test_rule_sets_that_change_while_they_are_read_are_not_kept(worker: PushWorker) -> None:
    await worker.register(BOB)
    version = worker.rule_sets.users_version
    async with asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(worker.rule_sets.load([BOB]))
            tasks.create_task(worker.put_rule(BOB, PushRuleKind.ROOM, f"!room{number}:example.org"))
    rules = (await worker.rule_sets.load([BOB]))[BOB]
    assert len(rules.user_rules[PushRuleKind.ROOM]) == 20
    assert worker.rule_sets.users_version > version
