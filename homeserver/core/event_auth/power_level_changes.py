"""The authorization rule for `m.room.power_levels` events: who may change which level.

It is rule 10 in versions 1 to 5 and 12, rule 9 in versions 6 to 11. The comments number it as version 12 does.

https://spec.matrix.org/v1.19/rooms/v12/#authorization-rules
"""

from collections.abc import Iterable, Iterator, Mapping

from homeserver.core.errors import Forbidden, InvalidParam
from homeserver.core.event_auth.auth_events import POWER_LEVELS
from homeserver.core.event_auth.auth_state import AuthState
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.ids import UserId
from homeserver.core.pdu import Pdu


def check_power_levels(pdu: Pdu, room: AuthState) -> None:
    """Checks an `m.room.power_levels` event against the state before it.

    Raises:
        Forbidden: the rule rejects the event.
    """
    # 10.1 to 10.3. Before version 10 the specification asks for the form of `users` only. Levels of any other kind that
    # make no sense could never be compared or obeyed, so they are refused in all versions.
    new = PowerLevels.parse(pdu.content, pdu.room_version)
    first = room.event(POWER_LEVELS) is None
    current = room.power_levels
    _check_user_ids(new.users.keys() - current.users.keys())
    # 10.4
    if pdu.room_version.creators_in_control and not current.creators.isdisjoint(new.users):
        raise Forbidden("Creators have no place among the users of the power levels")
    # 10.5
    if first:
        return
    sender_level = current.user_level(pdu.sender)
    # 10.6
    for name, old_level, new_level in _changes(current.named, new.named):
        if max(_present(old_level, new_level)) > sender_level:
            raise Forbidden(f"The sender may not change '{name}'")
    # 10.7 and 10.8
    changes = [*_changes(current.events, new.events)]
    if pdu.room_version.notifications_levels_checked:
        changes += _changes(current.notifications, new.notifications)
    for entry, old_level, new_level in changes:
        if max(_present(old_level, new_level)) > sender_level:
            raise Forbidden(f"The sender may not change the level of '{entry}'")
    for user_id, old_level, new_level in _changes(current.users, new.users):
        # 10.9
        if old_level is not None and user_id != pdu.sender and old_level >= sender_level:
            raise Forbidden("The sender may not change the level of a user at or above its own")
        # 10.10
        if new_level is not None and new_level > sender_level:
            raise Forbidden("The sender may not give a level above its own")


def _check_user_ids(user_ids: Iterable[str]) -> None:
    """Refuses what is no user id. Those in the current power levels have been through this before."""
    for user_id in user_ids:
        try:
            UserId.parse(user_id)
        except InvalidParam as error:
            raise Forbidden("'users' in the power levels holds a key that is no user id") from error


def _changes(old: Mapping[str, int], new: Mapping[str, int]) -> Iterator[tuple[str, int | None, int | None]]:
    """The entries that were added, changed or removed, each with its old and its new level."""
    for entry in old.keys() | new.keys():
        old_level, new_level = old.get(entry), new.get(entry)
        if old_level != new_level:
            yield entry, old_level, new_level


def _present(*levels: int | None) -> list[int]:
    return [level for level in levels if level is not None]
