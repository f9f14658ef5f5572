"""Changes of membership as drafts: what each asks of the room beyond its authorization rules, and when it is done.

https://spec.matrix.org/v1.19/client-server-api/#room-membership
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import BadState, Forbidden, GuestAccessForbidden
from homeserver.core.event_auth.auth_events import CREATE, JOIN_RULES, POWER_LEVELS, member_slot
from homeserver.core.ids import EventId, UserId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.services.rooms.drafts import CurrentState, Draft

GUEST_ACCESS: Final[StateKey] = ("m.room.guest_access", "")
_AUTHORISED_VIA: Final = "join_authorised_via_users_server"


class Action(Enum):
    """What somebody does to a membership."""

    JOIN = "join"
    INVITE = "invite"
    KNOCK = "knock"
    LEAVE = "leave"
    KICK = "kick"
    BAN = "ban"
    UNBAN = "unban"


class MembershipChange:
    """One change of membership, decided in the room as it is; see `drafts.Compose`."""

    def __init__(
        self,
        action: Action,
        *,
        sender: UserId,
        target: UserId,
        content: Mapping[str, Any],
        is_guest: bool = False,
    ) -> None:
        """Takes who does what to whom, and the content of the member event."""
        self._action = action
        self._sender = sender
        self._target = target
        self._content = content
        self._is_guest = is_guest
        self.unchanged: EventId | None = None
        """The member event that stays, if there was nothing to do."""

    @property
    def slots(self) -> list[StateKey]:
        """The entries of the state that the decision looks at, and those that the authorization rules need."""
        return [CREATE, POWER_LEVELS, JOIN_RULES, member_slot(self._sender), member_slot(self._target), GUEST_ACCESS]

    def __call__(self, state: CurrentState) -> Sequence[Draft]:
        """The member event, or nothing if the membership is so already.

        Raises:
            Forbidden: the action makes no sense for the membership that the target has.
            BadState: the target is to be unbanned, but is not banned.
            GuestAccessForbidden: a guest wants to join a room that is closed to guests.
        """
        current = state.find(member_slot(self._target))
        self._check(current)
        if self._action is Action.JOIN and self._is_guest:
            _check_guest_access(state)
        if current is not None and self._is_done(current):
            self.unchanged = current.event_id
            return ()
        self.unchanged = None
        return (Draft(type="m.room.member", sender=self._sender, state_key=self._target, content=self._content),)

    def _check(self, current: Pdu | None) -> None:
        held = None if current is None else current.membership
        match self._action:
            case Action.LEAVE if held is None:
                raise Forbidden("You are not in the room")
            case Action.LEAVE if held == "ban":
                raise Forbidden("You are banned from the room")
            case Action.KICK if held not in ("join", "invite", "knock"):
                raise Forbidden("The user is not in the room")
            case Action.UNBAN if held != "ban":
                raise BadState("The user is not banned", status=403)

    def _is_done(self, current: Pdu) -> bool:
        """Whether the member event that is there says the same already."""
        match self._action:
            case Action.LEAVE:
                return current.membership == "leave"
            case Action.JOIN:
                return current.membership == "join" and _says_the_same(current.content, self._content)
            case _:
                is_same = encode_canonical(current.content) == encode_canonical(self._content)
                return current.sender == self._sender and is_same


def _says_the_same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether the content of a join brings nothing new: neither another profile nor anything else."""
    told = {"displayname", "avatar_url", *new} - {_AUTHORISED_VIA}
    return all(old.get(name) == new.get(name) for name in told)


def _check_guest_access(state: CurrentState) -> None:
    event = state.find(GUEST_ACCESS)
    if event is None or event.content.get("guest_access") != "can_join":
        raise GuestAccessForbidden("Guests may not join this room")
