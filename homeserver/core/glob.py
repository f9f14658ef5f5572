"""Glob-style patterns, compiled into values that match in linear time whatever the pattern and the text are.

There is no regular expression behind them, for patterns come from users and from other servers. A pattern is cut at its
stars into segments of fixed length, and each segment is searched once, from left to right, where the one before ended:
the first place is as good as any later one. Pieces without `?` are searched by `str.find`; where that is not enough,
all possible places are followed at the same time, one bit for each character of the segment.

https://spec.matrix.org/v1.19/appendices/#glob-style-matching
"""

from collections.abc import Iterable
from dataclasses import dataclass
from string import ascii_letters, digits
from typing import Final

_WORD_CHARACTERS: Final = frozenset(ascii_letters + digits + "_")


def fold_case(text: str) -> str:
    """Makes texts that differ in case alone equal, character by character."""
    return text.lower() if text.isascii() else text.lower().replace("ς", "σ")


def is_word_boundary(text: str, index: int) -> bool:
    """Whether a word may start or end before the character at `index`: not between two of `A-Z a-z 0-9 _`."""
    if index in (0, len(text)):
        return True
    return not (text[index - 1] in _WORD_CHARACTERS and text[index] in _WORD_CHARACTERS)


@dataclass(frozen=True, slots=True)
class _Segment:
    """What stands between two stars: pieces of text at their offsets, and `?` everywhere else."""

    length: int
    pieces: tuple[tuple[int, str], ...]

    @classmethod
    def compile(cls, text: str, *, question_mark: bool) -> "_Segment":
        pieces = []
        offset = 0
        for piece in text.split("?") if question_mark else (text,):
            if piece:
                pieces.append((offset, piece))
            offset += len(piece) + 1
        return cls(length=len(text), pieces=tuple(pieces))

    def stands_at(self, text: str, start: int) -> bool:
        """Whether the segment matches from `start` on; there are at least `length` characters."""
        return all(text.startswith(piece, start + offset) for offset, piece in self.pieces)

    def find(
        self, text: str, start: int, end: int, *, starts_word: bool = False, ends_word: bool = False
    ) -> int | None:
        """Where the first match within `start` and `end` ends; None if there is none.

        `starts_word` and `ends_word` ask that it does so at a word boundary.
        """
        for offset, piece in self.pieces:
            found = text.find(piece, start + offset, end)
            if found < 0:
                return None
            start = found - offset
        stop = start + self.length
        if stop > end:
            return None
        if (
            self.stands_at(text, start)
            and not (starts_word and not is_word_boundary(text, start))
            and not (ends_word and not is_word_boundary(text, stop))
        ):
            return stop
        return self._scan(text, start, end, starts_word=starts_word, ends_word=ends_word)

    def _scan(self, text: str, start: int, end: int, *, starts_word: bool, ends_word: bool) -> int | None:
        """`find()` for every text: bit n of `begun` says that the last n + 1 characters match the segment's first."""
        any_character = (1 << self.length) - 1
        for offset, piece in self.pieces:
            any_character ^= ((1 << len(piece)) - 1) << offset
        fits: dict[str, int] = {}
        for offset, piece in self.pieces:
            for index, character in enumerate(piece, offset):
                fits[character] = fits.get(character, any_character) | (1 << index)
        complete = 1 << (self.length - 1)
        begun = 0
        for index in range(start, end):
            begun <<= 1
            if not starts_word or is_word_boundary(text, index):
                begun |= 1
            begun &= fits.get(text[index], any_character)
            if begun & complete and (not ends_word or is_word_boundary(text, index + 1)):
                return index + 1
        return None


