"""Sending messages to devices, of this and of other servers, outside of any room.

What is acknowledged is stored: messages to devices here until they confirm them, those to other servers in the queue of
the server. Both go into one transaction with the note that the request has been taken.

https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
"""

import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any, Final

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.clock import Clock
from homeserver.core.errors import BadJson, InvalidParam
from homeserver.core.event_format import TYPE_BYTES_MAX
from homeserver.core.ids import ID_BYTES_MAX, DeviceId, ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.core.text import is_storable
from storage.bus.base import Bus
from storage.database import Database
from storage.destination_queues import NewEdu, insert_edus
from storage.to_device import (
    ALL_DEVICES,
    NewToDeviceMessage,
    insert_received_to_device,
    insert_to_device,
    insert_to_device_request,
)

EDU_TYPE: Final = "m.direct_to_device"
MESSAGES_MAX: Final = 10_000
"""How many messages one request or EDU may hold; a message to all devices of a user counts as one."""

MESSAGE_BYTES_MAX: Final = 65_536
EDU_BYTES_MAX: Final = 50_000
"""An EDU is begun anew beyond this: other servers refuse those of more than 65,536 bytes."""

_REQUESTS_KEPT_MS: Final = 24 * 60 * 60 * 1000
_RECEIVED_KEPT_MS: Final = 30 * 24 * 60 * 60 * 1000
_MESSAGE_ID_CHARACTERS_MAX: Final = 255
"""The specification says 32; who writes a longer one is understood all the same."""

Messages = Mapping[UserId, Mapping[str, Mapping[str, Any]]]
"""Contents by user and device; the device `*` stands for all devices of the user."""

WakeDestinations = Callable[[Collection[ServerName]], Awaitable[None]]
"""Says that something waits for other servers."""


