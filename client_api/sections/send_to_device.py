"""Send-to-device messaging.

https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
"""

from typing import Final

from homeserver.services.e2ee.to_device import ToDeviceSending, parse_messages
from homeserver.web.endpoint import EMPTY, Access, RateLimit, Request, Response, Section

# The messages are checked by hand: there may be very many.
MESSAGES: Final = {"type": "object", "required": ["messages"]}
BODY_BYTES_MAX: Final = 4 * 1024 * 1024


def section(sending: ToDeviceSending) -> Section:
    """The endpoints."""
    s = Section("Send-to-device messaging")

    @s.endpoint(
        "PUT",
        "/_matrix/client/v3/sendToDevice/{event_type}/{txn_id}",
        access=Access.GUEST,
        body=MESSAGES,
        body_bytes_max=BODY_BYTES_MAX,
        rate_limit=RateLimit.WRITE,
    )
    async def send_to_device(request: Request) -> Response:
        """Sends messages to devices."""
        messages = parse_messages(request.body["messages"])
        await sending.send(request.requester, request.path["event_type"], request.path["txn_id"], messages)
        return EMPTY

    return s
