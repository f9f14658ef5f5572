"""How a server shows that a request is its own: the signed form of a request, and its `Authorization` header.

https://spec.matrix.org/v1.19/server-server-api/#request-authentication
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import InvalidParam, Unauthorized
from homeserver.core.ids import ServerName
from homeserver.core.signing import SigningKey, VerifyKey, verify_signature

SCHEME: Final = "X-Matrix"
CREDENTIALS_MAX: Final = 16
"""How many signatures one request may bear."""
HEADER_CHARACTERS_MAX: Final = 16_384

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SEPARATORS: Final = re.compile(r"[ \t]*(?:,[ \t]*)*")
_SCHEME: Final = re.compile(rf"({_WORD})(?: +(?=[^\s,])|[ \t]*(?=,|$))")
# Values without quotes may hold whatever does not end them: older servers write colons there.
_PARAMETER: Final = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))[ \t]*(?=,|$)')
_ESCAPED: Final = re.compile(r"\\(.)")
_NEEDS_ESCAPE: Final = re.compile(r'(["\\])')
_ESCAPE: Final = r"\\\1"
# What other schemes have in place of parameters.
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
# RFC 9110 has no control characters in quoted texts, and everything beyond ASCII would be guesswork.
_PRINTABLE: Final = re.compile(r"[\t\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class XMatrix:
    """One signature of a request.

    Attributes:
        origin: the server that asks.
        destination: whom it asks; None from old servers.
        key_id: the key that it has signed with, such as `ed25519:auto`.
        signature: in unpadded base64.
    """

    origin: ServerName
    destination: ServerName | None
    key_id: str
    signature: str

    @classmethod
    def sign(
        cls,
        *,
        method: str,
        uri: str,
        origin: ServerName,
        destination: ServerName,
        content: bytes | None,
        key: SigningKey,
    ) -> Self:
        """Signs a request; see `signed_bytes`."""
        message = signed_bytes(method=method, uri=uri, origin=origin, destination=destination, content=content)
        return cls(origin, destination, key.key_id, key.sign(message))

    def verify(self, *, method: str, uri: str, content: bytes | None, key: VerifyKey) -> bool:
        """Whether the signature of a request is right; see `signed_bytes`."""
        message = signed_bytes(
            method=method, uri=uri, origin=self.origin, destination=self.destination, content=content
        )
        return key.key_id == self.key_id and verify_signature(message, self.signature, key)

    def format(self) -> str:
        """The value of the header."""
        parameters = {"origin": self.origin, "destination": self.destination, "key": self.key_id, "sig": self.signature}
        return f"{SCHEME} " + ",".join(
            f'{name}="{_NEEDS_ESCAPE.sub(_ESCAPE, value)}"' for name, value in parameters.items() if value is not None
        )


def signed_bytes(
    *, method: str, uri: str, origin: ServerName, destination: ServerName | None, content: bytes | None
) -> bytes:
    """What the signature of a request covers: a canonical JSON object.

    Args:
        method: in upper case.
        uri: the path with its query, as it is sent.
        origin: the server that asks.
        destination: whom it asks; None if the header does not say so.
        content: the body in canonical JSON; None if there is none.
    """
    head = b"" if content is None else b'"content":' + content + b","
    members = {"method": method, "origin": origin, "uri": uri}
    if destination is not None:
        members["destination"] = destination
    return b"{" + head + encode_canonical(members)[1:]


def parse_authorization(header: str) -> tuple[XMatrix, ...]:
    """Reads the value of an `Authorization` header, or of several that were joined by commas.

    Credentials of other schemes and unknown parameters are passed over.

    Raises:
        Unauthorized: it does not follow the grammar, or a signature lacks a parameter.
    """
    if len(header) > HEADER_CHARACTERS_MAX or not _PRINTABLE.fullmatch(header):
        raise Unauthorized("The Authorization header is too long, or holds wrong characters")
    credentials = tuple(
        _credentials(parameters) for scheme, parameters in _split(header) if scheme.lower() == SCHEME.lower()
    )
    if len(credentials) > CREDENTIALS_MAX:
        raise Unauthorized("The request has too many signatures")
    return credentials


def _split(header: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Each scheme with its parameters, the names in lower case."""
    position = _skip_separators(header, 0)
    while position < len(header):
        scheme = _SCHEME.match(header, position)
        if scheme is None:
            raise _malformed()
        bare = _TOKEN68.match(header, scheme.end())
        position = _skip_separators(header, scheme.end() if bare is None else bare.end())
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(header, position)) is not None:
            name, quoted, plain = parameter.groups()
            if name.lower() in parameters:
                raise _malformed()
            parameters[name.lower()] = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
            position = _skip_separators(header, parameter.end())
        yield scheme[1], parameters


def _skip_separators(header: str, position: int) -> int:
    separators = _SEPARATORS.match(header, position)
    return position if separators is None else separators.end()


def _credentials(parameters: Mapping[str, str]) -> XMatrix:
    try:
        origin = ServerName.parse(parameters["origin"])
        destination = ServerName.parse(parameters["destination"]) if "destination" in parameters else None
        # The specification's list of parameters says `signature`, its example and all servers say `sig`.
        signature = parameters["sig"] if "sig" in parameters else parameters["signature"]
        return XMatrix(origin, destination, parameters["key"], signature)
    except (KeyError, InvalidParam):
        raise Unauthorized("The signature lacks a parameter, or names no server") from None


def _malformed() -> Unauthorized:
    return Unauthorized("The Authorization header is malformed")
