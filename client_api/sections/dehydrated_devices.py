"""Dehydrated devices, under the name of their proposal.

https://github.com/matrix-org/matrix-spec-proposals/pull/3814
"""

from typing import Final

import orjson

from homeserver.core.clock import Clock
from homeserver.core.ids import DeviceId
from homeserver.services.accounts.last_seen import seen_now
from homeserver.services.e2ee.dehydrated_devices import DehydratedDevices
from homeserver.services.e2ee.key_uploads import UploadedKeys
from homeserver.web.endpoint import RateLimit, Request, Response, Section

DEVICE: Final = {
    "type": "object",
    "required": ["device_id", "device_data", "device_keys"],
    "properties": {
        "device_id": {"type": "string"},
        "device_data": {"type": "object", "required": ["algorithm"], "properties": {"algorithm": {"type": "string"}}},
        "device_keys": {"type": "object"},
        "initial_device_display_name": {"type": "string"},
    },
}
PAGE: Final = {"type": "object", "properties": {"next_batch": {"type": "string"}}}

_DEVICE: Final = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
_EVENTS: Final = f"{_DEVICE}/{{device_id}}/events"


def section(devices: DehydratedDevices, clock: Clock) -> Section:
    """The endpoints."""
    s = Section("Dehydrated devices")

    @s.endpoint("PUT", _DEVICE, body=DEVICE, rate_limit=RateLimit.WRITE)
    async def put_dehydrated_device(request: Request) -> Response:
        """Makes a dehydrated device in place of the one that there may be."""
        body, user_id = request.body, request.requester.user_id
        device_id = DeviceId.parse(body["device_id"])
        keys = UploadedKeys.parse(
            user_id,
            device_id,
            identity=body["device_keys"],
            one_time=body.get("one_time_keys"),
            fallback=body.get("fallback_keys"),
        )
        made = seen_now(
            user_id=user_id, device_id=device_id, ts=clock.now_ms(), ip=request.ip, user_agent=request.user_agent
        )
        await devices.put(
            made, keys, device_data=body["device_data"], display_name=body.get("initial_device_display_name")
        )
        return Response({"device_id": device_id})

    @s.endpoint("GET", _DEVICE, rate_limit=RateLimit.READ)
    async def get_dehydrated_device(request: Request) -> Response:
        """The dehydrated device."""
        device = await devices.get(request.requester.user_id)
        return Response({"device_id": device.device_id, "device_data": orjson.Fragment(device.device_data)})

    @s.endpoint("DELETE", _DEVICE, rate_limit=RateLimit.WRITE)
    async def delete_dehydrated_device(request: Request) -> Response:
        """Removes the dehydrated device."""
        return Response({"device_id": await devices.delete(request.requester.user_id)})

    @s.endpoint("GET", _EVENTS, rate_limit=RateLimit.READ)
    async def get_dehydrated_device_events(request: Request) -> Response:
        """The messages that wait for it; there is no `next_batch` after the last page."""
        messages, end = await _page(request, request.query_text("from"))
        return Response({"events": messages} if end is None else {"events": messages, "next_batch": end})

    @s.endpoint("POST", _EVENTS, body=PAGE, body_required=False, rate_limit=RateLimit.READ, writes=False)
    async def post_dehydrated_device_events(request: Request) -> Response:
        """As clients ask that know the proposal as it was first: they read until a page is empty."""
        since = request.body.get("next_batch")
        messages, end = await _page(request, since)
        return Response({"events": messages, "next_batch": end or since or ""})

    async def _page(request: Request, since: str | None) -> tuple[list[orjson.Fragment], str | None]:
        messages, end = await devices.list_messages(
            request.requester.user_id, request.path["device_id"], since=since or None
        )
        return [orjson.Fragment(message) for message in messages], end

    return s
