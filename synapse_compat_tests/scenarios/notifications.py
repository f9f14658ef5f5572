"""Push rules, and what is counted as unread.

https://spec.matrix.org/v1.19/client-server-api/#push-notifications
"""

from typing import Any

from synapse_compat_tests.recording import Stage
from synapse_compat_tests.scenarios.registry import scenario

NOTIFY: list[Any] = ["notify"]


@scenario
async def push_rules(stage: Stage) -> None:
    """Rules are read, made, moved, switched and removed."""
    alice = await stage.user("alice")
    since = (await alice.sync())["next_batch"]
    await alice.get("/pushrules/")
    await alice.get("/pushrules/global/")
    await alice.get("/pushrules/global/override")
    await alice.get("/pushrules/global/override/.m.rule.master")
    await alice.get("/pushrules/global/override/.m.rule.master/enabled")
    await alice.get("/pushrules/global/override/.m.rule.master/actions")
    await alice.put("/pushrules/global/override/mine", {"conditions": [], "actions": NOTIFY})
    await alice.put("/pushrules/global/content/word", {"pattern": "soup", "actions": [*NOTIFY, {"set_tweak": "sound"}]})
    await alice.put("/pushrules/global/room/!room:test", {"actions": []})
    await alice.put("/pushrules/global/sender/@bob:test", {"actions": NOTIFY})
    await alice.put("/pushrules/global/content/other?before=word", {"pattern": "pie", "actions": NOTIFY})
    await alice.put("/pushrules/global/content/third?after=word", {"pattern": "cake", "actions": NOTIFY})
    await alice.put("/pushrules/global/override/mine/enabled", {"enabled": False})
    await alice.put("/pushrules/global/override/.m.rule.suppress_notices/enabled", {"enabled": False})
    await alice.put("/pushrules/global/underride/.m.rule.message/actions", {"actions": []})
    await alice.put("/pushrules/global/content/word/actions", {"actions": ["dont_notify"]})
    await alice.get("/pushrules/global/content/word/actions")
    await alice.get("/pushrules/")
    await alice.sync(since)
    await alice.delete("/pushrules/global/content/other")
    await alice.delete("/pushrules/global/content/other")
    await alice.get("/pushrules/global/content")


@scenario
async def push_rules_that_are_refused(stage: Stage) -> None:
    """What does not do."""
    alice = await stage.user("alice")
    for path, body in (
        ("/pushrules/global/unheard_of/mine", {"actions": NOTIFY}),
        ("/pushrules/local/override/mine", {"actions": NOTIFY, "conditions": []}),
        ("/pushrules/global/override/.mine", {"actions": NOTIFY, "conditions": []}),
        ("/pushrules/global/override/.m.rule.master", {"actions": NOTIFY, "conditions": []}),
        ("/pushrules/global/override/mine", {"conditions": []}),
        ("/pushrules/global/override/mine", {"actions": "notify", "conditions": []}),
        ("/pushrules/global/override/mine", {"actions": ["unheard_of"], "conditions": []}),
        ("/pushrules/global/override/mine", {"actions": NOTIFY, "conditions": "x"}),
        ("/pushrules/global/override/mine", {"actions": NOTIFY, "conditions": [{}]}),
        ("/pushrules/global/override/mine", {"actions": NOTIFY, "conditions": ["x"]}),
        ("/pushrules/global/content/word", {"actions": NOTIFY}),
        ("/pushrules/global/content/word", {"actions": NOTIFY, "pattern": 5}),
        ("/pushrules/global/content/word?before=unheard_of", {"actions": NOTIFY, "pattern": "x"}),
        ("/pushrules/global/content/wo%2Frd", {"actions": NOTIFY, "pattern": "x"}),
        ("/pushrules/global/override/unheard_of/enabled", {"enabled": True}),
        ("/pushrules/global/override/.m.rule.master/enabled", {"enabled": "yes"}),
        ("/pushrules/global/override/.m.rule.master/enabled", {}),
        ("/pushrules/global/override/unheard_of/actions", {"actions": []}),
        ("/pushrules/global/override/.m.rule.unheard_of/enabled", {"enabled": True}),
    ):
        await alice.put(path, body)
    await alice.get("/pushrules/global/override/unheard_of")
    await alice.get("/pushrules/global/unheard_of/mine")
    await alice.delete("/pushrules/global/override/.m.rule.master")
    await alice.delete("/pushrules/global/override/unheard_of")
    await stage.anybody().get("/pushrules/")


