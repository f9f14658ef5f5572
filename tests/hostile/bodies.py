"""Bodies that endpoints take: made of their schemas, and by hand where a schema leaves the members open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from homeserver.web.endpoint import Endpoint
from tests.real_client import PASSWORD


@dataclass(frozen=True, slots=True)
class Example:
    """A request that would be right.

    Attributes:
        body: its body.
        path: parameters of its path that are others than usual.
    """

    body: Mapping[str, Any]
    path: Mapping[str, str] = field(default_factory=dict)


def examples(endpoint: Endpoint, names: Mapping[str, str]) -> Sequence[Example]:
    """Right bodies of an endpoint, the best one first; none if it takes no JSON."""
    if endpoint.body is None:
        return ()
    made = Example(_value(endpoint.body, "", names))
    return (*_by_hand(names).get(endpoint.operation, ()), made)


def _value(schema: Mapping[str, Any], name: str, names: Mapping[str, str]) -> Any:
    """A value that fits a schema; for what is called like something that there is, that."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return next(value for value in schema["enum"] if value is not None)
    for alternatives in ("oneOf", "anyOf"):
        if alternatives in schema:
            return _value(schema[alternatives][0], name, names)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next(one for one in kind if one != "null")
    match kind:
        case "object":
            properties = schema.get("properties", {})
            return {inner: _value(inner_schema, inner, names) for inner, inner_schema in properties.items()}
        case "array":
            return [_value(schema.get("items", {}), name.removesuffix("s"), names)]
        case "integer" | "number":
            return max(int(schema.get("minimum", 1)), 1)
        case "boolean":
            return True
        case _:
            return names.get(name, "x")


