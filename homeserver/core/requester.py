"""Who is asking: the outcome of authenticating a client's request."""

from dataclasses import dataclass

from homeserver.core.ids import DeviceId, UserId


@dataclass(frozen=True, slots=True)
class Requester:
    """An authenticated client.

    Attributes:
        user_id: the acting user (for an application service, the masqueraded one).
        device_id: the device of the session, if it has one.
        session_id: the session behind the access token; None for application services.
        is_guest: a guest account, which may do only what the specification lists.
        is_admin: a server administrator.
        is_suspended: may only do what the specification lists for suspended accounts.
        appservice_id: the id of the application service that asks, if one does.
    """

    user_id: UserId
    device_id: DeviceId | None = None
    session_id: int | None = None
    is_guest: bool = False
    is_admin: bool = False
    is_suspended: bool = False
    appservice_id: str | None = None
