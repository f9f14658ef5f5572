"""Adding to `unsigned` in the JSON text of an event, without parsing it.

The stored text is canonical JSON, so `unsigned` is its last member if it is there at all, and before it stands `type`,
which is a string: the text's last two characters tell whether it is there.
"""

from collections.abc import Mapping
from typing import Any

import orjson


def with_age(client_json: str, age_ms: int) -> str:
    """The JSON text of an event with the time that has passed since it was sent, in milliseconds."""
    if not client_json.endswith("}}"):
        return f'{client_json[:-1]},"unsigned":{{"age":{age_ms}}}}}'
    if client_json.endswith('"unsigned":{}}'):
        return f'{client_json[:-2]}"age":{age_ms}}}}}'
    return f'{client_json[:-2]},"age":{age_ms}}}}}'


def splice_unsigned(client_json: str, additions: Mapping[str, Any]) -> str:
    """The JSON text of an event with further members of `unsigned`; they may hold `orjson.Fragment`s."""
    encoded = orjson.dumps(additions).decode()
    if not client_json.endswith("}}"):
        return f'{client_json[:-1]},"unsigned":{encoded}}}'
    if client_json.endswith('"unsigned":{}}'):
        return f"{client_json[:-3]}{encoded}}}"
    return f"{client_json[:-2]},{encoded[1:]}}}"
