"""What the authorization rules ask of a room's state: memberships, the join rule, power levels, the create event."""

from collections.abc import Mapping

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import CREATE, JOIN_RULES, POWER_LEVELS, member_slot
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.pdu import Pdu, StateKey


class AuthState:
    """A view of the room state as the rules see it. It looks entries up and walks over none."""

    __slots__ = ("_power_levels", "_state", "create")

    def __init__(self, state: Mapping[StateKey, Pdu], *, power_levels: PowerLevels | None = None) -> None:
        """Wraps a state, of which only the entries in `authorizing_slots` of the event in question are looked at.

        Args:
            state: the events of the state.
            power_levels: those of this state, if they have been read already.

        Raises:
            Forbidden: there is no create event.
        """
        create = state.get(CREATE)
        if create is None:
            raise Forbidden("The room has no create event")
        self.create = create
        self._state = state
        self._power_levels = power_levels

    @property
    def power_levels(self) -> PowerLevels:
        """The power levels in force, read when they are first asked for.

        Raises:
            Forbidden: the state holds power levels that have no sense in this room version.
        """
        if self._power_levels is None:
            self._power_levels = PowerLevels.in_force(self._state.get(POWER_LEVELS), self.create)
        return self._power_levels

    @property
    def join_rule(self) -> str:
        """The join rule: `invite` where nothing is said, empty where the value makes no sense."""
        event = self._state.get(JOIN_RULES)
        join_rule = "invite" if event is None else event.content.get("join_rule", "invite")
        return join_rule if isinstance(join_rule, str) else ""

    def membership_of(self, user_id: str) -> str | None:
        """The membership of a user; None for who never had one."""
        event = self._state.get(member_slot(user_id))
        return None if event is None else event.membership

    def event(self, slot: StateKey) -> Pdu | None:
        """The event at an entry of the state."""
        return self._state.get(slot)
