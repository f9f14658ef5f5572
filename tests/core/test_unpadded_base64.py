"""Unpadded base64 against the specification's examples."""

import pytest
import unpaddedbase64
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.errors import InvalidParam
from homeserver.core.unpadded_base64 import decode_base64, encode_base64, encode_base64_url_safe

# appendices, "Unpadded Base64"
SPECIFICATION = {
    "": "",
    "f": "Zg",
    "fo": "Zm8",
    "foo": "Zm9v",
    "foob": "Zm9vYg",
    "fooba": "Zm9vYmE",
    "foobar": "Zm9vYmFy",
}


@pytest.mark.parametrize(("plain", "encoded"), SPECIFICATION.items())
def test_examples_of_the_specification(plain: str, encoded: str) -> None:
    assert encode_base64(plain.encode()) == encoded
    assert decode_base64(encoded) == plain.encode()


@given(st.binary(max_size=70))
def test_agrees_with_the_reference(data: bytes) -> None:
    assert encode_base64(data) == unpaddedbase64.encode_base64(data)
    assert encode_base64_url_safe(data) == unpaddedbase64.encode_base64(data, urlsafe=True)
    assert decode_base64(encode_base64(data)) == data


@pytest.mark.parametrize("padded", ["Zg==", "Zm8=", "Zm9v"])
def test_padding_may_be_there(padded: str) -> None:
    assert decode_base64(padded) == decode_base64(padded.rstrip("="))


@pytest.mark.parametrize(
    "text",
    ["Z", "Zg=", "Zg===", "=", "====", "Zm8=Zm8=", "Z g", "Zg\n", "Zg==\n", "Z-_g", "Zé", "Z\0", "\ud800", "Z!=="],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidParam):
        decode_base64(text)


@pytest.mark.parametrize("value", [None, 1, b"Zg", ["Zg"], {}, True])
def test_only_strings_are_decoded(value: object) -> None:
    with pytest.raises(InvalidParam):
        decode_base64(value)
