"""Reads whose keys somebody wants, a client or another server; both ask in the same form.

https://spec.matrix.org/v1.19/client-server-api/#key-management-api
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from homeserver.core.errors import BadJson, InvalidParam
from homeserver.core.ids import DeviceId, UserId

USERS_MAX: Final = 10_000
DEVICES_MAX: Final = 20_000
CLAIMS_MAX: Final = 10_000

WantedDevices = Mapping[UserId, Sequence[str]]
"""Whose keys are wanted, and of which devices; an empty list stands for all of them."""

WantedKeys = Mapping[UserId, Mapping[DeviceId, str]]
"""For which devices of which users a one-time key is wanted, and of which algorithm."""


def parse_wanted_devices(value: object) -> WantedDevices:
    """Reads which devices of which users are wanted, `{user id: [device id]}`.

    Raises:
        BadJson: it has another form.
        InvalidParam: an id is none, or too many are wanted at once.
    """
    if not isinstance(value, dict):
        raise BadJson("device_keys must be an object")
    wanted: dict[UserId, list[str]] = {}
    for user_id, devices in value.items():
        if not isinstance(devices, list) or not all(isinstance(device, str) for device in devices):
            raise BadJson("device_keys must hold a list of device ids for each user")
        wanted[UserId.parse(user_id)] = [DeviceId.parse(device) for device in devices]
    if len(wanted) > USERS_MAX or sum(len(devices) for devices in wanted.values()) > DEVICES_MAX:
        raise InvalidParam("Too many users or devices for one request")
    return wanted


def parse_wanted_keys(value: object) -> WantedKeys:
    """Reads which one-time keys are wanted, `{user id: {device id: algorithm}}`; raises as `parse_wanted_devices`."""
    if not isinstance(value, dict):
        raise BadJson("one_time_keys must be an object")
    wanted: dict[UserId, dict[DeviceId, str]] = {}
    for user_id, devices in value.items():
        if not isinstance(devices, dict):
            raise BadJson("one_time_keys must hold an object for each user")
        wanted[UserId.parse(user_id)] = _wanted_of_user(devices)
    if sum(len(devices) for devices in wanted.values()) > CLAIMS_MAX:
        raise InvalidParam("Too many keys for one request")
    return wanted


def _wanted_of_user(devices: Mapping[str, Any]) -> dict[DeviceId, str]:
    if not all(isinstance(algorithm, str) and algorithm.isprintable() for algorithm in devices.values()):
        raise BadJson("The algorithm of a key must be a string")
    return {DeviceId.parse(device_id): algorithm for device_id, algorithm in devices.items()}
