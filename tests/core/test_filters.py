"""Filters: the grammar, and what they let pass."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.errors import BadJson
from homeserver.core.event_fields import EventFields
from homeserver.core.filters import (
    LIST_LENGTH_MAX,
    TEXT_LENGTH_MAX,
    EventFilter,
    EventFormat,
    Filter,
    RoomEventFilter,
    RoomFilter,
)

ALICE, BOB = "@alice:example.org", "@bob:example.org"
ROOM, OTHER_ROOM = "!room:example.org", "!other:example.org"

# The specification's example of an uploaded filter.
EXAMPLE = {
    "room": {
        "state": {"types": ["m.room.*"], "not_rooms": ["!726s6s6q:example.com"]},
        "timeline": {
            "limit": 10,
            "types": ["m.room.message"],
            "not_rooms": ["!726s6s6q:example.com"],
            "not_senders": ["@spam:example.com"],
        },
        "ephemeral": {
            "types": ["m.receipt", "m.typing"],
            "not_rooms": ["!726s6s6q:example.com"],
            "not_senders": ["@spam:example.com"],
        },
    },
    "presence": {"types": ["m.presence"], "not_senders": ["@alice:example.com"]},
    "event_format": "client",
    "event_fields": ["type", "content", "sender"],
}


def test_the_example_of_the_specification() -> None:
    parsed = Filter.parse(EXAMPLE)
    assert parsed.event_format is EventFormat.CLIENT
    assert parsed.event_fields == EventFields.compile(["type", "content", "sender"])
    assert parsed.presence == EventFilter(types=("m.presence",), not_senders=("@alice:example.com",))
    assert parsed.account_data == EventFilter()
    assert parsed.room.state == RoomEventFilter(types=("m.room.*",), not_rooms=("!726s6s6q:example.com",))
    assert parsed.room.timeline.limit == 10
    assert parsed.room.timeline.types == ("m.room.message",)
    assert parsed.room.ephemeral.types == ("m.receipt", "m.typing")
    assert parsed.room.account_data == RoomEventFilter()


def test_an_empty_filter_wants_everything() -> None:
    parsed = Filter.parse({})
    assert parsed == Filter()
    assert parsed.event_fields is None
    assert not parsed.room.include_leave
    assert parsed.room.allows_room(ROOM)
    assert parsed.presence.matches(event_type="m.presence", sender=ALICE)
    assert parsed.room.timeline.matches_in_room(event_type="m.x", sender=ALICE, room_id=ROOM, content={})


def test_every_member_is_read() -> None:
    event = {"limit": 5, "types": ["a"], "not_types": ["b"], "senders": [ALICE], "not_senders": [BOB]}
    room_event = {
        **event,
        "rooms": [ROOM],
        "not_rooms": [OTHER_ROOM],
        "contains_url": False,
        "lazy_load_members": True,
        "include_redundant_members": True,
        "unread_thread_notifications": True,
        "related_by_senders": [BOB],
        "related_by_rel_types": ["m.thread"],
    }
    plain = EventFilter(limit=5, types=("a",), not_types=("b",), senders=(ALICE,), not_senders=(BOB,))
    of_room = RoomEventFilter(
        limit=5,
        types=("a",),
        not_types=("b",),
        senders=(ALICE,),
        not_senders=(BOB,),
        rooms=(ROOM,),
        not_rooms=(OTHER_ROOM,),
        contains_url=False,
        lazy_load_members=True,
        include_redundant_members=True,
        unread_thread_notifications=True,
        related_by_senders=(BOB,),
        related_by_rel_types=("m.thread",),
    )
    room = {"rooms": [ROOM], "not_rooms": [OTHER_ROOM], "include_leave": True}
    kinds = ("ephemeral", "state", "timeline", "account_data")
    parsed = Filter.parse(
        {
            "event_format": "federation",
            "presence": event,
            "account_data": event,
            "room": {**room, **dict.fromkeys(kinds, room_event)},
        }
    )
    assert parsed == Filter(
        event_format=EventFormat.FEDERATION,
        presence=plain,
        account_data=plain,
        room=RoomFilter(
            rooms=(ROOM,),
            not_rooms=(OTHER_ROOM,),
            include_leave=True,
            ephemeral=of_room,
            state=of_room,
            timeline=of_room,
            account_data=of_room,
        ),
    )


def test_members_that_are_not_known_are_passed_over() -> None:
    assert Filter.parse({"org.example": 1, "room": {"org.example": None, "timeline": {"x": []}}}) == Filter()


@pytest.mark.parametrize(
    ("event_filter", "event_type", "sender", "wanted"),
    [
        ({"types": ["m.room.message"]}, "m.room.message", ALICE, True),
        ({"types": ["m.room.message"]}, "m.room.name", ALICE, False),
        ({"types": ["m.room.*"]}, "m.room.name", ALICE, True),
        ({"types": ["*.name"]}, "m.room.name", ALICE, True),
        ({"types": ["m.*.name"]}, "m.room.name", ALICE, True),
        ({"types": ["m.room.?ame"]}, "m.room.name", ALICE, False),
        ({"types": ["M.ROOM.NAME"]}, "m.room.name", ALICE, False),
        ({"types": ["m.room"]}, "m.room.name", ALICE, False),
        ({"types": []}, "m.room.name", ALICE, False),
        ({"not_types": ["m.room.name"]}, "m.room.name", ALICE, False),
        ({"not_types": ["*"]}, "m.room.name", ALICE, False),
        ({"not_types": ["m.room.?ame"]}, "m.room.name", ALICE, True),
        ({"not_types": []}, "m.room.name", ALICE, True),
        ({"types": ["m.room.name"], "not_types": ["m.room.*"]}, "m.room.name", ALICE, False),
        ({"senders": [ALICE]}, "m.room.name", ALICE, True),
        ({"senders": [ALICE]}, "m.room.name", BOB, False),
        ({"senders": []}, "m.room.name", ALICE, False),
        ({"senders": ["@*:example.org"]}, "m.room.name", ALICE, False),
        ({"not_senders": [ALICE]}, "m.room.name", ALICE, False),
        ({"not_senders": [ALICE]}, "m.room.name", BOB, True),
        ({"senders": [ALICE], "not_senders": [ALICE]}, "m.room.name", ALICE, False),
        ({"senders": [ALICE]}, "m.tag", None, False),
        ({"not_senders": [ALICE]}, "m.tag", None, True),
    ],
)
def test_types_and_senders(event_filter: Any, event_type: str, sender: str | None, wanted: bool) -> None:
    assert EventFilter.parse(event_filter).matches(event_type=event_type, sender=sender) is wanted
    in_room = RoomEventFilter.parse(event_filter)
    assert in_room.matches_in_room(event_type=event_type, sender=sender, room_id=ROOM, content={}) is wanted


@pytest.mark.parametrize(
    ("event_filter", "content", "wanted"),
    [
        ({"contains_url": True}, {"url": "mxc://a/b"}, True),
        ({"contains_url": True}, {"body": "url"}, False),
        ({"contains_url": False}, {"url": "mxc://a/b"}, False),
        ({"contains_url": False}, {}, True),
        ({"rooms": [ROOM]}, {}, True),
        ({"rooms": [OTHER_ROOM]}, {}, False),
        ({"rooms": []}, {}, False),
        ({"not_rooms": [ROOM]}, {}, False),
        ({"not_rooms": [OTHER_ROOM]}, {}, True),
        ({"rooms": [ROOM], "not_rooms": [ROOM]}, {}, False),
    ],
)
def test_rooms_and_urls(event_filter: Any, content: dict[str, Any], wanted: bool) -> None:
    parsed = RoomEventFilter.parse(event_filter)
    assert parsed.matches_in_room(event_type="m.x", sender=ALICE, room_id=ROOM, content=content) is wanted


@pytest.mark.parametrize(
    ("room_filter", "wanted"),
    [({"rooms": [ROOM]}, True), ({"rooms": []}, False), ({"not_rooms": [ROOM]}, False), ({}, True)],
)
def test_rooms_of_the_whole_filter(room_filter: Any, wanted: bool) -> None:
    assert RoomFilter.parse(room_filter).allows_room(ROOM) is wanted


def test_types_for_sql() -> None:
    parsed = EventFilter.parse({"types": ["m.room.*", r"a_b%c\d"], "not_types": ["*_x"]})
    assert parsed.types_like == ("m.room.%", r"a\_b\%c\\d")
    assert parsed.not_types_like == (r"%\_x",)
    assert EventFilter().types_like is None
    assert EventFilter().not_types_like == ()


@pytest.mark.parametrize(("limit", "expected"), [(None, 20), (0, 0), (5, 5), (100, 50), (2**53 - 1, 50)])
def test_limits(limit: int | None, expected: int) -> None:
    parsed = EventFilter.parse({} if limit is None else {"limit": limit})
    assert parsed.limit_within(default=20, maximum=50) == expected


WRONG_LISTS: list[Any] = [
    None,
    "m.room.message",
    {},
    7,
    [7],
    [None],
    [["m.room.message"]],
    ["a\0"],
    ["\ud800"],
    ["x" * (TEXT_LENGTH_MAX + 1)],
    ["x"] * (LIST_LENGTH_MAX + 1),
]


@pytest.mark.parametrize("wrong", WRONG_LISTS, ids=range(len(WRONG_LISTS)))
@pytest.mark.parametrize("name", ["types", "not_types", "senders", "not_senders", "rooms", "not_rooms"])
def test_wrong_lists(name: str, wrong: Any) -> None:
    with pytest.raises(BadJson):
        Filter.parse({"room": {"timeline": {name: wrong}}})


@pytest.mark.parametrize("wrong", WRONG_LISTS, ids=range(len(WRONG_LISTS)))
def test_wrong_event_fields(wrong: Any) -> None:
    with pytest.raises(BadJson):
        Filter.parse({"event_fields": wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"senders": ["alice"]},
        {"not_senders": ["!room:example.org"]},
        {"rooms": ["#alias:example.org"]},
        {"not_rooms": [""]},
        {"related_by_senders": ["alice"]},
        {"related_by_rel_types": "m.thread"},
        {"limit": -1},
        {"limit": 2**53},
        {"limit": 1.0},
        {"limit": float("nan")},
        {"limit": "10"},
        {"limit": True},
        {"limit": None},
        {"contains_url": 1},
        {"contains_url": None},
        {"lazy_load_members": "true"},
        {"include_redundant_members": 0},
        {"unread_thread_notifications": []},
    ],
)
def test_wrong_members(wrong: Any) -> None:
    with pytest.raises(BadJson):
        Filter.parse({"room": {"state": wrong}})


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "0",
        {"event_format": "raw"},
        {"event_format": None},
        {"event_format": ["client"]},
        {"room": []},
        {"room": None},
        {"presence": "all"},
        {"account_data": 1},
        {"room": {"timeline": []}},
        {"room": {"include_leave": "yes"}},
        {"room": {"rooms": ["room"]}},
    ],
)
def test_wrong_filters(wrong: Any) -> None:
    with pytest.raises(BadJson):
        Filter.parse(wrong)


names = st.sampled_from(
    ["room", "presence", "timeline", "state", "types", "senders", "rooms", "limit", "event_fields", "event_format"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
)


@given(values)
def test_any_json_is_a_filter_or_bad(json: Any) -> None:
    try:
        parsed = Filter.parse(json)
    except BadJson:
        return
    assert parsed.room.timeline.matches(event_type="m.x", sender=ALICE) in (True, False)
