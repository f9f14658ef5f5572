"""Adding to `unsigned` in the JSON text of an event, without parsing it.

The stored text is canonical JSON, so `unsigned` is its last member if it is there at all, and before it stands `type`,
which is a string: the text's last two characters tell whether it is there.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

MEMBERSHIPS: Final = frozenset({"join", "invite", "knock", "leave", "ban"})


def with_age(client_json: str, age_ms: int, *, membership: str | None = None) -> str:
    """The JSON text of an event with the time that has passed since it was sent, in milliseconds.

    The reader's membership is added too, if it is given; it must be one of `MEMBERSHIPS`.
    """
    if membership is None:
        return _with_members(client_json, f'"age":{age_ms}')
    return _with_members(client_json, f'"age":{age_ms},"membership":"{membership}"')


def splice_unsigned(client_json: str, additions: Mapping[str, Any]) -> str:
    """The JSON text of an event with further members of `unsigned`, at least one; they may hold `orjson.Fragment`s."""
    return _with_members(client_json, orjson.dumps(additions).decode()[1:-1])


def _with_members(client_json: str, members: str) -> str:
    if not client_json.endswith("}}"):
        return f'{client_json[:-1]},"unsigned":{{{members}}}}}'
    if client_json.endswith('"unsigned":{}}'):
        return f"{client_json[:-2]}{members}}}}}"
    return f"{client_json[:-2]},{members}}}}}"
