"""The endpoints of push rules, and what syncs tell of them.

https://spec.matrix.org/v1.19/client-server-api/#push-rules-api
"""

from typing import Any

import pytest

from storage.bus.memory import MemoryBus
from tests.api.push.api import User, encoded, register
from tests.api.server import Site, composed_server
from tests.waiting import wait_until

NOTIFY = {"actions": ["notify"]}
CONDITION = {"kind": "event_match", "key": "content.msgtype", "pattern": "m.notice"}
KINDS = {
    "override": {"conditions": [CONDITION]},
    "content": {"pattern": "cake"},
    "room": {},
    "sender": {},
    "underride": {"conditions": [CONDITION]},
}


async def own(user: User, kind: str) -> list[str]:
    """The names of the user's own rules of a kind, in order."""
    rules = await user.ok("GET", f"/pushrules/global/{kind}/")
    return [rule["rule_id"] for rule in rules if not rule["default"]]


async def pushed_rules(user: User, since: str) -> tuple[Any, str]:
    """The push rules that a sync tells, if it does, and where the next one begins."""
    body = await user.ok("GET", "/sync", since=since, timeout=0)
    events = body.get("account_data", {}).get("events", [])
    contents = [event["content"] for event in events if event["type"] == "m.push_rules"]
    return (contents[0] if contents else None), body["next_batch"]


async def test_the_default_rules(alice: User) -> None:
    everything = await alice.ok("GET", "/pushrules/")
    assert list(everything) == ["global"]
    assert set(everything["global"]) == set(KINDS)
    assert everything["global"]["override"][0]["rule_id"] == ".m.rule.master"
    assert all(rule["default"] for rules in everything["global"].values() for rule in rules)
    assert await alice.ok("GET", "/pushrules/global/") == everything["global"]
    path = f"/user/{encoded(alice.user_id)}/account_data/m.push_rules"
    assert await alice.ok("GET", path) == everything


@pytest.mark.parametrize("rule_id", ["my_rule", "#spam:example.com", "тест", "a b%", "⚡" * 85])
async def test_a_rule_is_there_wherever_one_looks(alice: User, rule_id: str) -> None:
    for kind in KINDS:
        await _look_everywhere(alice, kind, rule_id)


async def _look_everywhere(alice: User, kind: str, rule_id: str) -> None:
    path = f"/pushrules/global/{kind}/{encoded(rule_id)}"
    assert await alice.ok("PUT", path, {**NOTIFY, **KINDS[kind]}) == {}
    rule = await alice.ok("GET", path)
    assert rule == {"rule_id": rule_id, "default": False, "enabled": True, **NOTIFY, **KINDS[kind]}
    assert rule in await alice.ok("GET", f"/pushrules/global/{kind}/")
    assert rule in (await alice.ok("GET", "/pushrules/global/"))[kind]
    assert rule in (await alice.ok("GET", "/pushrules/"))["global"][kind]
    assert await alice.ok("GET", f"{path}/enabled") == {"enabled": True}
    assert await alice.ok("GET", f"{path}/actions") == NOTIFY
    assert await alice.ok("DELETE", path) == {}
    assert (await alice.call("GET", path)).status == 404


async def test_the_order_of_rules(alice: User) -> None:
    for name in ("a", "b"):
        await alice.put_rule("room", name)
    assert await own(alice, "room") == ["b", "a"]
    await alice.ok("PUT", "/pushrules/global/room/c", NOTIFY, before="a")
    await alice.ok("PUT", "/pushrules/global/room/d", NOTIFY, after="b")
    assert await own(alice, "room") == ["b", "d", "c", "a"]
    await alice.ok("PUT", "/pushrules/global/room/a", NOTIFY, before="b", after="c")
    assert await own(alice, "room") == ["a", "b", "d", "c"]
    reply = await alice.call("PUT", "/pushrules/global/room/e", NOTIFY, before="nobody")
    assert (reply.status, reply.json["errcode"]) == (400, "M_UNKNOWN")
    reply = await alice.call("PUT", "/pushrules/global/override/e", NOTIFY, after=".m.rule.tombstone")
    assert (reply.status, reply.json["errcode"]) == (400, "M_UNKNOWN")
    assert await own(alice, "room") == ["a", "b", "d", "c"]


async def test_updating_a_rule_keeps_it_as_enabled_as_it_was(alice: User) -> None:
    await alice.put_rule("sender", "@bob:test", "notify")
    await alice.ok("PUT", "/pushrules/global/sender/@bob:test/enabled", {"enabled": False})
    await alice.put_rule("sender", "@bob:test")
    rule = await alice.ok("GET", "/pushrules/global/sender/@bob:test")
    assert (rule["enabled"], rule["actions"]) == (False, [])
    assert await own(alice, "sender") == ["@bob:test"]


