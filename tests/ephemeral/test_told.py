"""What other servers tell of presence and receipts is taken only where it is well-formed and about their own users."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.ids import ServerName
from homeserver.services.ephemeral.told_presence import STATUS_MSG_BYTES_MAX, parse_told_presence
from homeserver.services.ephemeral.told_receipts import parse_told_receipts
from tests.core.event_strategies import lenient_values

ORIGIN = ServerName("remote.test")
NOW_MS = 1_700_000_000_000


def presence(**members: Any) -> dict[str, Any]:
    return {"push": [{"user_id": "@u:remote.test", "presence": "online", **members}]}


def test_presence_of_the_servers_own_user() -> None:
    told = parse_told_presence(
        presence(last_active_ago=1000, currently_active=True, status_msg="Here"), origin=ORIGIN, now_ms=NOW_MS
    )
    (entry,) = told.values()
    assert entry.source.presence == "online"
    assert entry.source.currently_active is True
    assert (entry.last_active_ts, entry.status_msg) == (NOW_MS - 1000, "Here")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"push": {}},
        {"push": [None, 1, "x", []]},
        presence(user_id="@u:other.test"),
        presence(user_id="@u:remote.test:1"),
        presence(user_id=None),
        presence(presence="busy"),
        presence(presence=None),
    ],
)
def test_presence_that_is_passed_over(content: dict[str, Any]) -> None:
    assert parse_told_presence(content, origin=ORIGIN, now_ms=NOW_MS) == {}


@pytest.mark.parametrize("ago", [-1, 2**63, "1", 1.5, True, None, NOW_MS + 1])
def test_a_wrong_last_active_ago_is_no_activity(ago: Any) -> None:
    (entry,) = parse_told_presence(presence(last_active_ago=ago), origin=ORIGIN, now_ms=NOW_MS).values()
    assert entry.last_active_ts is None


@pytest.mark.parametrize("status_msg", ["", "a\x00b", "\ud800", 5, None, {}])
def test_a_wrong_status_msg_is_none(status_msg: Any) -> None:
    (entry,) = parse_told_presence(presence(status_msg=status_msg), origin=ORIGIN, now_ms=NOW_MS).values()
    assert entry.status_msg is None


def test_a_long_status_msg_is_cut_between_characters() -> None:
    (entry,) = parse_told_presence(presence(status_msg="ä" * 5000), origin=ORIGIN, now_ms=NOW_MS).values()
    assert entry.status_msg == "ä" * (STATUS_MSG_BYTES_MAX // 2)


@given(lenient_values)
def test_any_presence_is_read_without_failing(value: Any) -> None:
    parse_told_presence({"push": value}, origin=ORIGIN, now_ms=NOW_MS)
    parse_told_presence(presence(status_msg=value, last_active_ago=value), origin=ORIGIN, now_ms=NOW_MS)


def receipt(*, room: str = "!r:x", user: str = "@u:remote.test", data: Any = None, event_ids: Any = ("$a",)) -> Any:
    return {room: {"m.read": {user: {"data": {"ts": 5} if data is None else data, "event_ids": list(event_ids)}}}}


def test_a_receipt_of_the_servers_own_user() -> None:
    (one,) = parse_told_receipts(
        receipt(data={"ts": 5, "thread_id": "$root"}, event_ids=["$a", "$b"]), origin=ORIGIN, now_ms=NOW_MS
    )
    assert (one.room_id, one.user_id, one.thread_id) == ("!r:x", "@u:remote.test", "$root")
    assert (one.event_ids, one.receipt_ts) == (("$a", "$b"), 5)


@pytest.mark.parametrize(
    "content",
    [
        receipt(user="@u:other.test"),
        receipt(user="u"),
        receipt(room="r"),
        receipt(event_ids=[]),
        receipt(event_ids=[1]),
        receipt(event_ids=["$" + "x" * 300]),
        receipt(data=[]),
        receipt(data={"ts": 1, "thread_id": ""}),
        receipt(data={"ts": 1, "thread_id": "root"}),
        {"!r:x": {"m.read.private": {"@u:remote.test": {"data": {"ts": 1}, "event_ids": ["$a"]}}}},
        {"!r:x": []},
        {"!r:x": {"m.read": []}},
    ],
)
def test_a_receipt_that_is_passed_over(content: dict[str, Any]) -> None:
    assert parse_told_receipts(content, origin=ORIGIN, now_ms=NOW_MS) == []


@pytest.mark.parametrize("ts", [NOW_MS + 1, 2**70, -1, "5", None, True])
def test_a_receipt_is_never_from_the_future(ts: Any) -> None:
    (one,) = parse_told_receipts(receipt(data={"ts": ts}), origin=ORIGIN, now_ms=NOW_MS)
    assert one.receipt_ts == NOW_MS


@given(st.dictionaries(st.just("!r:x") | st.text(), lenient_values))
def test_any_receipts_are_read_without_failing(content: dict[str, Any]) -> None:
    parse_told_receipts(content, origin=ORIGIN, now_ms=NOW_MS)


@given(lenient_values)
def test_any_receipt_of_a_user_is_read_without_failing(value: Any) -> None:
    parse_told_receipts({"!r:x": {"m.read": {"@u:remote.test": value}}}, origin=ORIGIN, now_ms=NOW_MS)
