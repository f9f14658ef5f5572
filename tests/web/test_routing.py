"""Finding endpoints by method and path."""

from dataclasses import dataclass
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.errors import InvalidParam, Unrecognized
from homeserver.web.errors import MethodNotAllowed
from homeserver.web.routing import Router, parse_query, path_parameters

STATE = "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/{state_key:path}"


@dataclass(frozen=True)
class Target:
    """Something to be routed to."""

    name: str
    method: str
    paths: tuple[str, ...]


def router(*targets: tuple[str, str] | tuple[str, str, str]) -> Router[Target]:
    """A router over (method, path, alias...), each named by its path."""
    return Router([Target(paths[0], method, paths) for method, *rest in targets for paths in [tuple(rest)]])


def test_written_out_segments_go_before_parameters() -> None:
    found = router(("GET", "/rooms/{room_id}"), ("GET", "/rooms/public"), ("GET", "/rooms/{room_id}/state"))
    assert found.find("GET", "/rooms/public")[0].name == "/rooms/public"
    assert found.find("GET", "/rooms/private") == (found.find("GET", "/rooms/x")[0], {"room_id": "private"})
    assert found.find("GET", "/rooms/public/state")[1] == {"room_id": "public"}


def test_another_method_of_a_parameter_path_is_found_behind_a_written_out_one() -> None:
    found = router(("GET", "/rooms/public"), ("PUT", "/rooms/{room_id}"))
    assert found.find("PUT", "/rooms/public")[1] == {"room_id": "public"}


def test_unknown_paths_and_wrong_methods() -> None:
    found = router(("GET", "/a/{b}"), ("PUT", "/a/{b}"), ("POST", "/a/{b:path}"))
    with pytest.raises(Unrecognized) as unknown:
        found.find("GET", "/b/x")
    assert unknown.value.status == 404
    with pytest.raises(MethodNotAllowed) as wrong:
        found.find("DELETE", "/a/x")
    assert (wrong.value.status, wrong.value.errcode) == (405, "M_UNRECOGNIZED")
    assert wrong.value.allowed == {"GET", "PUT", "POST"}


@pytest.mark.parametrize("path", ["/a/", "/a", "/a/x/", "//a/x", "/a//", "", "*", "/A/x", "/a/x/y"])
def test_slashes_are_not_forgiven(path: str) -> None:
    with pytest.raises(Unrecognized):
        router(("GET", "/a/{b}")).find("GET", path)


def test_a_trailing_slash_that_is_declared_counts() -> None:
    found = router(("GET", "/a/"), ("GET", "/b", "/b/"))
    assert found.find("GET", "/a/")[0].name == "/a/"
    with pytest.raises(Unrecognized):
        found.find("GET", "/a")
    assert found.find("GET", "/b/")[0] is found.find("GET", "/b")[0]


@pytest.mark.parametrize(
    ("path", "state_key"),
    [
        ("/m.room.name", ""),
        ("/m.room.name/", ""),
        ("/m.room.member/%40a%3Ab", "@a:b"),
        ("/m.room.x/a/b//c/", "a/b//c/"),
        ("/m.room.x/a%2Fb", "a/b"),
    ],
)
def test_a_last_parameter_takes_the_rest(path: str, state_key: str) -> None:
    _, parameters = router(("GET", STATE)).find("GET", "/_matrix/client/v3/rooms/!r/state" + path)
    assert parameters == {"room_id": "!r", "event_type": path.split("/")[1], "state_key": state_key}


def test_head_is_get() -> None:
    assert router(("GET", "/a")).find("HEAD", "/a")[0].method == "GET"


def test_an_encoded_slash_stays_in_its_segment() -> None:
    found = router(("GET", "/rooms/{room_id}/send/{txn_id}"))
    assert found.find("GET", "/rooms/%21a%2Fb%3Ac/send/%E2%82%AC+1")[1] == {"room_id": "!a/b:c", "txn_id": "€+1"}


@pytest.mark.parametrize("segment", ["%", "%2", "%zz", "%ff", "%c3%28", "%ed%a0%80", "%00", "a%00b", "é"])
def test_wrongly_encoded_segments_are_refused(segment: str) -> None:
    with pytest.raises(InvalidParam):
        router(("GET", "/a/{b}")).find("GET", f"/a/{segment}")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_every_text_passes_through_a_segment(text: str) -> None:
    assert router(("GET", "/a/{b}/c")).find("GET", f"/a/{quote(text, safe='')}/c")[1] == {"b": text}


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_no_path_does_worse_than_an_error(path: str) -> None:
    found = router(("GET", "/a/{b}/c"), ("GET", "/a/{b:path}"), ("PUT", "/{x}/{y}"))
    try:
        target, _ = found.find("GET", "/" + path)
    except (Unrecognized, InvalidParam):
        return
    assert target.method == "GET"


def test_contradictions_are_refused_at_once() -> None:
    for targets in (
        [("GET", "/a/{b}"), ("GET", "/a/{c}")],
        [("GET", "/a/{b}", "/b/{c}")],
        [("GET", "/a/{b:path}/c")],
        [("GET", "/a/{b}/{b}")],
        [("GET", "/a/x{b}")],
        [("GET", "a")],
    ):
        with pytest.raises(ValueError, match=r"."):
            router(*targets)


def test_parameters_of_a_path_in_order() -> None:
    assert path_parameters(STATE) == ("room_id", "event_type", "state_key")


def test_queries() -> None:
    assert parse_query("") == {}
    assert parse_query("a=1&b=&c&a=2&&d=x%26y+z%2B=") == {
        "a": ["1", "2"],
        "b": [""],
        "c": [""],
        "d": ["x&y z+="],
    }


@pytest.mark.parametrize("query", ["a=%", "a=%ff", "%zz=1", "a=%00", "a=é", "&".join(["a=1"] * 1001)])
def test_wrong_queries_are_refused(query: str) -> None:
    with pytest.raises(InvalidParam):
        parse_query(query)
