"""The `Authorization` header of servers, and what its signature covers."""

import secrets
from contextlib import suppress
from string import ascii_letters, digits, printable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.wire.x_matrix import CREDENTIALS_MAX, XMatrix, parse_authorization, signed_bytes
from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import Unauthorized
from homeserver.core.ids import ServerName
from homeserver.core.signing import SigningKey, sign_json

A, B = ServerName.parse("a.example"), ServerName.parse("b.example:8448")
KEY = SigningKey.from_seed("1", secrets.token_bytes(32))

names = st.sampled_from([A, B, ServerName.parse("[::1]:80"), ServerName.parse("1.2.3.4")])
texts = st.text(printable.replace("\n", "").replace("\r", "").replace("\x0b", "").replace("\x0c", ""), max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.builds(XMatrix, origin=names, destination=st.none() | names, key_id=texts, signature=texts))
def test_what_is_written_can_be_read(credentials: XMatrix) -> None:
    assert parse_authorization(credentials.format()) == (credentials,)


@given(st.lists(st.builds(XMatrix, origin=names, destination=names, key_id=texts, signature=texts), max_size=5))
def test_several_headers(credentials: list[XMatrix]) -> None:
    assert parse_authorization(", ".join(each.format() for each in credentials)) == tuple(credentials)


@given(st.text(max_size=60) | st.text('X-Matrix origin=key,sig" \\\t:=', max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(Unauthorized):
        parse_authorization(text)


def test_as_others_write_it() -> None:
    credentials = XMatrix(A, B, "ed25519:1", "c2ln")
    for header in (
        'X-Matrix origin="a.example",destination="b.example:8448",key="ed25519:1",sig="c2ln"',
        "X-Matrix origin=a.example,destination=b.example:8448,key=ed25519:1,sig=c2ln",
        'x-matrix   SIG="c2ln" , Key="ed25519:1"\t,\tOrigin=a.example,  destination="b.example:8448"',
        'X-Matrix origin="a.example",o="x, X-Matrix y=\\"z\\"",destination="b.example:8448",key="ed25519:1",sig=c2ln',
        'X-Matrix origin="a.\\example",destination="b.example:8448",key="ed25519:1",sig="c2\\ln"',
        'Basic dXNlcjpw==, X-Matrix origin=a.example,destination=b.example:8448,key=ed25519:1,sig="c2ln", Other a=b',
        'X-Matrix origin=a.example,destination=b.example:8448,key=ed25519:1,signature="c2ln"',
    ):
        assert parse_authorization(header) == (credentials,), header
    assert parse_authorization("X-Matrix origin=a.example,key=k,sig=s") == (XMatrix(A, None, "k", "s"),)
    assert parse_authorization("Bearer token") == ()
    assert parse_authorization("") == ()


def test_it_is_written_for_older_servers_too() -> None:
    assert XMatrix(A, B, "ed25519:1", "c2ln").format() == (
        'X-Matrix origin="a.example",destination="b.example:8448",key="ed25519:1",sig="c2ln"'
    )


@pytest.mark.parametrize(
    "header",
    [
        "X-Matrix",
        "X-Matrix origin=a.example,key=k",
        "X-Matrix origin=a.example,sig=s",
        "X-Matrix key=k,sig=s",
        "X-Matrix origin=!,key=k,sig=s",
        "X-Matrix origin=a.example,destination=/,key=k,sig=s",
        "X-Matrix origin=a.example,origin=b.example,key=k,sig=s",
        "X-Matrix origin=a.example,Origin=a.example,key=k,sig=s",
        'X-Matrix origin="a.example,key=k,sig=s',
        'X-Matrix origin="a.example"x,key=k,sig=s',
        "X-Matrix origin=a.example key=k,sig=s",
        "X-Matrix origin=ä.example,key=k,sig=s",
        "=",
        '"',
    ],
)
def test_malformed_headers_are_refused(header: str) -> None:
    with pytest.raises(Unauthorized):
        parse_authorization(header)


def test_there_is_a_limit() -> None:
    one = XMatrix(A, B, "k", "s").format()
    assert len(parse_authorization(",".join([one] * CREDENTIALS_MAX))) == CREDENTIALS_MAX
    with pytest.raises(Unauthorized):
        parse_authorization(",".join([one] * (CREDENTIALS_MAX + 1)))
    with pytest.raises(Unauthorized):
        parse_authorization("X-Matrix " + "x" * 100_000)


@given(st.none() | json_values, st.text(ascii_letters + digits + "/%?&=", max_size=20))
def test_the_signature_is_that_of_the_specification(content: Any, uri: str) -> None:
    """The object of step 1, signed as any JSON."""
    json = {"method": "PUT", "uri": uri, "origin": A, "destination": B}
    body = None
    if content is not None:
        json["content"], body = content, encode_canonical(content)
    signature = sign_json(json, A, KEY)["signatures"][A][KEY.key_id]
    credentials = XMatrix.sign(method="PUT", uri=uri, origin=A, destination=B, content=body, key=KEY)
    assert credentials == XMatrix(A, B, KEY.key_id, signature)
    assert credentials.verify(method="PUT", uri=uri, content=body, key=KEY.verify_key)
    assert signed_bytes(method="PUT", uri=uri, origin=A, destination=B, content=body) == encode_canonical(json)


def test_everything_is_covered() -> None:
    credentials = XMatrix.sign(method="PUT", uri="/a?b", origin=A, destination=B, content=b'{"x":1}', key=KEY)
    good: dict[str, Any] = {"method": "PUT", "uri": "/a?b", "content": b'{"x":1}', "key": KEY.verify_key}
    assert credentials.verify(**good)
    other = SigningKey.from_seed("1", secrets.token_bytes(32)).verify_key
    for change in ({"method": "POST"}, {"uri": "/a?c"}, {"content": b'{"x":2}'}, {"content": None}, {"key": other}):
        assert not credentials.verify(**(good | change)), change
    for changed in (
        XMatrix(B, B, KEY.key_id, credentials.signature),
        XMatrix(A, A, KEY.key_id, credentials.signature),
        XMatrix(A, None, KEY.key_id, credentials.signature),
        XMatrix(A, B, "ed25519:2", credentials.signature),
        XMatrix(A, B, KEY.key_id, "?"),
    ):
        assert not changed.verify(**good), changed
