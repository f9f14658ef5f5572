"""Who may redact what.

In versions 1 and 2 that is an authorization rule for `m.room.redaction`. From version 3 on such an event is authorized
like any other, and whether it takes effect is asked once both it and its target are there.

https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
"""

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu


def check_redaction(pdu: Pdu, power_levels: PowerLevels) -> None:
    """Rule 11 of versions 1 and 2.

    Args:
        pdu: an `m.room.redaction`.
        power_levels: of the state before it.

    Raises:
        Forbidden: the sender may not redact that event.
    """
    # 11.1
    if power_levels.user_level(pdu.sender) >= power_levels.redact:
        return
    # 11.2
    if pdu.redacts is not None and _same_domain(pdu.event_id, pdu.redacts):
        return
    # 11.3
    raise Forbidden("The sender may not redact that event")


def redaction_applies(*, redaction: Pdu, target: Pdu, power_levels: PowerLevels) -> bool:
    """Whether a redaction that was accepted takes effect on its target.

    A create event is never redacted: in versions 1 to 10 it would lose its `room_version`, and the room its rules.

    Args:
        redaction: an accepted `m.room.redaction`.
        target: an accepted event.
        power_levels: of the state before the redaction.
    """
    if redaction.redacts != target.event_id or redaction.room_id != target.room_id or target.type == "m.room.create":
        return False
    if power_levels.user_level(redaction.sender) >= power_levels.redact:
        return True
    if redaction.room_version.redaction_checked_on_arrival:
        return redaction.sender.server_name == target.sender.server_name
    return _same_domain(redaction.event_id, target.event_id)


def _same_domain(one: EventId, other: EventId) -> bool:
    """Whether two event ids of versions 1 or 2 name the same server."""
    return one.server_name is not None and one.server_name == other.server_name
