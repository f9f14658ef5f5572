"""What servers tell each other of their users' devices: whole lists, and what changes in them.

A device with bad keys is left out of a list, as if it had none; it keeps nobody from the others. An update that is bad
is no update: whoever gets one has to ask for the list.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from homeserver.core.canonical_json import INTEGER_MAX
from homeserver.core.encryption_keys import (
    MASTER,
    SELF_SIGNING,
    CrossSigningKey,
    Key,
    check_told_device_keys,
    parse_cross_signing_key,
)
from homeserver.core.errors import BadJson, MatrixError, TooLarge
from homeserver.core.ids import DeviceId, UserId
from homeserver.core.text import is_storable

DEVICES_MAX: Final = 2_000
"""A list with more devices is taken for nonsense."""

PREV_IDS_MAX: Final = 1_000
DISPLAY_NAME_CHARACTERS_MAX: Final = 256
TOLD_USAGES: Final = (MASTER, SELF_SIGNING)
"""The cross-signing keys that servers tell each other of."""


@dataclass(frozen=True, slots=True)
class ListedDevice:
    """A device with keys; `keys` has no `unsigned`."""

    device_id: DeviceId
    keys: Key
    display_name: str | None

    def shown(self) -> dict[str, Any]:
        """Its keys as clients get them."""
        return shown_keys(self.keys, self.display_name)


def shown_keys(keys: Key, display_name: str | None) -> dict[str, Any]:
    """The keys of a device as clients get them, with its name."""
    return {**keys} if display_name is None else {**keys, "unsigned": {"device_display_name": display_name}}


@dataclass(frozen=True, slots=True)
class DeviceUpdate:
    """A change of one device.

    Attributes:
        stream_id: the update's number.
        prev_ids: the numbers of those updates that must be known before.
        device: what the device is from now on; None if it is gone, or has no keys.
    """

    device_id: DeviceId
    stream_id: int
    prev_ids: Collection[int]
    device: ListedDevice | None


@dataclass(frozen=True, slots=True)
class DeviceList:
    """All devices of a user that have keys, and its cross-signing keys.

    Attributes:
        stream_id: the number of the update that the list agrees with.
    """

    stream_id: int
    devices: Sequence[ListedDevice]
    cross_signing: Sequence[CrossSigningKey]


def parse_device_update(content: Mapping[str, Any], *, user_id: UserId) -> DeviceUpdate:
    """Reads the content of an `m.device_list_update` about a user.

    Raises:
        BadJson, InvalidParam, TooLarge: something in it is wrong.
    """
    device_id = DeviceId.parse(content.get("device_id"))
    prev_ids = content.get("prev_id") or []
    if not isinstance(prev_ids, list) or len(prev_ids) > PREV_IDS_MAX:
        raise BadJson("prev_id must be a list")
    device = None
    if content.get("deleted") is not True and content.get("keys") is not None:
        device = _device(device_id, content["keys"], content.get("device_display_name"), user_id)
    return DeviceUpdate(
        device_id=device_id,
        stream_id=_stream_id(content.get("stream_id")),
        prev_ids=frozenset(_stream_id(prev_id) for prev_id in prev_ids),
        device=device,
    )


def parse_key_update(content: Mapping[str, Any], *, user_id: UserId) -> Sequence[CrossSigningKey]:
    """Reads the content of an `m.signing_key_update` about a user: the keys that are new.

    Raises:
        BadJson, InvalidParam, TooLarge: something in it is wrong.
    """
    return [
        parse_cross_signing_key(content[f"{usage}_key"], user_id=user_id, usage=usage)
        for usage in TOLD_USAGES
        if content.get(f"{usage}_key") is not None
    ]


def parse_device_list(answer: Mapping[str, Any], *, user_id: UserId) -> DeviceList:
    """Reads the answer to a request for all devices of a user.

    Raises:
        BadJson, TooLarge: it is no such answer, or has very many devices.
    """
    devices = answer.get("devices")
    if answer.get("user_id") != user_id or not isinstance(devices, list):
        raise BadJson("The answer is no list of the user's devices")
    if len(devices) > DEVICES_MAX:
        raise TooLarge(f"A user has at most {DEVICES_MAX} devices")
    found = {device.device_id: device for device in _good_devices(devices, user_id)}
    return DeviceList(
        stream_id=_stream_id(answer.get("stream_id")),
        devices=list(found.values()),
        cross_signing=[
            key
            for usage in TOLD_USAGES
            if (key := good_cross_signing_key(answer.get(f"{usage}_key"), user_id=user_id, usage=usage)) is not None
        ],
    )


def good_device(device_id: object, keys: object, display_name: object, *, user_id: UserId) -> ListedDevice | None:
    """A device with the keys that somebody has told of it; None if there is something wrong with them."""
    try:
        return _device(DeviceId.parse(device_id), keys, display_name, user_id)
    except MatrixError:
        return None


def good_cross_signing_key(value: object, *, user_id: UserId, usage: str) -> CrossSigningKey | None:
    """A cross-signing key that somebody has told; None if there is something wrong with it."""
    try:
        return parse_cross_signing_key(value, user_id=user_id, usage=usage)
    except MatrixError:
        return None


def _good_devices(devices: Sequence[object], user_id: UserId) -> Iterator[ListedDevice]:
    for entry in devices:
        if isinstance(entry, dict):
            name = entry.get("device_display_name")
            device = good_device(entry.get("device_id"), entry.get("keys"), name, user_id=user_id)
            if device is not None:
                yield device


def _device(device_id: DeviceId, keys: object, display_name: object, user_id: UserId) -> ListedDevice:
    signed = {name: keys[name] for name in keys if name != "unsigned"} if isinstance(keys, dict) else keys
    parsed = check_told_device_keys(signed, user_id=user_id, device_id=device_id)
    is_name = isinstance(display_name, str) and is_storable(display_name)
    return ListedDevice(device_id, parsed, str(display_name)[:DISPLAY_NAME_CHARACTERS_MAX] if is_name else None)


def _stream_id(value: object) -> int:
    if type(value) is not int or not 0 <= value <= INTEGER_MAX:
        raise BadJson("The number of an update must be an integer")
    return value
