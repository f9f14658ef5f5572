"""History visibility."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.visibility import (
    PLACE_MAX,
    PLACE_MIN,
    EventVisibility,
    HistoryVisibility,
    visible_spans,
    visible_to_server,
    visible_to_user,
)

WORLD_READABLE, SHARED, INVITED, JOINED = HistoryVisibility
USER = "@user:example.org"
MEMBERSHIPS = (None, "join", "invite", "leave", "ban", "knock", "unknown")

visibilities = st.sampled_from(list(HistoryVisibility))
memberships = st.sampled_from(MEMBERSHIPS)


def sees(visibility: HistoryVisibility, membership: str | None, *, joined_later: bool = False) -> bool:
    """Whether a user sees a message."""
    at_event = EventVisibility(visibility, visibility, membership, membership)
    return visible_to_user(at_event, joined_later=joined_later)


@pytest.mark.parametrize(
    ("visibility", "membership", "now", "later"),
    [
        (WORLD_READABLE, None, True, True),
        (WORLD_READABLE, "ban", True, True),
        (WORLD_READABLE, "leave", True, True),
        (SHARED, "join", True, True),
        (SHARED, None, False, True),
        (SHARED, "invite", False, True),
        (SHARED, "knock", False, True),
        (SHARED, "leave", False, True),
        (SHARED, "ban", False, True),
        (INVITED, "join", True, True),
        (INVITED, "invite", True, True),
        (INVITED, None, False, False),
        (INVITED, "knock", False, False),
        (INVITED, "leave", False, False),
        (INVITED, "ban", False, False),
        (JOINED, "join", True, True),
        (JOINED, "invite", False, False),
        (JOINED, None, False, False),
        (JOINED, "leave", False, False),
        (JOINED, "ban", False, False),
    ],
)
def test_messages(visibility: HistoryVisibility, membership: str | None, now: bool, later: bool) -> None:
    assert sees(visibility, membership, joined_later=False) is now
    assert sees(visibility, membership, joined_later=True) is later


@given(visibilities, visibilities, memberships, memberships, st.booleans())
def test_the_side_that_shows_more_wins(
    before: HistoryVisibility, after: HistoryVisibility, left: str | None, right: str | None, joined_later: bool
) -> None:
    visibility_event = EventVisibility(before, after, left, left)
    assert visible_to_user(visibility_event, joined_later=joined_later) == (
        sees(before, left, joined_later=joined_later) or sees(after, left, joined_later=joined_later)
    )
    member_event = EventVisibility(before, before, left, right)
    assert visible_to_user(member_event, joined_later=joined_later) == (
        sees(before, left, joined_later=joined_later) or sees(before, right, joined_later=joined_later)
    )


def of_event(
    event_type: str, state_key: str | None, content: dict[str, Any], *, visibility: HistoryVisibility, membership: Any
) -> EventVisibility:
    return EventVisibility.of_event(
        event_type=event_type,
        state_key=state_key,
        content=content,
        user_id=USER,
        visibility=visibility,
        membership=membership,
    )


@pytest.mark.parametrize(("before", "after"), [(WORLD_READABLE, JOINED), (JOINED, WORLD_READABLE)])
def test_a_stranger_sees_the_change_from_and_to_world_readable(
    before: HistoryVisibility, after: HistoryVisibility
) -> None:
    content = {"history_visibility": after.value}
    at_event = of_event("m.room.history_visibility", "", content, visibility=before, membership=None)
    assert at_event == EventVisibility(before, after, None, None)
    assert visible_to_user(at_event, joined_later=False)


@pytest.mark.parametrize(
    ("before", "after", "visible"),
    [
        (None, "join", True),
        ("invite", "join", True),
        ("join", "leave", True),
        ("join", "ban", True),
        (None, "invite", False),
        ("invite", "leave", False),
        ("leave", "ban", False),
    ],
)
def test_own_member_events_where_only_members_see(before: str | None, after: str, visible: bool) -> None:
    at_event = of_event("m.room.member", USER, {"membership": after}, visibility=JOINED, membership=before)
    assert at_event == EventVisibility(JOINED, JOINED, before, after)
    assert visible_to_user(at_event, joined_later=False) is visible


@pytest.mark.parametrize(
    ("event_type", "state_key", "content"),
    [
        ("m.room.member", "@other:example.org", {"membership": "join"}),
        ("m.room.member", None, {"membership": "join"}),
        ("m.room.message", USER, {"membership": "join"}),
        ("m.room.history_visibility", None, {"history_visibility": "world_readable"}),
        ("m.room.history_visibility", "other", {"history_visibility": "world_readable"}),
    ],
)
def test_other_events_change_nothing(event_type: str, state_key: str | None, content: dict[str, Any]) -> None:
    at_event = of_event(event_type, state_key, content, visibility=JOINED, membership="invite")
    assert at_event == EventVisibility(JOINED, JOINED, "invite", "invite")


@pytest.mark.parametrize("content", [None, {}, {"history_visibility": "secret"}, {"history_visibility": ["joined"]}])
def test_what_is_not_understood_is_shared(content: dict[str, Any] | None) -> None:
    assert HistoryVisibility.of_content(content) is SHARED


@pytest.mark.parametrize("value", list(HistoryVisibility))
def test_values(value: HistoryVisibility) -> None:
    assert HistoryVisibility.of_content({"history_visibility": value.value}) is value


@pytest.mark.parametrize("membership", [None, 7, ["join"], {}])
def test_a_wrong_membership_is_none(membership: Any) -> None:
    at_event = of_event("m.room.member", USER, {"membership": membership}, visibility=SHARED, membership="leave")
    assert at_event.membership_after is None


@given(visibilities, st.frozensets(memberships), st.booleans())
def test_a_server_sees_what_one_of_its_users_sees(
    visibility: HistoryVisibility, held: frozenset[str | None], joined_later: bool
) -> None:
    seen = visible_to_server(
        visibility_before=visibility, visibility_after=visibility, memberships=held, joined_later=joined_later
    )
    # A user whom the room does not know stands for those who may have joined later.
    assert seen == any(sees(visibility, each, joined_later=joined_later) for each in held | {None})


def test_a_server_sees_the_change_of_the_visibility() -> None:
    for before, after in ((JOINED, WORLD_READABLE), (WORLD_READABLE, JOINED)):
        assert visible_to_server(visibility_before=before, visibility_after=after, memberships=(), joined_later=False)
    assert not visible_to_server(visibility_before=JOINED, visibility_after=INVITED, memberships=(), joined_later=True)


def test_spans_of_a_quiet_room() -> None:
    assert visible_spans([(3, SHARED)], [(1, "join")]) == [(PLACE_MIN, PLACE_MAX)]
    assert visible_spans([(3, SHARED)], []) == []
    # Before it is said otherwise, history is shared.
    begun = (PLACE_MIN, 3)
    assert visible_spans([(3, JOINED)], [(4, "invite"), (6, "join"), (9, "leave")]) == [begun, (6, 9)]
    assert visible_spans([(3, INVITED)], [(4, "invite"), (6, "join"), (9, "leave")]) == [begun, (4, 9)]


@given(st.dictionaries(st.integers(0, 40), st.tuples(st.booleans(), visibilities, st.sampled_from(MEMBERSHIPS[1:]))))
def test_spans_say_what_is_visible(changes: dict[int, tuple[bool, HistoryVisibility, str]]) -> None:
    """They agree with the rule for single messages, wherever in the history of a room those are."""
    ordered = sorted(changes.items())
    set_at = [(2 * place, visibility) for place, (is_visibility, visibility, _) in ordered if is_visibility]
    entered_at = [(2 * place, membership) for place, (is_visibility, _, membership) in ordered if not is_visibility]
    spans = visible_spans(set_at, entered_at)
    for place in range(-1, 83, 2):
        visibility = next((value for at, value in reversed(set_at) if at < place), SHARED)
        membership = next((value for at, value in reversed(entered_at) if at < place), None)
        is_joined = bool(entered_at) and entered_at[-1][1] == "join"
        joined_later = is_joined or any(at > place and value == "join" for at, value in entered_at)
        is_seen = any(first <= place <= last for first, last in spans)
        assert is_seen == sees(visibility, membership, joined_later=joined_later)
    assert all(before[1] < after[0] for before, after in pairwise(spans))
