"""Who may see an event: the rules of `m.room.history_visibility`, over plain values.

What counts is the state at the event. A service reads the state before each event of a page (which visibility is set,
and which membership the user has) and asks `EventVisibility.of_event()` to add what the event itself changes.

https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

PLACE_MIN: Final = -(2**63)
PLACE_MAX: Final = 2**63 - 1


class HistoryVisibility(StrEnum):
    """The values of `history_visibility`."""

    WORLD_READABLE = "world_readable"
    SHARED = "shared"
    INVITED = "invited"
    JOINED = "joined"

    @classmethod
    def of_content(cls, content: Mapping[str, Any] | None) -> "HistoryVisibility":
        """Reads the content of an `m.room.history_visibility` event; None says that the room has none.

        A value that is absent or not understood counts as `shared`.
        """
        value = None if content is None else content.get("history_visibility")
        return cls(value) if isinstance(value, str) and value in _VALUES else cls.SHARED


_VALUES = frozenset(HistoryVisibility)


@dataclass(frozen=True, slots=True)
class EventVisibility:
    """What decides whether one user may see one event.

    Attributes:
        visibility_before: the room's history visibility before the event.
        visibility_after: the same after it; another one only for the event that changes it.
        membership_before: the user's membership before the event; None if it has none.
        membership_after: the same after it; another one only for the user's own member event.
    """

    visibility_before: HistoryVisibility
    visibility_after: HistoryVisibility
    membership_before: str | None
    membership_after: str | None

    @classmethod
    def of_event(
        cls,
        *,
        event_type: str,
        state_key: str | None,
        content: Mapping[str, Any],
        user_id: str,
        visibility: HistoryVisibility,
        membership: str | None,
    ) -> "EventVisibility":
        """Adds what an event changes to what held before it.

        Args:
            event_type: of the event.
            state_key: of the event; None if it is no state.
            content: of the event; it may be redacted, which keeps what is looked at here.
            user_id: whose sight is in question.
            visibility: the room's history visibility in the state before the event.
            membership: the user's membership in the state before the event; None if it has none.
        """
        visibility_after = visibility
        membership_after = membership
        if event_type == "m.room.history_visibility" and state_key == "":
            visibility_after = HistoryVisibility.of_content(content)
        elif event_type == "m.room.member" and state_key == user_id:
            value = content.get("membership")
            membership_after = value if isinstance(value, str) else None
        return cls(visibility, visibility_after, membership, membership_after)


def visible_to_user(at_event: EventVisibility, *, joined_later: bool) -> bool:
    """Whether a user may see an event.

    Args:
        at_event: what held at the event.
        joined_later: the user joined the room at some time after the event, whether or not it is still there. For a
            user who is joined now this may always be true.
    """
    return _visible(
        (at_event.visibility_before, at_event.visibility_after),
        (at_event.membership_before, at_event.membership_after),
        joined_later=joined_later,
    )


def visible_spans(
    visibilities: Sequence[tuple[int, HistoryVisibility]], memberships: Sequence[tuple[int, str]]
) -> list[tuple[int, int]]:
    """Where in the history of a room a user may see messages.

    Args:
        visibilities: at which places of the room's order the history visibility was set, and to what, in order.
        memberships: the same for the user's membership.

    Returns:
        The first and the last place of each stretch; they are in order and apart from each other.
    """
    last_join = max((place for place, membership in memberships if membership == "join"), default=PLACE_MIN)
    is_joined = bool(memberships) and memberships[-1][1] == "join"
    set_at, entered_at = dict(visibilities), dict(memberships)
    visibility = HistoryVisibility.SHARED
    membership: str | None = None
    spans: list[tuple[int, int]] = []
    first = PLACE_MIN
    for last in (*sorted({*set_at, *entered_at}), PLACE_MAX):
        if _visible((visibility,), (membership,), joined_later=is_joined or first < last_join):
            start = spans.pop()[0] if spans and spans[-1][1] == first else first
            spans.append((start, last))
        visibility, membership = set_at.get(last, visibility), entered_at.get(last, membership)
        first = last
    return spans


def visible_to_server(
    *,
    visibility_before: HistoryVisibility,
    visibility_after: HistoryVisibility,
    memberships: Collection[str | None],
    joined_later: bool,
) -> bool:
    """Whether a server may have an event: whether any of its users may see it.

    Args:
        visibility_before: the room's history visibility before the event.
        visibility_after: the same after it; another one only for the event that changes it.
        memberships: all memberships that users of the server have before or after the event.
        joined_later: a user of the server joined the room at some time after the event. For a server that is in the
            room now this may always be true.
    """
    return _visible((visibility_before, visibility_after), memberships, joined_later=joined_later)


def _visible(
    visibilities: Collection[HistoryVisibility], memberships: Collection[str | None], *, joined_later: bool
) -> bool:
    """The specification's rules, in its order; of several values the one that shows more wins."""
    if HistoryVisibility.WORLD_READABLE in visibilities:
        return True
    if "join" in memberships:
        return True
    if HistoryVisibility.SHARED in visibilities and joined_later:
        return True
    return HistoryVisibility.INVITED in visibilities and "invite" in memberships
