"""Unpadded base64, in which the protocol writes keys, hashes and signatures.

https://spec.matrix.org/v1.19/appendices/#unpadded-base64
"""

import binascii

from homeserver.core.errors import InvalidParam

_TO_URL_SAFE = str.maketrans("+/", "-_")


def encode_base64(data: bytes) -> str:
    """Writes bytes in the standard alphabet without padding."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").decode("ascii")


def encode_base64_url_safe(data: bytes) -> str:
    """Writes bytes in the URL-safe alphabet (`-` and `_` for `+` and `/`) without padding."""
    return encode_base64(data).translate(_TO_URL_SAFE)


def decode_base64(text: object) -> bytes:
    """Reads the standard alphabet, with the right padding or with none.

    Raises:
        InvalidParam: it is no string, or holds anything else, such as white space or letters of another alphabet.
    """
    if not isinstance(text, str) or not text.isascii():
        raise InvalidParam("Not base64")
    padding = "" if text.endswith("=") else "=" * (-len(text) % 4)
    try:
        return binascii.a2b_base64(text + padding, strict_mode=True)
    except binascii.Error:
        raise InvalidParam("Not base64") from None