def _by_hand(names: Mapping[str, str]) -> Mapping[str, Sequence[Example]]:
    """Examples by operation."""
    user_id, other_id, room_id, event_id = (names[name] for name in ("user_id", "other", "room_id", "event_id"))
    identifier = {"type": "m.id.user", "user": user_id}
    auth = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    levels = {
        "users": {other_id: 40},
        "users_default": 0,
        "events": {"m.room.name": 50},
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "notifications": {"room": 50},
    }
    condition = {"kind": "event_match", "key": "content.body", "pattern": "soup*"}
    rule = {"actions": ["notify", {"set_tweak": "sound", "value": "default"}], "conditions": [condition]}
    mentions = {"user_ids": [other_id], "room": True}
    relation = {"rel_type": "m.thread", "event_id": event_id, "m.in_reply_to": {"event_id": event_id}, "key": "x"}
    event_filter = {"limit": 5, "types": ["m.*"], "not_types": ["x"], "senders": [user_id], "not_senders": [other_id]}
    room_filter = {**event_filter, "rooms": [room_id], "contains_url": False, "lazy_load_members": True}
    state = {
        "m.room.power_levels": levels,
        "m.room.member": {"membership": "join", "displayname": "x", "avatar_url": "mxc://test/x", "reason": "x"},
        "m.room.join_rules": {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": room_id}],
        },
        "m.room.canonical_alias": {"alias": names["room_alias"], "alt_aliases": [names["room_alias"]]},
        "m.room.server_acl": {"allow": ["*"], "deny": ["evil.example"], "allow_ip_literals": True},
        "m.room.history_visibility": {"history_visibility": "shared"},
        "m.room.guest_access": {"guest_access": "can_join"},
        "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_ms": 5},
        "m.room.name": {"name": "x"},
        "m.room.topic": {"topic": "x", "m.topic": {"m.text": [{"body": "x", "mimetype": "text/plain"}]}},
        "m.room.tombstone": {"body": "x", "replacement_room": "!other:test"},
        "m.room.third_party_invite": {"display_name": "x", "public_keys": [{"public_key": "x"}]},
        "m.space.child": {"via": ["test"], "order": "x", "suggested": True},
        "m.room.create": {"room_version": "12", "additional_creators": [other_id]},
    }
    state_keys = {"m.room.member": user_id, "m.space.child": room_id, "m.room.third_party_invite": "x"}
    account_data = {
        "m.direct": {other_id: [room_id]},
        "m.ignored_user_list": {"ignored_users": {other_id: {}}},
        "m.invite_permission_config": {"default_action": "block"},
        "m.tag": {"tags": {"u.x": {"order": 0.5}}},
        "m.marked_unread": {"unread": True},
    }
    by_type = [Example(content, {"type": kind}) for kind, content in account_data.items()]
    token = {"token": "x", "uses_allowed": 1, "expiry_time": 2**52}
    master = {"rule_id": ".m.rule.master"}
    account = {"password": PASSWORD, "displayname": "x", "avatar_url": "mxc://test/x", "admin": False, "locked": False}
    target = [Example({"user_id": other_id, "reason": "x"})]
    return {
        **{operation: [Example({"reason": "x"})] for operation in ("join_room", "join_room_by_id")},
        **dict.fromkeys(("invite_user", "kick", "ban", "unban"), target),
        "create_room": [
            Example(
                {
                    "preset": "public_chat",
                    "room_version": "11",
                    "creation_content": {"m.federate": True, "type": "m.space", "additional_creators": [other_id]},
                    "initial_state": [
                        {"type": kind, "state_key": state_keys.get(kind, ""), "content": content}
                        for kind, content in state.items()
                        if kind in ("m.room.join_rules", "m.room.topic", "m.room.encryption")
                    ],
                    "power_level_content_override": {**levels, "users": {user_id: 100}},
                    "invite": [other_id],
                }
            )
        ],
        "define_filter": [
            Example(
                {
                    "event_fields": ["content.body"],
                    "event_format": "client",
                    "presence": event_filter,
                    "account_data": event_filter,
                    "room": {
                        "rooms": [room_id],
                        "include_leave": True,
                        **dict.fromkeys(("timeline", "state", "ephemeral", "account_data"), room_filter),
                    },
                }
            )
        ],
        "set_push_rule": [
            Example(rule),
            Example({"actions": ["notify"], "pattern": "x"}, {"kind": "content", "rule_id": "word"}),
            Example({"conditions": [{"kind": "room_member_count", "is": ">=2"}], "actions": []}),
            Example({"conditions": [{"kind": "event_property_is", "key": "x", "value": 5}], "actions": []}),
            Example({"conditions": [{"kind": "sender_notification_permission", "key": "room"}], "actions": []}),
        ],
        "send_message": [
            Example({"msgtype": "m.text", "body": "x", "m.mentions": mentions, "m.relates_to": relation}),
            Example({"m.relates_to": {**relation, "rel_type": "m.annotation"}}, {"event_type": "m.reaction"}),
            Example(
                {"body": "x", "m.new_content": {"body": "y"}, "m.relates_to": {**relation, "rel_type": "m.replace"}}
            ),
            Example({"redacts": event_id, "reason": "x"}, {"event_type": "m.room.redaction"}),
        ],
        "set_room_state_with_key": [
            Example(content, {"event_type": kind, "state_key": state_keys.get(kind, "")})
            for kind, content in state.items()
        ],
        "set_account_data": by_type,
        "set_account_data_per_room": by_type,
        "set_profile_field": [
            Example({"displayname": "x"}, {"key_name": "displayname"}),
            Example({"avatar_url": "mxc://test/x"}, {"key_name": "avatar_url"}),
            Example({"org.example.x": [1, {"a": "b"}]}, {"key_name": "org.example.x"}),
        ],
        "login": [Example({"type": "m.login.password", "identifier": identifier, "password": PASSWORD})],
        "register": [
            Example({"username": "x", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}),
        ],
        "change_password": [Example({"new_password": PASSWORD, "logout_devices": False, "auth": auth})],
        "deactivate_account": [Example({"auth": auth, "erase": False})],
        "delete_device": [Example({"auth": auth})],
        "generate_login_token": [Example({"auth": auth})],
        "set_admin_lock_user": [Example({"locked": True}, {"user_id": other_id})],
        "set_admin_suspend_user": [Example({"suspended": True}, {"user_id": other_id})],
        "admin_put_user": [Example(account, {"user_id": other_id})],
        "admin_login_as_user": [Example({"valid_until_ms": 2**52}, {"user_id": other_id})],
        "admin_create_registration_token": [Example(token)],
        "upgrade_room": [Example({"new_version": "11"})],
        "query_public_rooms": [Example({"limit": 1, "filter": {"generic_search_term": "x", "room_types": [None]}})],
        "report_event": [Example({"reason": "x", "score": -50})],
        "post_receipt": [Example({"thread_id": "main"})],
        "set_read_marker": [Example(dict.fromkeys(("m.fully_read", "m.read", "m.read.private"), event_id))],
        "set_push_rule_enabled": [Example({"enabled": True}, master)],
        "set_push_rule_actions": [Example({"actions": ["notify", {"set_tweak": "sound", "value": "x"}]}, master)],
        "set_room_alias": [Example({"room_id": room_id}, {"room_alias": names["room_alias"].replace("#", "#new")})],
        "delete_devices": [Example({"auth": auth, "devices": ["X"]})],
    }
