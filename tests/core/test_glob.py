"""Globs: compared with a simple backtracking matcher, and fed with patterns that are made to take long."""

import time
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homeserver.core.glob import Glob, GlobSet, contains_words, fold_case, is_word_boundary

SECONDS_MAX = 5
"""Far more than what linear matching needs for the texts below, far less than what backtracking would."""

texts = st.text(alphabet="aab -", max_size=12)
patterns = st.text(alphabet="aab -*?", max_size=8)


def oracle(pattern: str, text: str) -> bool:
    """Whether the pattern matches the text, tried in every way."""

    @cache
    def matches(in_pattern: int, in_text: int) -> bool:
        if in_pattern == len(pattern):
            return in_text == len(text)
        character = pattern[in_pattern]
        if character == "*":
            return any(matches(in_pattern + 1, later) for later in range(in_text, len(text) + 1))
        return in_text < len(text) and character in ("?", text[in_text]) and matches(in_pattern + 1, in_text + 1)

    return matches(0, 0)


def words_oracle(pattern: str, text: str) -> bool:
    """Whether the pattern matches any part of the text between two word boundaries."""
    boundaries = [index for index in range(len(text) + 1) if is_word_boundary(text, index)]
    return any(oracle(pattern, text[start:end]) for start in boundaries for end in boundaries if start <= end)


@given(pattern=patterns, text=texts)
@example(pattern="", text="")
@example(pattern="*", text="")
@example(pattern="a*a", text="a")
@example(pattern="*a?b*", text="aab aaab")
@example(pattern="*a?*b", text="bab")
def test_whole_texts_match_as_if_everything_had_been_tried(pattern: str, text: str) -> None:
    assert Glob.compile(pattern).matches(text) == oracle(pattern, text)


@given(pattern=patterns, text=texts)
@example(pattern="a?", text="aa ab a-")
@example(pattern="a", text="aa a")
@example(pattern="-a-a", text="-a-a-aa-a-a")
@example(pattern="", text="aa")
def test_words_match_as_if_everything_had_been_tried(pattern: str, text: str) -> None:
    assert Glob.compile(pattern).matches_words(text) == words_oracle(pattern, text)


@given(text=texts, words=st.text(alphabet="ab -*?", min_size=1, max_size=4))
def test_words_that_are_no_pattern_are_taken_as_they_are(text: str, words: str) -> None:
    starts = [index for index in range(len(text)) if text.startswith(words, index)]
    expected = any(is_word_boundary(text, start) and is_word_boundary(text, start + len(words)) for start in starts)
    assert contains_words(text, words) == expected


def test_empty_words_stand_nowhere() -> None:
    assert not contains_words("", "")
    assert not contains_words("a b", "")


@given(pattern_list=st.lists(patterns, max_size=5), text=texts, ignore_case=st.booleans())
def test_a_set_matches_if_one_of_its_patterns_does(pattern_list: list[str], text: str, ignore_case: bool) -> None:
    globs = [Glob.compile(pattern, ignore_case=ignore_case) for pattern in pattern_list]
    globset = GlobSet.compile(pattern_list, ignore_case=ignore_case)
    assert globset.matches(text) == any(glob.matches(text) for glob in globs)


@given(pattern=st.text(max_size=8), text=st.text(max_size=12))
def test_no_character_has_a_meaning_but_the_two(pattern: str, text: str) -> None:
    plain = pattern.replace("*", "").replace("?", "")
    assert Glob.compile(plain).matches(plain)
    assert Glob.compile(plain).matches(text) == (plain == text)


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("lunc?*", "Lunch plans", True),
        ("lunc?*", "LUNCH", True),
        ("lunc?*", " lunch", False),
        ("lunc?*", "lunc", False),
        (".*", "anything", False),
        ("[a-z]", "b", False),
        ("a\nb", "a\nb", True),
        ("a?b", "a\nb", True),
        ("ΣΊΣΥΦΟΣ", "σίσυφος", True),
        ("*Σ", "Οδος", True),
        ("ÉCOLE", "école", True),
        ("?", "👍", True),
    ],
)
def test_examples_without_regard_to_case(pattern: str, text: str, matches: bool) -> None:
    assert Glob.compile(pattern, ignore_case=True).matches(text) is matches


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("ex*ple", "An example event.", True),
        ("ex*ple", "exple", True),
        ("ex*ple", "An exciting triple-whammy", True),
        ("ex*ple", "an unexampled event", False),
        ("cake", "cake_walk", False),
        ("cake", "cake2", False),
        ("cake", "I like (cake)", True),
        ("cake", "cakécake", True),
        ("test", "ütest", True),
        ("@room", "hi@room: come", True),
        ("тест", "это тест", True),
        ("*", "", True),
    ],
)
def test_examples_of_words(pattern: str, text: str, matches: bool) -> None:
    assert Glob.compile(pattern, ignore_case=True).matches_words(text) is matches


def test_case_counts_unless_it_is_told_not_to() -> None:
    assert not Glob.compile("A*").matches("ab")
    assert not GlobSet.compile(["A*"]).matches("ab")
    assert fold_case("ÄΣ") == fold_case("äς") == fold_case("äσ")


def test_a_question_mark_can_be_an_ordinary_character() -> None:
    glob = Glob.compile("a?*", question_mark=False)
    assert glob.matches("a?b")
    assert not glob.matches("acb")
    assert GlobSet.compile(["a?"], question_mark=False).matches("a?")
    assert not GlobSet.compile(["a?"], question_mark=False).matches("ab")


LONG = 65_000


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("a*" * 250 + "b", "a" * LONG),
        ("*a" * 250 + "b*", "a" * LONG),
        ("*" + "a?" * 250 + "b*", "a" * LONG + "b" + "a" * LONG),
        ("*" + "?a" * 250 + "b*", "ab" * (LONG // 2)),
        ("a" * 500, "a" * LONG),
        ("-aa" * 100 + "-a", "-aa" * (LONG // 3)),
        ("?" * 500, "a" * LONG),
        ("*" + "?" * 500 + "b", "a" * LONG),
        ("*" * 100_000 + "b", "a" * LONG),
        ("a" * 250 + "?" + "b" * 250, "a" * LONG + "b" * 100),
    ],
    ids=range(10),
)
def test_s15_no_pattern_takes_long(pattern: str, text: str) -> None:
    """S15: patterns come from users and other servers, so no pattern may keep the server busy."""
    started = time.process_time()
    glob = Glob.compile(pattern, ignore_case=True)
    glob.matches(text)
    glob.matches_words(text)
    contains_words(text, pattern)
    assert time.process_time() - started < SECONDS_MAX
