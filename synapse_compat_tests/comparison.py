"""Compares two recordings of one scenario, field by field, after replacing what every server chooses for itself."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final
from urllib.parse import quote

from synapse_compat_tests.recording import TOKENS, Exchange, Recording


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the two servers do not do alike.

    Attributes:
        request: who asked what, with ids replaced.
        place: where in the answer, for example `.rooms.join.<room_id of 2>.timeline.limited`.
        synapse: what Synapse answers there; `ABSENT` if nothing.
        ours: what this server answers there.
    """

    request: str
    place: str
    synapse: str
    ours: str

    def __str__(self) -> str:
        return f"{self.request}\n    {self.place}\n        Synapse: {self.synapse}\n        ours:    {self.ours}"


ABSENT: Final = "nothing"

# Every server has its own; that they are there, and of which type they are, is compared.
_NUMBERS: Final = frozenset(
    {
        "age",
        "age_ts",
        "expires_in",
        "expires_in_ms",
        "last_seen_ts",
        "origin_server_ts",
        "total_room_count_estimate",
        "ts",
    }
)
_TEXTS_FOR_PEOPLE: Final = frozenset({"error", "soft_logout_message"})
# Synapse knows what has become part of the specification by the names of its proposal still.
_STABLE_NAMES: Final = {"org.matrix.msc4222.state_after": "state_after"}
_TIME: Final = re.compile(r"\b1[0-9]{12}\b")
_EVENT_ID: Final = re.compile(r"\$[A-Za-z0-9_/+=-]{10,}(:[a-z0-9.:-]+)?")
_ROOM_ID: Final = re.compile(r"![A-Za-z0-9_-]{10,}(:[a-z0-9.:-]+)?")

# Lists whose order the specification leaves open, by their place; the root of an answer is ''.
_UNORDERED: Final = re.compile(
    r"\.(state|state_after|invite_state|knock_state|account_data|ephemeral|presence)\.events"
    r"|\.state|\.devices|\.joined_rooms|\.joined|\.aliases|.*\.m\.heroes|\.flows|\.changed|\.left"
    r"|.*\.\$\.state|.*\.children_state"
)
_PUSH_RULES: Final = re.compile(r"(^|\.global)\.(override|content|room|sender|underride)$")
_UNORDERED_OF: Final = {
    "GET /rooms/<room>/state": "",
    "GET /rooms/<room>/members": ".chunk",
    "GET /publicRooms": ".chunk",
    "POST /publicRooms": ".chunk",
    "GET /user/<user>/rooms/<room>/tags": ".tags",
}


def differences(synapse: Recording, ours: Recording) -> Iterator[Difference]:
    """All differences of two recordings of one scenario."""
    for theirs, mine in zip_longest(synapse.exchanges, ours.exchanges):
        if theirs is None or mine is None:
            break
        request, asked = _titled(theirs, synapse.names), _titled(mine, ours.names)
        if request != asked:
            yield Difference(request, "(the scenario went another way)", request, asked)
            return
        if theirs.status != mine.status:
            yield Difference(request, "(status)", _described(theirs), _described(mine))
            continue
        yield from _compare(request, "", normalised(theirs, synapse.names), normalised(mine, ours.names))
    if synapse.failure != ours.failure:
        yield Difference("(the scenario)", "(its end)", str(synapse.failure), str(ours.failure))


def _titled(exchange: Exchange, names: Mapping[str, str]) -> str:
    path, mark, query = exchange.request.partition("?")
    # Short ids, of filters for example, may be the same as any other value.
    values = "".join(part if len(part) < 4 else replace_ids(part, names) for part in re.split("([&=])", query))
    return f"{exchange.who}: {_TIME.sub('<time>', replace_ids(path, names) + mark + values)}"


def _described(exchange: Exchange) -> str:
    body = exchange.body
    errcode = f" {body.get('errcode')} ({body.get('error')})" if isinstance(body, dict) and "errcode" in body else ""
    return f"{exchange.status}{errcode}"


