"""No request whatsoever may be answered with an internal error, or be left without an answer."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.web.example_sections import Witness, access_section, echo_section
from tests.web.harness import web

printable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30)
latin = st.text(st.characters(max_codepoint=0xFF, exclude_characters="\r\n\0"), max_size=30)
methods = st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "X"])
prefixes = st.sampled_from(
    [
        "/_matrix/client/v3/rooms/!r/send/m.room.message/",
        "/_matrix/client/v3/rooms/",
        "/_matrix/client/v3/login",
        "/_matrix/client/v3/access/user?",
        "/_matrix/federation/v1/send/",
        "/",
        "",
    ]
)
json_bodies = st.sampled_from([b"", b"{}", b"[]", b'{"type":1}', b'{"type":"\\u0000"}', b"[" * 5000, b'{"a":1e400}'])
header_names = st.sampled_from(
    ["authorization", "content-type", "content-length", "x-forwarded-for", "x-request-id", "transfer-encoding"]
)


@settings(max_examples=300, deadline=None)
@given(
    method=methods,
    prefix=prefixes,
    rest=printable,
    body=st.binary(max_size=100) | json_bodies,
    token=st.none() | st.sampled_from(["alice", "guest", "locked", "bridge", ""]),
    headers=st.dictionaries(header_names, latin, max_size=4),
)
@example(method="GET", prefix="", rest="?", body=b"", token=None, headers={})
@example(method="GET", prefix="", rest="http://[", body=b"", token=None, headers={})
@example(method="GET", prefix="", rest="http://[/", body=b"", token=None, headers={})
@example(method="GET", prefix="", rest="//", body=b"", token=None, headers={"content-length": "1e9"})
@example(method="PUT", prefix="/", rest="?" + "&" * 2000, body=b"", token=None, headers={})
async def test_no_request_is_an_internal_error(
    method: str, prefix: str, rest: str, body: bytes, token: str | None, headers: dict[str, str]
) -> None:
    async with web(echo_section(Witness()), access_section(Witness())) as site:
        reply = await site.call(method, prefix + rest, body=body, token=token, headers=headers, peer="10.0.0.1")
    assert 200 <= reply.status < 500
    if reply.status >= 400 and method != "HEAD":
        assert reply.json["errcode"].startswith("M_")
