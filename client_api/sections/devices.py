"""Device management.

https://spec.matrix.org/v1.19/client-server-api/#device-management
"""

from typing import Any, Final

from client_api.uia import AUTH, authenticate_again
from homeserver.core.ids import DeviceId
from homeserver.services.accounts.devices import DEVICES_DELETED_MAX, Devices
from homeserver.services.accounts.uia import UserInteractiveAuth
from homeserver.web.endpoint import EMPTY, Access, RateLimit, Request, Response, Section
from storage.devices import DeviceRow

UPDATE_DEVICE: Final = {"type": "object", "properties": {"display_name": {"type": "string"}}}
DELETE_DEVICE: Final = {"type": "object", "properties": {"auth": AUTH}}
DELETE_DEVICES: Final = {
    "type": "object",
    "required": ["devices"],
    "properties": {
        "devices": {"type": "array", "items": {"type": "string"}, "maxItems": DEVICES_DELETED_MAX},
        "auth": AUTH,
    },
}


def section(devices: Devices, uia: UserInteractiveAuth) -> Section:
    """The endpoints."""
    s = Section("Device management")

    @s.endpoint("GET", "/_matrix/client/v3/devices", access=Access.GUEST)
    async def get_devices(request: Request) -> Response:
        """All devices of the user."""
        listed = await devices.list_devices(request.requester.user_id)
        return Response({"devices": [_device_json(device) for device in listed]})

    @s.endpoint("GET", "/_matrix/client/v3/devices/{device_id}", access=Access.GUEST)
    async def get_device(request: Request) -> Response:
        """One device of the user."""
        device_id = DeviceId.parse(request.path["device_id"])
        return Response(_device_json(await devices.get(request.requester.user_id, device_id)))

    @s.endpoint(
        "PUT",
        "/_matrix/client/v3/devices/{device_id}",
        access=Access.GUEST,
        body=UPDATE_DEVICE,
        rate_limit=RateLimit.WRITE,
    )
    async def update_device(request: Request) -> Response:
        """Gives a device another name."""
        user_id, device_id = request.requester.user_id, DeviceId.parse(request.path["device_id"])
        display_name = request.body.get("display_name")
        if display_name is None:
            await devices.get(user_id, device_id)
        else:
            await devices.rename(user_id, device_id, display_name)
        return EMPTY

    @s.endpoint(
        "DELETE",
        "/_matrix/client/v3/devices/{device_id}",
        body=DELETE_DEVICE,
        body_required=False,
        rate_limit=RateLimit.WRITE,
    )
    async def delete_device(request: Request) -> Response:
        """Removes a device and ends its session."""
        device_id = DeviceId.parse(request.path["device_id"])
        await authenticate_again(uia, request)
        await devices.delete(request.requester.user_id, [device_id])
        return EMPTY

    @s.endpoint("POST", "/_matrix/client/v3/delete_devices", body=DELETE_DEVICES, rate_limit=RateLimit.WRITE)
    async def delete_devices(request: Request) -> Response:
        """Removes devices and ends their sessions."""
        device_ids = [DeviceId.parse(device_id) for device_id in request.body["devices"]]
        await authenticate_again(uia, request)
        await devices.delete(request.requester.user_id, device_ids)
        return EMPTY

    return s


def _device_json(device: DeviceRow) -> dict[str, Any]:
    members = {
        "device_id": device.device_id,
        "display_name": device.display_name,
        "last_seen_ip": device.last_seen_ip,
        "last_seen_ts": device.last_seen_ts,
    }
    return {name: value for name, value in members.items() if value is not None}