async def test_default_rules_can_be_changed_but_not_removed(alice: User) -> None:
    for kind, rules in (await alice.ok("GET", "/pushrules/global/")).items():
        for rule in rules:
            path = f"/pushrules/global/{kind}/{rule['rule_id']}"
            for enabled in (True, False, True):
                await alice.ok("PUT", f"{path}/enabled", {"enabled": enabled})
                assert await alice.ok("GET", f"{path}/enabled") == {"enabled": enabled}
            await alice.ok("PUT", f"{path}/actions", {"actions": ["dont_notify"]})
            assert await alice.ok("GET", f"{path}/actions") == {"actions": ["dont_notify"]}
            assert (await alice.call("DELETE", path)).status == 404


WRONG_REQUESTS: list[tuple[str, str, Any, int, str | None]] = [
    ("GET", "", None, 404, "M_UNRECOGNIZED"),
    ("GET", "/global", None, 400, "M_UNRECOGNIZED"),
    ("GET", "/global/room", None, 400, "M_UNRECOGNIZED"),
    ("GET", "/device/", None, 400, "M_UNRECOGNIZED"),
    ("GET", "/global/none/", None, 400, "M_INVALID_PARAM"),
    ("GET", "/global/override/.m.rule.master/colour", None, 400, "M_UNRECOGNIZED"),
    ("GET", "/global/override/unknown", None, 404, "M_NOT_FOUND"),
    ("GET", "/global/override/unknown/enabled", None, 404, "M_NOT_FOUND"),
    ("GET", "/global/override/unknown/actions", None, 404, "M_NOT_FOUND"),
    ("DELETE", "/global/override/unknown", None, 404, "M_NOT_FOUND"),
    ("PUT", "/", NOTIFY, 400, "M_UNRECOGNIZED"),
    ("PUT", "/global", NOTIFY, 400, "M_UNRECOGNIZED"),
    ("PUT", "/global/room", NOTIFY, 400, "M_UNRECOGNIZED"),
    ("PUT", "/global/room/", NOTIFY, 400, "M_UNRECOGNIZED"),
    ("PUT", "/device/room/x", NOTIFY, 400, "M_UNRECOGNIZED"),
    ("PUT", "/global/none/x", NOTIFY, 400, "M_INVALID_PARAM"),
    ("PUT", "/global/room/.x", NOTIFY, 400, "M_INVALID_PARAM"),
    ("PUT", "/global/room/a%2Fb", NOTIFY, 400, "M_INVALID_PARAM"),
    ("PUT", "/global/room/a%5Cb", NOTIFY, 400, "M_INVALID_PARAM"),
    ("PUT", "/global/room/a%00b", NOTIFY, 400, "M_INVALID_PARAM"),
    ("PUT", "/global/room/a%FFb", NOTIFY, 400, "M_INVALID_PARAM"),
    ("PUT", "/global/room/" + "x" * 256, NOTIFY, 400, "M_INVALID_PARAM"),
    ("PUT", "/global/room/x", {}, 400, "M_MISSING_PARAM"),
    ("PUT", "/global/room/x", b"[]", 400, "M_BAD_JSON"),
    ("PUT", "/global/room/x", b"", 400, "M_NOT_JSON"),
    ("PUT", "/global/room/x", {"actions": "notify"}, 400, "M_BAD_JSON"),
    ("PUT", "/global/room/x", {"actions": ["not_an_action"]}, 400, "M_INVALID_PARAM"),
    ("PUT", "/global/room/x", {"actions": [{"set_tweak": "sound", "value": 2**53}]}, 400, "M_BAD_JSON"),
    ("PUT", "/global/room/x", b'{"actions":[{"set_tweak":"sound","value":NaN}]}', 400, "M_NOT_JSON"),
    ("PUT", "/global/room/x", b'{"actions":[{"set_tweak":"sound","value":"\\ud800"}]}', 400, None),
    ("PUT", "/global/room/x", {"actions": [{"set_tweak": "sound", "value": "\0"}]}, 400, "M_BAD_JSON"),
    ("PUT", "/global/room/x", {"actions": [{"set_tweak": "x" * 20_000}]}, 413, "M_TOO_LARGE"),
    ("PUT", "/global/room/x", {"actions": [], "x": "x" * 70_000}, 413, "M_TOO_LARGE"),
    ("PUT", "/global/content/x", NOTIFY, 400, "M_MISSING_PARAM"),
    ("PUT", "/global/content/x", {**NOTIFY, "pattern": 5}, 400, "M_BAD_JSON"),
    ("PUT", "/global/content/x", {**NOTIFY, "pattern": "*" * 513}, 400, "M_INVALID_PARAM"),
    ("PUT", "/global/override/x", {**NOTIFY, "conditions": [{}]}, 400, "M_BAD_JSON"),
    ("PUT", "/global/override/x", {**NOTIFY, "conditions": {"kind": "event_match"}}, 400, "M_BAD_JSON"),
    ("PUT", "/global/room/x/enabled", {"enabled": True}, 404, "M_NOT_FOUND"),
    ("PUT", "/global/override/.not.a.rule/enabled", {"enabled": True}, 404, "M_NOT_FOUND"),
    ("PUT", "/global/override/.m.rule.master/enabled", {"enabled": "yes"}, 400, "M_BAD_JSON"),
    ("PUT", "/global/override/.m.rule.master/enabled", {}, 400, "M_MISSING_PARAM"),
    ("PUT", "/global/room/x/actions", NOTIFY, 404, "M_NOT_FOUND"),
    ("PUT", "/global/override/.m.rule.master/actions", {"actions": [5]}, 400, "M_BAD_JSON"),
    ("PUT", "/global/override/.m.rule.master/colour", {"enabled": True}, 400, "M_UNRECOGNIZED"),
]


