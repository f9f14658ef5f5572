"""The grammars of identifiers (appendices, "Identifier Grammar")."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.errors import InvalidParam
from homeserver.core.ids import DeviceId, EventId, MxcUri, RoomAlias, RoomId, ServerName, UserId

PARSERS: list[Callable[[object], str]] = [
    DeviceId.parse,
    EventId.parse,
    MxcUri.parse,
    RoomAlias.parse,
    RoomId.parse,
    ServerName.parse,
    UserId.parse,
]

SERVER_NAMES = {
    "matrix.org": ("matrix.org", None),
    "matrix.org:8888": ("matrix.org", 8888),
    "1.2.3.4": ("1.2.3.4", None),
    "1.2.3.4:1234": ("1.2.3.4", 1234),
    "[1234:5678::abcd]": ("[1234:5678::abcd]", None),
    "[1234:5678::abcd]:5678": ("[1234:5678::abcd]", 5678),
    "[::]": ("[::]", None),
    "[::ffff:1.2.3.4]:1": ("[::ffff:1.2.3.4]", 1),
    "localhost": ("localhost", None),
    "MATRIX.org": ("MATRIX.org", None),
    "x:0": ("x", 0),
    "x:65535": ("x", 65535),
    "x:00080": ("x", 80),
    "a" * 255: ("a" * 255, None),
}

NO_SERVER_NAMES = [
    "",
    ":",
    ":8448",
    "x:",
    "x:65536",
    "x:99999",
    "x:123456",
    "x:-1",
    "x:8a",
    "x:٣",
    "x:1:2",
    "x y",
    "x_y",
    "x/y",
    "exämple.org",
    "x\n",
    "x\0",
    "\ud800",
    "@a:x",
    "https://x",
    "1234:5678::abcd",
    "[]",
    "[:]",
    "[:::]",
    "[1:2:3:4:5:6:7:8:9]",
    "[::1%eth0]",
    "[::1",
    "::1]",
    "[1.2.3.4]",
    "[::g]",
    "[::1]x",
    "[::1]:",
    "[::1]:65536",
    "a" * 256,
    "x]:1",
]


@pytest.mark.parametrize(("text", "parts"), SERVER_NAMES.items())
def test_server_names(text: str, parts: tuple[str, int | None]) -> None:
    name = ServerName.parse(text)
    assert name == text
    assert (name.host, name.port) == parts


@pytest.mark.parametrize("text", NO_SERVER_NAMES)
def test_what_is_no_server_name_is_none_in_any_identifier(text: str) -> None:
    with pytest.raises(InvalidParam):
        ServerName.parse(text)
    for parse, identifier in (
        (UserId.parse, f"@a:{text}"),
        (RoomAlias.parse, f"#a:{text}"),
        (RoomId.parse, f"!a:{text}"),
        (MxcUri.parse, f"mxc://{text}/a"),
    ):
        with pytest.raises(InvalidParam):
            parse(identifier)


@pytest.mark.parametrize(
    "text", ["@alice:example.org", "@a.b_c=d-e/f+g:x", "@:x", "@Ünïcode 😀 \n:x:80", "@@:x", "@!$#:x"]
)
def test_historical_user_ids_are_accepted(text: str) -> None:
    user_id = UserId.parse(text)
    assert f"@{user_id.localpart}:{user_id.server_name}" == user_id == text


@pytest.mark.parametrize("text", ["", "@", "@a", "@a:", "alice:example.org", "#a:x", "@\0:x", "@\ud800:x", "@a:b:c"])
def test_wrong_user_ids(text: str) -> None:
    with pytest.raises(InvalidParam):
        UserId.parse(text)


@pytest.mark.parametrize("localpart", ["", "A", "é", "a b", "a:b", "a\n", "a@", "*", "\0", "x" * 300])
def test_new_users_get_only_the_modern_grammar(localpart: str) -> None:
    with pytest.raises(InvalidParam):
        UserId.make(localpart, ServerName("example.org"))


def test_new_users() -> None:
    assert UserId.make("a.b_c=d-e/f+9", ServerName("example.org:80")) == "@a.b_c=d-e/f+9:example.org:80"


@pytest.mark.parametrize(
    ("text", "server_name"),
    [
        ("!abc123:matrix.org", "matrix.org"),
        ("!é \n!:x:80", "x:80"),
        ("!a:[::1]:80", "[::1]:80"),
        ("!Nhcu5BS-UMnFX7hBVfVSoXiD7OgH6iRT-xyIuqDnpYQ", None),
        ("!" + "_" * 43, None),
    ],
)
def test_room_ids(text: str, server_name: str | None) -> None:
    assert RoomId.parse(text).server_name == server_name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!",
        "!:x",
        "!a",
        "!" + "r" * 42,
        "!" + "r" * 44,
        "!" + "r" * 42 + "/",
        "!" + "r" * 42 + "é",
        "#a:x",
        "!a\0:x",
    ],
)
def test_wrong_room_ids(text: str) -> None:
    with pytest.raises(InvalidParam):
        RoomId.parse(text)


@pytest.mark.parametrize(
    ("text", "server_name"),
    [
        ("$a:example.org", "example.org"),
        ("$a:x:80", "x:80"),
        ("$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk", None),
        ("$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg", None),
        ("$a:", None),
        ("$a:x y", None),
    ],
)
def test_event_ids(text: str, server_name: str | None) -> None:
    assert EventId.parse(text).server_name == server_name


@pytest.mark.parametrize("text", ["", "$", "a", "@a:x", "$\0", "$\ud800", "$" + "x" * 255])
def test_wrong_event_ids(text: str) -> None:
    with pytest.raises(InvalidParam):
        EventId.parse(text)


@pytest.mark.parametrize("text", ["#a:x", "#é 😀\n#:x:80"])
def test_room_aliases(text: str) -> None:
    alias = RoomAlias.parse(text)
    assert f"#{alias.localpart}:{alias.server_name}" == text


@pytest.mark.parametrize("text", ["", "#", "#:x", "#a", "a:x", "#a\0:x", "#a:b:c"])
def test_wrong_room_aliases(text: str) -> None:
    with pytest.raises(InvalidParam):
        RoomAlias.parse(text)


def test_content_uris() -> None:
    uri = MxcUri.parse("mxc://[::1]:80/AQwafuaFswefuhsfAFAgsw_-")
    assert (uri.server_name, uri.media_id) == ("[::1]:80", "AQwafuaFswefuhsfAFAgsw_-")


@pytest.mark.parametrize(
    "text",
    ["", "mxc://", "mxc://x", "mxc://x/", "mxc:///a", "mxc://x/a/b", "mxc://x/../a", "mxc://x/é", "http://x/a", "x/a"],
)
def test_wrong_content_uris(text: str) -> None:
    with pytest.raises(InvalidParam):
        MxcUri.parse(text)


def test_device_ids() -> None:
    assert DeviceId.parse("Ünïcode 😀") == "Ünïcode 😀"
    for wrong in ("", "a\0", "\ud800", "x" * 256):
        with pytest.raises(InvalidParam):
            DeviceId.parse(wrong)


@pytest.mark.parametrize(
    ("parse", "start", "end"),
    [
        (UserId.parse, "@", ":example.org"),
        (RoomAlias.parse, "#", ":example.org"),
        (RoomId.parse, "!", ":example.org"),
        (EventId.parse, "$", ":example.org"),
        (DeviceId.parse, "", ""),
    ],
)
def test_identifiers_have_at_most_255_bytes(parse: Callable[[object], str], start: str, end: str) -> None:
    left = 255 - len(start) - len(end)
    for fits in ("x" * left, "é" * (left // 2)):
        assert parse(start + fits + end) == start + fits + end
    for too_long in ("x" * (left + 1), "é" * (left // 2 + 1)):
        with pytest.raises(InvalidParam):
            parse(start + too_long + end)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("value", [None, 5, 1.5, True, b"@a:x", [], {}, ["@a:x"]])
def test_only_strings_are_identifiers(parse: Callable[[object], str], value: Any) -> None:
    with pytest.raises(InvalidParam):
        parse(value)


@given(st.text(), st.sampled_from(["", "@", "#", "!", "$", "mxc://"]))
def test_every_text_is_an_identifier_or_is_refused(text: str, sigil: str) -> None:
    for parse in PARSERS:
        try:
            identifier = parse(sigil + text)
        except InvalidParam:
            continue
        assert identifier == sigil + text
        assert len(identifier.encode()) <= 255
        assert "\0" not in identifier
