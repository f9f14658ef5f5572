"""How much is unread, as syncs tell it.

https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from typing import Any

import pytest

from tests.api.push.api import User, encoded, in_thread, register


async def test_messages_of_others_count_and_ones_own_do_not(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create_room(bob, carol)
    for _ in range(3):
        await alice.send(room_id)
    assert await bob.unread(room_id) == (3, 0)
    assert await carol.unread(room_id) == (3, 0)
    assert await alice.unread(room_id) == (0, 0)


async def test_what_was_sent_before_joining_does_not_count(alice: User, bob: User) -> None:
    room_id = await alice.create_room()
    await alice.send(room_id)
    await bob.join(room_id)
    assert await bob.unread(room_id) == (0, 0)
    await alice.send(room_id)
    assert await bob.unread(room_id) == (1, 0)


async def test_a_new_name_reads_nothing_and_coming_back_forgets_all(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    await alice.send(room_id)
    member = {"membership": "join", "displayname": "Bobby"}
    await bob.send_state(room_id, "m.room.member", member, bob.user_id)
    assert await bob.unread(room_id) == (1, 0)
    await bob.ok("POST", f"/rooms/{encoded(room_id)}/leave", {})
    await alice.send(room_id)
    await bob.join(room_id)
    assert await bob.unread(room_id) == (0, 0)


@pytest.mark.parametrize("receipt_type", ["m.read", "m.read.private"])
async def test_receipts_mark_as_read(alice: User, bob: User, receipt_type: str) -> None:
    room_id = await alice.create_room(bob)
    events = [await alice.send(room_id) for _ in range(4)]
    await bob.read(room_id, events[1], receipt_type=receipt_type)
    assert await bob.unread(room_id) == (2, 0)
    await bob.read(room_id, events[3], receipt_type=receipt_type)
    assert await bob.unread(room_id) == (0, 0)


async def test_of_two_receipts_the_one_ahead_counts(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    events = [await alice.send(room_id) for _ in range(4)]
    await bob.read(room_id, events[2])
    await bob.read(room_id, events[0], receipt_type="m.read.private")
    assert await bob.unread(room_id) == (1, 0)
    await bob.read(room_id, events[3], receipt_type="m.read.private")
    assert await bob.unread(room_id) == (0, 0)


async def test_whoever_sends_a_message_has_read_what_came_before(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    await alice.send(room_id)
    own = await bob.send(room_id)
    assert await bob.unread(room_id) == (0, 0)
    await alice.send(room_id)
    assert await bob.unread(room_id) == (1, 0)
    await bob.redact(room_id, own)
    assert await bob.unread(room_id) == (2, 0), "a message that is gone shows nothing any more"


async def test_the_count_comes_with_the_event(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    since = (await bob.ok("GET", "/sync"))["next_batch"]
    event_id = await alice.send(room_id)
    room = (await bob.ok("GET", "/sync", since=since, timeout=5000))["rooms"]["join"][room_id]
    assert [event["event_id"] for event in room["timeline"]["events"]] == [event_id]
    assert room["unread_notifications"] == {"notification_count": 1, "highlight_count": 0}


async def test_a_receipt_changes_the_count_of_an_incremental_sync(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    event_id = await alice.send(room_id)
    for receipt_type in ("m.read.private", "m.read"):
        since = (await bob.ok("GET", "/sync"))["next_batch"]
        await bob.read(room_id, event_id, receipt_type=receipt_type)
        room = (await bob.ok("GET", "/sync", since=since, timeout=5000))["rooms"]["join"][room_id]
        assert room["unread_notifications"] == {"notification_count": 0, "highlight_count": 0}


async def test_user_mentions_are_highlighted(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create_room(bob, carol)
    await alice.send(room_id, **{"m.mentions": {"user_ids": [bob.user_id, alice.user_id, "@nobody:test", 7]}})
    assert await bob.unread(room_id) == (1, 1)
    assert await carol.unread(room_id) == (1, 0)
    assert await alice.unread(room_id) == (0, 0)


async def test_room_mentions_need_power(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create_room(bob, carol)
    await bob.send(room_id, **{"m.mentions": {"room": True}})
    assert await carol.unread(room_id) == (1, 0)
    await alice.send(room_id, **{"m.mentions": {"room": True}})
    assert await carol.unread(room_id) == (2, 1)
    assert await bob.unread(room_id) == (1, 1)


DEFAULTS: list[tuple[str, dict[str, Any], int]] = [
    ("m.room.encrypted", {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"}, 1),
    ("m.room.message", {"msgtype": "m.notice"}, 0),
    ("m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": "$x", "key": "+"}}, 0),
    ("m.room.message", {"m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}}, 0),
    ("m.call.invite", {"call_id": "1", "version": "1"}, 1),
    ("org.example.other", {}, 0),
]


async def test_what_notifies_by_default(alice: User, bob: User, carol: User) -> None:
    for members in ((bob,), (bob, carol)):
        room_id = await alice.create_room(*members)
        target = await bob.send(room_id)
        for event_type, content, expected in DEFAULTS:
            relation = {**content["m.relates_to"], "event_id": target} if "m.relates_to" in content else None
            sent = content if relation is None else {**content, "m.relates_to": relation}
            event_id = await alice.send(room_id, event_type, **sent)
            assert await bob.unread(room_id) == (expected, 0), (event_type, content)
            await bob.read(room_id, event_id)


async def test_mentions_in_other_events_count_too(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    await alice.send(room_id, "org.example.other", **{"m.mentions": {"user_ids": [bob.user_id]}})
    await alice.send(room_id, "m.room.message", msgtype="m.notice", **{"m.mentions": {"user_ids": [bob.user_id]}})
    assert await bob.unread(room_id) == (1, 1)


async def test_a_tombstone_is_highlighted_but_for_who_sent_it(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    await alice.send_state(room_id, "m.room.tombstone", {"body": "moved", "replacement_room": "!new:test"})
    assert await bob.unread(room_id) == (1, 1)
    assert await alice.unread(room_id) == (0, 0)


async def test_state_does_not_read_what_came_before(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    await bob.send(room_id)
    await alice.send_state(room_id, "m.room.topic", {"topic": "tea"})
    assert await alice.unread(room_id) == (1, 0)
    assert await bob.unread(room_id) == (0, 0)


async def test_redacted_events_do_not_count(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    plain, mention = await alice.send(room_id), await alice.send(room_id, **{"m.mentions": {"user_ids": [bob.user_id]}})
    other = await alice.send(room_id, "org.example", **{"m.mentions": {"user_ids": [bob.user_id]}})
    everybody = await alice.send(room_id, **{"m.mentions": {"room": True}})
    threaded = await alice.send(room_id, **in_thread(plain))
    threaded_mention = await alice.send(room_id, **in_thread(plain), **{"m.mentions": {"user_ids": [bob.user_id]}})
    assert await bob.unread(room_id) == (6, 4)
    expected = [((5, 4), plain), ((4, 3), mention), ((3, 2), other), ((2, 1), everybody), ((1, 1), threaded)]
    for counts, event_id in [*expected, ((0, 0), threaded_mention)]:
        await alice.redact(room_id, event_id)
        assert await bob.unread(room_id) == counts
    await alice.send(room_id)
    assert await bob.unread(room_id) == (1, 0)


async def test_invites_do_not_count_once_they_are_accepted(alice: User, bob: User) -> None:
    room_id = await alice.create_room(invite=[bob.user_id])
    await bob.join(room_id)
    assert await bob.unread(room_id) == (0, 0)


async def test_threads_are_counted_each_and_together(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    first, second = await alice.send(room_id), await alice.send(room_id)
    for root in (first, first, second):
        await alice.send(room_id, **in_thread(root))
    await alice.send(room_id, **in_thread(second), **{"m.mentions": {"user_ids": [bob.user_id]}})
    assert await bob.unread_by_thread(room_id) == {"main": (2, 0), first: (2, 0), second: (2, 1)}
    assert await bob.unread(room_id) == (6, 1)


async def test_threaded_and_unthreaded_receipts(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    mention = {"m.mentions": {"user_ids": [bob.user_id]}}
    a = await alice.send(room_id)
    b = await alice.send(room_id, **in_thread(a))
    await alice.send(room_id, **in_thread(a), **mention)
    d = await alice.send(room_id, **mention)
    e = await alice.send(room_id, **in_thread(a))
    f = await alice.send(room_id, **{"m.relates_to": {"rel_type": "m.reference", "event_id": a}})
    assert await bob.unread_by_thread(room_id) == {"main": (3, 1), a: (3, 1)}
    await bob.read(room_id, a, thread_id="main")
    assert await bob.unread_by_thread(room_id) == {"main": (2, 1), a: (3, 1)}
    await bob.read(room_id, b, thread_id=a)
    assert await bob.unread_by_thread(room_id) == {"main": (2, 1), a: (2, 1)}
    assert await bob.unread(room_id) == (4, 2)
    await bob.read(room_id, d)
    assert await bob.unread_by_thread(room_id) == {"main": (1, 0), a: (1, 0)}
    await bob.read(room_id, e, thread_id=a)
    assert await bob.unread_by_thread(room_id) == {"main": (1, 0)}
    await bob.read(room_id, f, receipt_type="m.read.private", thread_id="main")
    assert await bob.unread_by_thread(room_id) == {"main": (0, 0)}


async def test_whoever_writes_in_a_thread_has_read_that_thread_only(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    first, second = await alice.send(room_id), await alice.send(room_id)
    await alice.send(room_id, **in_thread(first))
    await alice.send(room_id, **in_thread(second))
    await bob.send(room_id, **in_thread(first))
    assert await bob.unread_by_thread(room_id) == {"main": (2, 0), second: (1, 0)}
    await bob.send(room_id)
    assert await bob.unread_by_thread(room_id) == {"main": (0, 0), second: (1, 0)}
    await alice.send(room_id, **in_thread(first))
    assert await bob.unread_by_thread(room_id) == {"main": (0, 0), first: (1, 0), second: (1, 0)}


async def test_ignored_users_count_for_nothing(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create_room(bob, carol)
    await bob.ignore(alice)
    root = await carol.send(room_id)
    await alice.send(room_id)
    await alice.send(room_id, **{"m.mentions": {"user_ids": [bob.user_id], "room": True}})
    await alice.send(room_id, **in_thread(root))
    await alice.send(room_id, "org.example", **{"m.mentions": {"user_ids": [bob.user_id]}})
    assert await bob.unread(room_id) == (1, 0)
    assert await carol.unread(room_id) == (3, 1)
    await bob.ignore()
    await alice.send(room_id)
    assert await bob.unread(room_id) == (2, 0)


@pytest.mark.parametrize("kind", ["room", "override"])
async def test_muted_rooms(alice: User, bob: User, carol: User, kind: str) -> None:
    room_id, other_id = await alice.create_room(bob, carol), await alice.create_room(bob, carol)
    await alice.send(room_id)
    conditions = [{"kind": "event_match", "key": "room_id", "pattern": room_id}]
    await bob.put_rule(kind, room_id, **({"conditions": conditions} if kind == "override" else {}))
    for _ in range(3):
        await alice.send(room_id)
        await alice.send(other_id)
    await alice.send(room_id, **{"m.mentions": {"user_ids": [bob.user_id]}})
    # A rule for a room stands below the server's rule for mentions.
    mentions = 1 if kind == "room" else 0
    assert await bob.unread(room_id) == (1 + mentions, mentions)
    assert await bob.unread(other_id) == (3, 0)
    assert await carol.unread(room_id) == (5, 0)
    await bob.ok("DELETE", f"/pushrules/global/{kind}/{encoded(room_id)}")
    await alice.send(room_id)
    assert await bob.unread(room_id) == (2 + mentions, mentions)


async def test_receipts_in_a_muted_room(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    events = [await alice.send(room_id)]
    await bob.put_rule("room", room_id)
    events += [await alice.send(room_id) for _ in range(3)]
    events.append(await alice.send(room_id, **{"m.mentions": {"user_ids": [bob.user_id]}}))
    events += [await alice.send(room_id) for _ in range(2)]
    assert await bob.unread(room_id) == (2, 1)
    for read, expected in ((0, (1, 1)), (2, (1, 1)), (4, (0, 0)), (6, (0, 0))):
        await bob.read(room_id, events[read])
        assert await bob.unread(room_id) == expected
    await alice.redact(room_id, events[5])
    assert await bob.unread(room_id) == (0, 0)


async def test_redactions_in_a_muted_room(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    await bob.put_rule("room", room_id)
    muted = [await alice.send(room_id) for _ in range(3)]
    mention = await alice.send(room_id, **{"m.mentions": {"user_ids": [bob.user_id]}})
    for event_id in muted:
        await alice.redact(room_id, event_id)
        assert await bob.unread(room_id) == (1, 1)
    await alice.redact(room_id, mention)
    assert await bob.unread(room_id) == (0, 0)


async def test_keywords(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create_room(bob, carol)
    highlight = {"set_tweak": "highlight"}
    await bob.put_rule("content", "cake", "notify", highlight, pattern="cake")
    await alice.send(room_id, body="There is CAKE!")
    await alice.send(room_id, body="pancakes")
    await alice.send(room_id, msgtype="m.notice", body="cake")
    assert await bob.unread(room_id) == (2, 1)
    assert await carol.unread(room_id) == (2, 0)


async def test_rules_that_ask_for_the_display_name(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    conditions = [{"kind": "contains_display_name"}]
    await bob.put_rule("override", "name", "notify", {"set_tweak": "highlight"}, conditions=conditions)
    await alice.send(room_id, body="Hello Robert")
    assert await bob.unread(room_id) == (1, 0)
    await bob.send_state(room_id, "m.room.member", {"membership": "join", "displayname": "Robert"}, bob.user_id)
    await alice.send(room_id, body="Hello Robert")
    assert await bob.unread(room_id) == (2, 1)


async def test_changed_default_rules(alice: User, bob: User) -> None:
    room_id, pair_id = await alice.create_room(bob, await register(alice.site, "dave")), await alice.create_room(bob)
    await bob.ok("PUT", "/pushrules/global/underride/.m.rule.message/actions", {"actions": []})
    await alice.send(room_id)
    await alice.send(pair_id)
    assert await bob.unread(room_id) == (0, 0)
    assert await bob.unread(pair_id) == (1, 0), "of two people another rule takes care"
    await bob.ok("PUT", "/pushrules/global/override/.m.rule.master/enabled", {"enabled": True})
    await alice.send(pair_id, **{"m.mentions": {"user_ids": [bob.user_id]}})
    assert await bob.unread(pair_id) == (1, 0)


async def test_a_rule_of_a_room_counts_by_members(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create_room(bob)
    await bob.put_rule("override", "crowd", conditions=[{"kind": "room_member_count", "is": ">2"}])
    await alice.send(room_id)
    await carol.join(room_id)
    await alice.send(room_id)
    assert await bob.unread(room_id) == (1, 0)
    await carol.ok("POST", f"/rooms/{encoded(room_id)}/leave", {})
    await alice.send(room_id)
    assert await bob.unread(room_id) == (2, 0)


async def test_rules_hold_for_who_comes_later(alice: User, bob: User, carol: User) -> None:
    room_id = await alice.create_room(bob)
    await carol.put_rule("sender", alice.user_id)
    await alice.send(room_id)
    await carol.join(room_id)
    await alice.send(room_id)
    await bob.send(room_id)
    assert await carol.unread(room_id) == (1, 0)


async def test_s38_odd_messages(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    await bob.put_rule("content", "star", "notify", pattern="*")
    odd: list[dict[str, Any]] = [
        {"m.mentions": "x"},
        {"m.mentions": {"user_ids": {"a": 1}}},
        {"m.mentions": {"user_ids": ["@bob:test\u0001", "@:test", ":test", "@" + "b" * 300 + ":test"]}},
        {"m.mentions": {"user_ids": [f"@user{number}:test" for number in range(3000)]}},
        {"body": {"a": []}},
        {"body": "x" * 30_000},
        {"m.relates_to": ["m.replace"]},
        {"msgtype": None},
    ]
    for content in odd:
        await alice.send(room_id, "org.example.odd", **content)
    await alice.send(room_id, body="fine")
    assert await bob.unread(room_id) == (2, 0), "the long body is one, the last message the other"