@scenario
async def unread_counts(stage: Stage) -> None:
    """Messages, mentions, notices, edits and reactions, until they are read."""
    alice, bob = await stage.users("alice", "bob")
    await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Robert"})
    third = await stage.user("third")
    room = await alice.create_room(preset="public_chat")
    for client in (bob, third):
        await client.act(room, "join")
    since = (await bob.sync())["next_batch"]

    async def sent(body: str, event_type: str = "m.room.message", **more: Any) -> str:
        nonlocal since
        event_id = await alice.send(room, body, event_type=event_type, **more)
        since = (await bob.sync(since))["next_batch"]
        return event_id

    first = await sent("hello")
    await sent("hello Robert")
    await sent("hello bob.unread_counts")
    await sent("look", **{"m.mentions": {"user_ids": [bob.user_id]}})
    await sent("@room", **{"m.mentions": {"room": True}})
    await sent("nothing", msgtype="m.notice")
    await sent("* edited", **{"m.relates_to": {"rel_type": "m.replace", "event_id": first}, "m.new_content": {}})
    await sent(
        "", event_type="m.reaction", **{"m.relates_to": {"rel_type": "m.annotation", "event_id": first, "key": "x"}}
    )
    await sent("secret", event_type="m.room.encrypted", algorithm="m.megolm.v1.aes-sha2")
    await sent("other", event_type="org.example.other")
    last = await sent("bye")
    await bob.post(f"{room.path}/receipt/m.read/{first}", {})
    since = (await bob.sync(since))["next_batch"]
    await bob.post(f"{room.path}/receipt/m.read.private/{last}", {})
    since = (await bob.sync(since))["next_batch"]
    await sent("again")
    await bob.send(room, "I am here")
    await bob.sync(since)
    await bob.sync()


@scenario
async def unread_counts_of_threads(stage: Stage) -> None:
    """Counted by themselves where the client asks for it."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room(preset="public_chat")
    await bob.act(room, "join")
    root = await bob.send(room, "root")
    thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    by_thread = '{"room": {"timeline": {"unread_thread_notifications": true}}}'
    await alice.send(room, "main")
    reply = await alice.send(room, "in the thread", **thread)
    await alice.send(room, "mention", **thread, **{"m.mentions": {"user_ids": [bob.user_id]}})
    await bob.sync(filter=by_thread)
    await bob.sync()
    await bob.post(f"{room.path}/receipt/m.read/{reply}", {"thread_id": root})
    await bob.sync(filter=by_thread)
    await bob.post(f"{room.path}/receipt/m.read/{reply}", {})
    await bob.sync(filter=by_thread)
    await bob.sync()


@scenario
async def unread_counts_with_rules(stage: Stage) -> None:
    """Rules of the user's own."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room(preset="public_chat")
    await bob.act(room, "join")
    highlight = [*NOTIFY, {"set_tweak": "highlight"}]
    await bob.put("/pushrules/global/content/soup", {"pattern": "s?up", "actions": highlight})
    await alice.send(room, "Is there SOUP?")
    await alice.send(room, "Is there soups?")
    await bob.sync()
    await bob.put(f"/pushrules/global/room/{room.room_id}", {"actions": []})
    await alice.send(room, "quiet")
    await alice.send(room, "soup")
    await bob.sync()
    await bob.put("/pushrules/global/override/.m.rule.master/enabled", {"enabled": True})
    await alice.send(room, "soup")
    await bob.sync()