def normalised(exchange: Exchange, names: Mapping[str, str]) -> Any:
    """The body of an answer without what every server chooses for itself, and unordered lists in an order."""
    method, _, rest = exchange.request.partition(" ")
    path = re.sub(r"^(/_matrix/client/v[13])?(/[^?]*).*", r"\2", rest)
    pattern = re.sub(r"^/rooms/[^/]+", "/rooms/<room>", re.sub(r"^/user/[^/]+", "/user/<user>", path))
    unordered = _UNORDERED_OF.get(f"{method} {pattern}")
    value = _normalise(exchange.body, "", names)
    return _order(value, "", unordered)


def _normalise(value: Any, member: str, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            replace_ids(_STABLE_NAMES.get(name, name), names): _normalise(child, name, names)
            for name, child in value.items()
        }
    if isinstance(value, list):
        return [_normalise(child, member, names) for child in value]
    if isinstance(value, str):
        if member in TOKENS:
            return "<token>"
        if member in _TEXTS_FOR_PEOPLE:
            return "<text>"
        return replace_ids(value, names)
    if type(value) is int and member in _NUMBERS:
        return "<number>"
    return value


def replace_ids(text: str, names: Mapping[str, str]) -> str:
    """A text in which ids are called by their names, or by their kind where they have none."""
    if text in names:
        return names[text]
    for raw, name in names.items():
        if len(raw) >= 5 and raw in text:
            text = text.replace(raw, name)
        elif len(raw) >= 5 and quote(raw, safe="") in text:
            text = text.replace(quote(raw, safe=""), name)
    return _ROOM_ID.sub("<a room>", _EVENT_ID.sub("<an event>", text))


def _order(value: Any, place: str, unordered: str | None) -> Any:
    """Turns unordered lists into objects by what their entries are about, so that like is compared with like."""
    if isinstance(value, dict):
        return {name: _order(child, f"{place}.{name}", unordered) for name, child in value.items()}
    if not isinstance(value, list):
        return value
    children = [_order(child, f"{place}.$", unordered) for child in value]
    if _PUSH_RULES.search(place):
        own = [rule["rule_id"] for rule in children if not rule["default"]]
        return {rule["rule_id"]: rule for rule in children} | {"(the order of the user's own)": own}
    if place == unordered or _UNORDERED.fullmatch(place) or _in_room(place):
        return _by_subject(children)
    return children


def _in_room(place: str) -> bool:
    match = re.fullmatch(r"\.rooms\.(?:join|leave|invite|knock)\.<[^>]*>(\..*)", place)
    return match is not None and _UNORDERED.fullmatch(match[1]) is not None


def _by_subject(children: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for child in sorted(children, key=lambda child: json.dumps(child, sort_keys=True)):
        subject = name = _subject(child)
        number = 1
        while name in found:
            number += 1
            name = f"{subject}#{number}"
        found[name] = child
    return found


def _subject(value: Any) -> str:
    if isinstance(value, dict):
        if "type" in value:
            return f"{value['type']}|{value['state_key']}" if "state_key" in value else str(value["type"])
        for member in ("device_id", "room_id", "user_id", "name"):
            if member in value:
                return str(value[member])
    return json.dumps(value, sort_keys=True)


def _compare(request: str, place: str, theirs: Any, mine: Any) -> Iterator[Difference]:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        for name in sorted(theirs.keys() | mine.keys()):
            inner = f"{place}.{name}"
            if name not in mine:
                yield Difference(request, inner, _shown(theirs[name]), ABSENT)
            elif name not in theirs:
                yield Difference(request, inner, ABSENT, _shown(mine[name]))
            else:
                yield from _compare(request, inner, theirs[name], mine[name])
    elif isinstance(theirs, list) and isinstance(mine, list):
        if len(theirs) != len(mine):
            yield Difference(request, place, _outline(theirs), _outline(mine))
            return
        for index, (child, own) in enumerate(zip(theirs, mine, strict=True)):
            yield from _compare(request, f"{place}[{index}]", child, own)
    elif type(theirs) is not type(mine) or theirs != mine:
        yield Difference(request, place, _shown(theirs), _shown(mine))


def _outline(values: Sequence[Any]) -> str:
    """What is in a list, briefly."""
    return f"{len(values)} entries: " + ", ".join(_subject(value)[:60] for value in values[:40])


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]}…"