class ToDeviceSending:
    """Takes messages to devices from clients and from other servers."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        server_name: ServerName,
        reaches: Callable[[ServerName], bool],
        wake_destinations: WakeDestinations,
    ) -> None:
        """Takes its means; `reaches` says whether this server talks with another at all."""
        self._db = db
        self._bus = bus
        self._clock = clock
        self._server_name = server_name
        self._reaches = reaches
        self._wake_destinations = wake_destinations

    async def send(self, requester: Requester, event_type: str, transaction_id: str, messages: Messages) -> None:
        """Sends messages, all or none. A request that is repeated does nothing.

        Devices that do not exist are passed over, and so are servers that this one does not talk with.

        Raises:
            InvalidParam: the type or the transaction id is empty or too long, or a message is too large.
        """
        _check_type(event_type)
        if not transaction_id or not is_storable(transaction_id) or len(transaction_id.encode()) > ID_BYTES_MAX:
            raise InvalidParam(f"A transaction id has 1 to {ID_BYTES_MAX} bytes")
        local = {user_id: devices for user_id, devices in messages.items() if user_id.server_name == self._server_name}
        remote = {
            user_id: devices
            for user_id, devices in messages.items()
            if user_id not in local and self._reaches(user_id.server_name)
        }
        edus = list(self._edus(requester.user_id, event_type, remote))
        now_ms = self._clock.now_ms()
        async with self._db.transaction() as conn:
            is_new = await insert_to_device_request(
                conn,
                user_id=requester.user_id,
                device_id=requester.device_id,
                event_type=event_type,
                transaction_id=transaction_id,
                now_ms=now_ms,
                kept_ms=_REQUESTS_KEPT_MS,
            )
            if not is_new:
                return
            reached, position = await insert_to_device(conn, _stored(requester.user_id, event_type, local))
            if edus:
                await insert_edus(conn, edus, now_ms=now_ms)
        if position is not None:
            await self._bus.wake({f"user:{user_id}" for user_id in reached}, position)
        if edus:
            await self._wake_destinations({edu.destination for edu in edus})

    async def receive(self, origin: ServerName, content: Mapping[str, Any]) -> None:
        """Takes the content of an `m.direct_to_device` of another server.

        Raises:
            BadJson, InvalidParam: it has a wrong form, or speaks for a user who is not the server's.
        """
        sender, event_type, message_id = UserId.parse(content.get("sender")), content.get("type"), _message_id(content)
        if sender.server_name != origin:
            raise InvalidParam("The sender is a user of another server")
        if not isinstance(event_type, str):
            raise BadJson("type must be a string")
        _check_type(event_type)
        messages = parse_messages(content.get("messages"))
        local = {user_id: devices for user_id, devices in messages.items() if user_id.server_name == self._server_name}
        async with self._db.transaction() as conn:
            is_new = await insert_received_to_device(
                conn,
                origin=origin,
                message_id=message_id,
                now_ms=self._clock.now_ms(),
                kept_ms=_RECEIVED_KEPT_MS,
            )
            if not is_new:
                return
            reached, position = await insert_to_device(conn, _stored(sender, event_type, local))
        if position is not None:
            await self._bus.wake({f"user:{user_id}" for user_id in reached}, position)

    def _edus(self, sender: UserId, event_type: str, messages: Messages) -> Iterator[NewEdu]:
        """The EDUs that carry messages to their servers, none of them too large if that can be avoided."""
        by_server: dict[ServerName, list[tuple[UserId, str, Mapping[str, Any]]]] = {}
        for user_id, devices in messages.items():
            for device_id, content in devices.items():
                by_server.setdefault(user_id.server_name, []).append((user_id, device_id, content))
        for server_name, waiting in by_server.items():
            chunk: dict[str, dict[str, Mapping[str, Any]]] = {}
            size_bytes = 0
            for user_id, device_id, content in waiting:
                content_bytes = len(encode_canonical(content))
                if chunk and size_bytes + content_bytes > EDU_BYTES_MAX:
                    yield _edu(server_name, sender, event_type, chunk)
                    chunk, size_bytes = {}, 0
                chunk.setdefault(user_id, {})[device_id] = content
                size_bytes += content_bytes
            yield _edu(server_name, sender, event_type, chunk)


def parse_messages(value: object) -> dict[UserId, dict[str, Mapping[str, Any]]]:
    """Reads messages, `{user id: {device id: content}}`.

    Raises:
        BadJson: it has another form.
        InvalidParam: an id is none, there are too many messages, or one is too large.
    """
    if not isinstance(value, dict):
        raise BadJson("messages must be an object")
    messages: dict[UserId, dict[str, Mapping[str, Any]]] = {}
    for user_id, devices in value.items():
        if not isinstance(devices, dict) or not all(isinstance(content, dict) for content in devices.values()):
            raise BadJson("messages must hold an object of contents for each user")
        messages[UserId.parse(user_id)] = {
            device_id if device_id == ALL_DEVICES else DeviceId.parse(device_id): content
            for device_id, content in devices.items()
        }
    if sum(len(devices) for devices in messages.values()) > MESSAGES_MAX:
        raise InvalidParam(f"At most {MESSAGES_MAX} messages can be sent at once")
    contents = (content for devices in messages.values() for content in devices.values())
    if any(len(encode_canonical(content)) > MESSAGE_BYTES_MAX for content in contents):
        raise InvalidParam(f"A message to a device has at most {MESSAGE_BYTES_MAX} bytes")
    return messages


def _stored(sender: UserId, event_type: str, messages: Messages) -> list[NewToDeviceMessage]:
    stored = []
    for user_id, devices in messages.items():
        for device_id, content in devices.items():
            message = encode_canonical({"type": event_type, "sender": sender, "content": content}).decode()
            stored.append(NewToDeviceMessage(user_id, device_id, message))
    return stored


def _edu(
    destination: ServerName, sender: UserId, event_type: str, messages: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> NewEdu:
    content = {"sender": sender, "type": event_type, "message_id": secrets.token_hex(16), "messages": messages}
    return NewEdu(destination=destination, edu_type=EDU_TYPE, content=encode_canonical(content).decode())


def _message_id(content: Mapping[str, Any]) -> str:
    message_id = content.get("message_id")
    if not isinstance(message_id, str) or not is_storable(message_id):
        raise BadJson("message_id must be a string")
    if len(message_id) > _MESSAGE_ID_CHARACTERS_MAX:
        raise InvalidParam("message_id is too long")
    return message_id


def _check_type(event_type: str) -> None:
    if not event_type or not is_storable(event_type) or len(event_type.encode()) > TYPE_BYTES_MAX:
        raise InvalidParam(f"A type has 1 to {TYPE_BYTES_MAX} bytes")
