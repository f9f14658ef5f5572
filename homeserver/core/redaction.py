"""The redaction algorithm: what is left of an event when its content is taken away, by room version.

https://spec.matrix.org/v1.19/client-server-api/#redactions
"""

from collections.abc import Mapping
from typing import Any, Final

from homeserver.core.room_versions import RoomVersion

_KEPT: Final = frozenset(
    (
        "event_id",
        "type",
        "room_id",
        "sender",
        "state_key",
        "content",
        "hashes",
        "signatures",
        "depth",
        "prev_events",
        "auth_events",
        "origin_server_ts",
    )
)
_KEPT_BEFORE_V11: Final = _KEPT | {"prev_state", "origin", "membership"}

_POWER_LEVELS: Final = (
    "ban",
    "events",
    "events_default",
    "kick",
    "redact",
    "state_default",
    "users",
    "users_default",
)


def redact(event_json: Mapping[str, Any], room_version: RoomVersion) -> dict[str, Any]:
    """Redacts an event in its federation form, of which only `type` and `content` must be there.

    Returns:
        A new object with the members that the room version keeps; `unsigned` is not among them. The event itself
        stays as it is, and what is kept is shared with it.
    """
    kept_names = _KEPT if room_version.updated_redaction_rules else _KEPT_BEFORE_V11
    redacted = {name: value for name, value in event_json.items() if name in kept_names}
    redacted["content"] = _redact_content(event_json["type"], event_json["content"], room_version)
    return redacted


def _redact_content(event_type: str, content: Mapping[str, Any], room_version: RoomVersion) -> Mapping[str, Any]:
    updated = room_version.updated_redaction_rules
    if updated and event_type == "m.room.create":
        return content
    kept = {name: content[name] for name in _kept_content(event_type, room_version) if name in content}
    if updated and event_type == "m.room.member" and isinstance(invite := content.get("third_party_invite"), dict):
        # An invite without `signed` leaves an empty object, as other servers have it: event ids depend on this.
        kept["third_party_invite"] = {"signed": invite["signed"]} if "signed" in invite else {}
    return kept


def _kept_content(event_type: str, room_version: RoomVersion) -> tuple[str, ...]:
    """The members of the content that are kept as they are."""
    match event_type:
        case "m.room.member" if room_version.restricted_join_redaction_kept:
            return ("membership", "join_authorised_via_users_server")
        case "m.room.member":
            return ("membership",)
        case "m.room.create":
            return ("creator",)
        case "m.room.join_rules":
            return ("join_rule", "allow") if room_version.restricted_join_allowed else ("join_rule",)
        case "m.room.power_levels":
            return (*_POWER_LEVELS, "invite") if room_version.updated_redaction_rules else _POWER_LEVELS
        case "m.room.history_visibility":
            return ("history_visibility",)
        case "m.room.aliases" if room_version.aliases_events_special:
            return ("aliases",)
        case "m.room.redaction" if room_version.updated_redaction_rules:
            return ("redacts",)
        case _:
            return ()
