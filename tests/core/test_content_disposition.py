"""Names of files in headers: https://www.rfc-editor.org/rfc/rfc6266."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.content_disposition import FILE_NAME_CHARACTERS_MAX, content_disposition, file_name_of


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (None, None),
        ("inline", None),
        ("inline; filename=a.txt", "a.txt"),
        ('attachment; filename="a b.txt"', "a b.txt"),
        ('ATTACHMENT ; FileName = "a\\"b\\\\c"', 'a"b\\c'),
        ("inline; filename*=UTF-8'en'%e2%82%ac%20rates", "€ rates"),
        ("inline; filename*=iso-8859-1''%A3", "£"),
        ("inline; filename=a; filename*=utf-8''b", "b"),
        ("inline; filename*=utf-8''%ff; filename=a", "a"),
        ("inline; filename*=klingon''b; filename=a", "a"),
        ("inline; size=5; filename=a", "a"),
        ("inline; filename=", None),
        ('inline; filename=""', None),
        ('inline; filename="unfinished', None),
        ("inline; nonsense; filename=a", None),
        ("inline; filename=Ã¼.txt", "ü.txt"),
        ("inline; filename=ü.txt", "ü.txt"),
        ('inline; filename="a\tb\x00c"', "abc"),
        (f"inline; filename={'n' * 5000}", "n" * FILE_NAME_CHARACTERS_MAX),
    ],
)
def test_what_others_say(header: str | None, name: str | None) -> None:
    assert file_name_of(header) == name


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=FILE_NAME_CHARACTERS_MAX))
def test_what_is_said_is_understood(name: str) -> None:
    header = content_disposition("image/png", name)
    header.encode("ascii")
    assert header.isprintable()
    assert file_name_of(header) == name


@given(st.text())
def test_whatever_is_said_can_be_read(header: str) -> None:
    name = file_name_of(header)
    assert name is None or 0 < len(name) <= FILE_NAME_CHARACTERS_MAX


@given(st.text(max_size=50))
def test_whatever_a_name_is_the_header_can_be_sent(name: str) -> None:
    header = content_disposition("text/html", name)
    assert header.startswith("attachment")
    assert header.isascii() and header.isprintable()  # noqa: PT018