@dataclass(frozen=True, slots=True)
class Glob:
    """A compiled pattern. Compiling takes time in proportion to the pattern; keep the value where it is used again."""

    ignore_case: bool
    length_min: int
    """How many characters a text must have to match at all."""
    _segments: tuple[_Segment, ...]

    @classmethod
    def compile(cls, pattern: str, *, ignore_case: bool = False, question_mark: bool = True) -> "Glob":
        """Compiles a pattern; every string is one.

        Args:
            pattern: `*` stands for any number of characters, `?` for exactly one.
            ignore_case: letters match in either case.
            question_mark: False where `?` has no special meaning, as in filters.
        """
        first, *others = (fold_case(pattern) if ignore_case else pattern).split("*")
        texts = [first, *(text for text in others[:-1] if text), *others[-1:]]
        segments = tuple(_Segment.compile(text, question_mark=question_mark) for text in texts)
        return cls(ignore_case=ignore_case, length_min=sum(each.length for each in segments), _segments=segments)

    def matches(self, text: str) -> bool:
        """Whether the pattern matches the whole text."""
        if self.ignore_case:
            text = fold_case(text)
        if len(text) < self.length_min:
            return False
        first, *others = self._segments
        if not others:
            return len(text) == first.length and first.stands_at(text, 0)
        last = others.pop()
        end = len(text) - last.length
        if not (first.stands_at(text, 0) and last.stands_at(text, end)):
            return False
        return _find_in_order(others, text, first.length, end) is not None

    def matches_words(self, text: str) -> bool:
        """Whether the pattern matches a part of the text that starts and ends at a word boundary."""
        if self.ignore_case:
            text = fold_case(text)
        if len(text) < self.length_min:
            return False
        first, *others = self._segments
        position = first.find(text, 0, len(text), starts_word=True, ends_word=not others)
        if position is None or not others:
            return position is not None
        last = others.pop()
        position = _find_in_order(others, text, position, len(text))
        if position is None:
            return False
        return not last.length or last.find(text, position, len(text), ends_word=True) is not None


def _find_in_order(segments: list[_Segment], text: str, start: int, end: int) -> int | None:
    """Where the last of the segments ends if they stand one after the other, anything between; None if they do not."""
    position: int | None = start
    for segment in segments:
        if position is None:
            break
        position = segment.find(text, position, end)
    return position


def contains_words(text: str, words: str) -> bool:
    """Whether `words`, taken as they are, stand in the text from a word boundary to a word boundary.

    Both must have been folded if their case does not matter. Empty `words` stand nowhere.
    """
    segment = _Segment(length=len(words), pieces=((0, words),))
    return bool(words) and segment.find(text, 0, len(text), starts_word=True, ends_word=True) is not None


@dataclass(frozen=True, slots=True)
class GlobSet:
    """Many patterns, any of which may match; the usual simple ones are answered together."""

    ignore_case: bool
    _exact: frozenset[str]
    _starts: tuple[str, ...]
    _ends: tuple[str, ...]
    _globs: tuple[Glob, ...]

    @classmethod
    def compile(cls, patterns: Iterable[str], *, ignore_case: bool = False, question_mark: bool = True) -> "GlobSet":
        """Compiles patterns; the arguments are those of `Glob.compile`."""
        exact, starts, ends, globs = set(), set(), set(), []
        for pattern in sorted({fold_case(each) if ignore_case else each for each in patterns}):
            stars = pattern.count("*")
            if (question_mark and "?" in pattern) or stars > 1 or (stars == 1 and "*" not in (pattern[0], pattern[-1])):
                globs.append(Glob.compile(pattern, question_mark=question_mark))
            elif not stars:
                exact.add(pattern)
            elif pattern.startswith("*"):
                ends.add(pattern[1:])
            else:
                starts.add(pattern[:-1])
        return cls(
            ignore_case=ignore_case,
            _exact=frozenset(exact),
            _starts=tuple(sorted(starts)),
            _ends=tuple(sorted(ends)),
            _globs=tuple(globs),
        )

    def matches(self, text: str) -> bool:
        """Whether at least one of the patterns matches the whole text."""
        if self.ignore_case:
            text = fold_case(text)
        return (
            text in self._exact
            or text.startswith(self._starts)
            or text.endswith(self._ends)
            or any(glob.matches(text) for glob in self._globs)
        )