async def test_s38_wrong_requests_change_nothing(alice: User) -> None:
    before = await alice.ok("GET", "/pushrules/")
    for method, path, body, status, errcode in WRONG_REQUESTS:
        reply = await alice.call(method, f"/pushrules{path}", body)
        assert reply.status == status, (method, path, body, reply.body)
        assert errcode in (None, reply.json["errcode"]), (method, path, body, reply.body)
        assert await alice.ok("GET", "/pushrules/") == before, (method, path, body)


async def test_there_is_a_limit(alice: User) -> None:
    path = "/pushrules/global/underride/large{}"
    large = {**NOTIFY, "conditions": [{"kind": "unheard_of", "value": "x" * 15_000}]}
    statuses = [(await alice.call("PUT", path.format(number), large)).status for number in range(18)]
    assert statuses == [200] * 17 + [413]


async def test_nobody_else_sees_them(alice: User, bob: User, site: Site) -> None:
    await alice.put_rule("room", "!mine:test")
    assert await own(bob, "room") == []
    reply = await site.request("GET", "/pushrules/")
    assert (reply.status, reply.json["errcode"]) == (401, "M_MISSING_TOKEN")


async def test_account_data_cannot_set_them(alice: User) -> None:
    reply = await alice.call("PUT", f"/user/{encoded(alice.user_id)}/account_data/m.push_rules", {"global": {}})
    assert (reply.status, reply.json["errcode"]) == (405, "M_BAD_JSON")


async def test_syncs_tell_of_every_change(alice: User, bob: User) -> None:
    first = await alice.ok("GET", "/sync")
    (content,) = (event["content"] for event in first["account_data"]["events"] if event["type"] == "m.push_rules")
    assert content == await alice.ok("GET", "/pushrules/")
    rules, since = await pushed_rules(alice, first["next_batch"])
    assert rules is None
    for method, path, body in (
        ("PUT", "", NOTIFY),
        ("PUT", "/enabled", {"enabled": False}),
        ("PUT", "/actions", {"actions": ["dont_notify"]}),
        ("DELETE", "", None),
    ):
        await alice.ok(method, f"/pushrules/global/room/{encoded('!foo:example.com')}{path}", body)
        rules, since = await pushed_rules(alice, since)
        assert rules == await alice.ok("GET", "/pushrules/")
    await bob.put_rule("room", "!foo:example.com")
    rules, since = await pushed_rules(alice, since)
    assert rules is None


async def test_rules_about_a_room_go_along_to_the_room_that_replaces_it(alice: User, bob: User) -> None:
    old_id = await alice.create_room(bob)
    await bob.put_rule("room", old_id)
    condition = {"kind": "event_match", "key": "room_id", "pattern": old_id}
    await bob.put_rule("override", old_id, conditions=[condition, CONDITION])
    await bob.put_rule("underride", "mine", "notify", conditions=[condition])
    await bob.put_rule("override", "other", conditions=[CONDITION])
    new_id = (await alice.ok("POST", f"/rooms/{encoded(old_id)}/upgrade", {"new_version": "11"}))["replacement_room"]
    await bob.join(new_id)
    assert await own(bob, "room") == [new_id, old_id]
    assert await own(bob, "override") == ["other", new_id, old_id]
    assert await own(bob, "underride") == [f"mine_{new_id}", "mine"]
    copied = await bob.ok("GET", f"/pushrules/global/override/{encoded(new_id)}")
    assert copied["conditions"] == [{**condition, "pattern": new_id}, CONDITION]
    await alice.send(new_id)
    assert await bob.unread(new_id) == (0, 0)


async def test_rules_changed_at_one_worker_hold_at_another(database_url: str) -> None:
    bus = MemoryBus()
    async with composed_server(database_url, bus=bus) as site, composed_server(database_url, bus=bus) as other_site:
        alice, bob = await register(other_site, "alice"), await register(site, "bob")
        room_id = await alice.create_room(bob)
        await alice.send(room_id)
        await bob.put_rule("room", room_id)

        async def is_muted() -> bool:
            before = await bob.unread(room_id)
            await alice.send(room_id)
            return await bob.unread(room_id) == before

        await wait_until(is_muted)
