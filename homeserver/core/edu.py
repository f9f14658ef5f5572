"""Ephemeral data units: what servers tell each other in passing, such as typing and receipts.

https://spec.matrix.org/v1.19/server-server-api/#edus
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import BadJson, TooLarge
from homeserver.core.ids import ServerName
from homeserver.core.text import is_storable

EDU_TYPE_BYTES_MAX: Final = 255
EDU_BYTES_MAX: Final = 1_048_576
"""The specification sets no limit; messages to many devices at once can be much larger than an event."""


@dataclass(frozen=True, slots=True)
class Edu:
    """An EDU.

    Attributes:
        edu_type: such as `m.typing`.
        origin: the server that sent it and speaks only for its own users.
        content: as it came; its shape depends on the type and is not checked yet.
    """

    edu_type: str
    origin: ServerName
    content: Mapping[str, Any] = field(hash=False)

    def json(self) -> dict[str, Any]:
        """The EDU as it stands in a transaction."""
        return {"edu_type": self.edu_type, "content": self.content}


def parse_edu(json: object, *, origin: ServerName) -> Edu:
    """Reads one EDU of a transaction.

    Args:
        json: a member of the transaction's `edus`.
        origin: the server that has signed the transaction; an `origin` in the EDU itself is not looked at.

    Raises:
        BadJson: it is no object with a type and a content.
        TooLarge: its type or its content is larger than this server takes.
    """
    if not isinstance(json, dict):
        raise BadJson("An EDU is an object")
    edu_type, content = json.get("edu_type"), json.get("content")
    if not isinstance(edu_type, str) or not edu_type or not is_storable(edu_type):
        raise BadJson("edu_type must be a text")
    if not isinstance(content, dict):
        raise BadJson("The content of an EDU is an object")
    if len(edu_type.encode()) > EDU_TYPE_BYTES_MAX:
        raise TooLarge(f"edu_type is longer than {EDU_TYPE_BYTES_MAX} bytes")
    if len(encode_canonical(content)) > EDU_BYTES_MAX:
        raise TooLarge(f"The content of an EDU is at most {EDU_BYTES_MAX} bytes long")
    return Edu(edu_type, origin, content)
