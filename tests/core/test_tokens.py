"""Tokens for syncing and paging."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.errors import InvalidParam
from homeserver.core.tokens import HistoryToken, NotificationToken, SyncToken, parse_history_or_sync

INT64_MAX = 2**63 - 1
naturals = st.integers(0, INT64_MAX)
history_tokens = st.builds(HistoryToken, st.integers(-INT64_MAX, INT64_MAX), naturals)


@given(st.builds(SyncToken, naturals))
def test_sync_tokens_round_trip(token: SyncToken) -> None:
    assert SyncToken.parse(token.format()) == parse_history_or_sync(token.format()) == token


@given(history_tokens)
def test_history_tokens_round_trip(token: HistoryToken) -> None:
    assert HistoryToken.parse(token.format()) == parse_history_or_sync(token.format()) == token
    assert re.fullmatch("[A-Za-z0-9_-]+", token.format())


@given(history_tokens, history_tokens)
def test_history_tokens_are_ordered_like_history(one: HistoryToken, other: HistoryToken) -> None:
    assert (one < other) == ((one.topological, one.event_nid) < (other.topological, other.event_nid))


@given(st.builds(NotificationToken, naturals))
def test_notification_tokens_round_trip(token: NotificationToken) -> None:
    assert NotificationToken.parse(token.format()) == token
    for other in (token.format().replace("n", "s"), f"{token.format()}_1", token.format()[1:], token.event_nid):
        with pytest.raises(InvalidParam):
            NotificationToken.parse(other)


def test_the_text_of_tokens() -> None:
    assert SyncToken(0).format() == "s0"
    assert SyncToken(72594).format() == "s72594"
    assert HistoryToken(-3, 17).format() == "t-3_17"
    assert NotificationToken(17).format() == "n17"


GARBAGE: list[Any] = [
    None,
    5,
    b"s1",
    ["s1"],
    "",
    "s",
    "t",
    "s1 ",
    " s1",
    "s1\n",
    "S1",
    "s-1",
    "s+1",
    "s01",
    "s1_2",
    "s1.0",
    "s٣",
    "s²",
    "s1\0",
    "s\ud800",
    f"s{INT64_MAX + 1}",
    "s" + "9" * 5_000,
    "t1",
    "t_1",
    "t1_",
    "t-0_1",
    "t1_-1",
    "t01_1",
    "t1_01",
    "t--1_1",
    "t1_2_3",
    "t1_2\n",
    f"t{INT64_MAX + 1}_0",
    f"t-{INT64_MAX + 1}_0",
    f"t0_{INT64_MAX + 1}",
    "x1",
    "1",
]


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_is_refused(text: Any) -> None:
    for parse in (SyncToken.parse, HistoryToken.parse, parse_history_or_sync):
        with pytest.raises(InvalidParam):
            parse(text)


@given(st.text() | st.from_regex(r"[st]-?[0-9]{0,25}(_-?[0-9]{0,25})?", fullmatch=True))
def test_a_token_has_one_text(text: str) -> None:
    try:
        token = parse_history_or_sync(text)
    except InvalidParam:
        return
    assert token.format() == text


def test_one_kind_is_not_the_other() -> None:
    with pytest.raises(InvalidParam):
        SyncToken.parse("t1_2")
    with pytest.raises(InvalidParam):
        HistoryToken.parse("s1")
