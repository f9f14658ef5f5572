"""The errors that this server answers with: one class per errcode, each with its usual HTTP status.

`web/errors.py` turns them into responses; nothing else does. Raise them from any layer.

https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class MatrixError(Exception):
    """An error for the caller.

    Attributes:
        errcode: the specification's code.
        status: the HTTP status; a class's own, or what the specification says for one endpoint.
        message: a sentence for people; never a secret, never another user's data.
        extra: further members of the JSON body.
    """

    errcode: ClassVar[str] = "M_UNKNOWN"
    default_status: ClassVar[int] = 400

    def __init__(self, message: str = "", *, status: int | None = None, extra: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message or type(self).__name__
        self.status = status or self.default_status
        self.extra: dict[str, Any] = dict(extra or {})

    def body(self) -> dict[str, Any]:
        """The JSON body of the error."""
        return {"errcode": self.errcode, "error": self.message, **self.extra}


class Unknown(MatrixError):
    """Something else went wrong."""


class Forbidden(MatrixError):
    """The caller may not do this."""

    errcode = "M_FORBIDDEN"
    default_status = 403


class Unauthorized(MatrixError):
    """The caller did not show who it is (server-server API)."""

    errcode = "M_UNAUTHORIZED"
    default_status = 401


class UnknownToken(MatrixError):
    """The access token is not known, or no longer; `soft_logout` says whether the session lives on."""

    errcode = "M_UNKNOWN_TOKEN"
    default_status = 401

    def __init__(self, message: str = "Unknown access token", *, soft_logout: bool = False) -> None:
        super().__init__(message, extra={"soft_logout": soft_logout})


class MissingToken(MatrixError):
    """There is no access token with the request."""

    errcode = "M_MISSING_TOKEN"
    default_status = 401


class UserLocked(MatrixError):
    """The account is locked: no request but logout is served, and the session is kept."""

    errcode = "M_USER_LOCKED"
    default_status = 401

    def __init__(self, message: str = "This account has been locked") -> None:
        super().__init__(message, extra={"soft_logout": True})


class UserSuspended(MatrixError):
    """The account is suspended: it may only do what the specification lists."""

    errcode = "M_USER_SUSPENDED"
    default_status = 403


class UserDeactivated(MatrixError):
    """The account has been deactivated."""

    errcode = "M_USER_DEACTIVATED"
    default_status = 403


class GuestAccessForbidden(MatrixError):
    """A guest may not do this."""

    errcode = "M_GUEST_ACCESS_FORBIDDEN"
    default_status = 403


class BadJson(MatrixError):
    """The body is JSON, but not what the endpoint takes."""

    errcode = "M_BAD_JSON"


class NotJson(MatrixError):
    """The body is not JSON."""

    errcode = "M_NOT_JSON"


class NotFound(MatrixError):
    """There is no such thing, or the caller may not know of it."""

    errcode = "M_NOT_FOUND"
    default_status = 404


class LimitExceeded(MatrixError):
    """Too many requests; `retry_after_ms` says when to come again."""

    errcode = "M_LIMIT_EXCEEDED"
    default_status = 429

    def __init__(self, message: str = "Too many requests", *, retry_after_ms: int) -> None:
        super().__init__(message, extra={"retry_after_ms": retry_after_ms})
        self.retry_after_ms = retry_after_ms


class Unrecognized(MatrixError):
    """No such endpoint (404), or not with this method (405)."""

    errcode = "M_UNRECOGNIZED"
    default_status = 404


class UserInUse(MatrixError):
    """The user name is taken."""

    errcode = "M_USER_IN_USE"


class InvalidUsername(MatrixError):
    """The user name does not follow the grammar."""

    errcode = "M_INVALID_USERNAME"


class Exclusive(MatrixError):
    """The name belongs to an application service."""

    errcode = "M_EXCLUSIVE"


class WeakPassword(MatrixError):
    """The password does not meet the policy."""

    errcode = "M_WEAK_PASSWORD"


class RoomInUse(MatrixError):
    """The alias is taken."""

    errcode = "M_ROOM_IN_USE"


class InvalidRoomState(MatrixError):
    """The initial state of a new room is refused by the room's rules."""

    errcode = "M_INVALID_ROOM_STATE"


class UnsupportedRoomVersion(MatrixError):
    """This server does not support the room version."""

    errcode = "M_UNSUPPORTED_ROOM_VERSION"


class IncompatibleRoomVersion(MatrixError):
    """The asking server does not support the room's version."""

    errcode = "M_INCOMPATIBLE_ROOM_VERSION"

    def __init__(self, message: str, *, room_version: str) -> None:
        super().__init__(message, extra={"room_version": room_version})


class MissingParam(MatrixError):
    """A required parameter is absent."""

    errcode = "M_MISSING_PARAM"


class InvalidParam(MatrixError):
    """A parameter has a wrong value."""

    errcode = "M_INVALID_PARAM"


class TooLarge(MatrixError):
    """The request, or the event, is too large."""

    errcode = "M_TOO_LARGE"
    default_status = 413


class BadState(MatrixError):
    """The change does not fit the present state (for example unbanning who is not banned)."""

    errcode = "M_BAD_STATE"


class BadAlias(MatrixError):
    """An alias does not point to the room, or has a wrong form."""

    errcode = "M_BAD_ALIAS"


class DuplicateAnnotation(MatrixError):
    """The user has annotated the event with this key already."""

    errcode = "M_DUPLICATE_ANNOTATION"


class InviteBlocked(MatrixError):
    """The invited user does not want invitations."""

    errcode = "M_INVITE_BLOCKED"
    default_status = 403


class ResourceLimitExceeded(MatrixError):
    """The server has reached a limit set by its operator."""

    errcode = "M_RESOURCE_LIMIT_EXCEEDED"
    default_status = 403


class CannotLeaveServerNoticeRoom(MatrixError):
    """The server notices room cannot be left."""

    errcode = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"
    default_status = 403


class ThreepidDenied(MatrixError):
    """Third-party identifiers of this kind are not accepted here."""

    errcode = "M_THREEPID_DENIED"
    default_status = 403


class ServerNotTrusted(MatrixError):
    """The named server is not trusted by this one."""

    errcode = "M_SERVER_NOT_TRUSTED"


class ProfileTooLarge(MatrixError):
    """The profile would be larger than 64 KiB."""

    errcode = "M_PROFILE_TOO_LARGE"


class KeyTooLarge(MatrixError):
    """The name of a profile field is longer than 255 bytes."""

    errcode = "M_KEY_TOO_LARGE"


class UserLimitExceeded(MatrixError):
    """The user has reached a limit that was set for it."""

    errcode = "M_USER_LIMIT_EXCEEDED"
    default_status = 403


class UnavailableForNow(MatrixError):
    """The server cannot answer at this moment, for example because its database is away; try again later."""

    default_status = 503


class UnableToAuthoriseJoin(MatrixError):
    """The resident server cannot tell whether the user meets a condition of a restricted room."""

    errcode = "M_UNABLE_TO_AUTHORISE_JOIN"


class UnableToGrantJoin(MatrixError):
    """The resident server has nobody in the room who could vouch for the user; another server may have."""

    errcode = "M_UNABLE_TO_GRANT_JOIN"


class RemoteUnavailable(MatrixError):
    """Another server cannot be asked now: not found, not reachable, too slow, or talking nonsense."""

    default_status = 502


class RemoteRefused(MatrixError):
    """Another server has answered with an error.

    Attributes:
        remote_errcode: what it said; `M_UNKNOWN` if that was nothing proper.
        status: its HTTP status.
    """

    def __init__(
        self, message: str, *, remote_errcode: str, status: int, extra: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, status=status, extra=extra)
        self.remote_errcode = remote_errcode

    def body(self) -> dict[str, Any]:
        """The JSON body of the error, with the other server's code."""
        return {**super().body(), "errcode": self.remote_errcode}


class WrongRoomKeysVersion(MatrixError):
    """Keys can only be added to the current backup, which has another version."""

    errcode = "M_WRONG_ROOM_KEYS_VERSION"
    default_status = 403

    def __init__(self, message: str, *, current_version: str) -> None:
        super().__init__(message, extra={"current_version": current_version})


class InvalidSignature(MatrixError):
    """A signature of a key is wrong, or lacking."""

    errcode = "M_INVALID_SIGNATURE"


class NotYetUploaded(MatrixError):
    """The media id has been given out, but nothing has been uploaded for it yet."""

    errcode = "M_NOT_YET_UPLOADED"
    default_status = 504


class CannotOverwriteMedia(MatrixError):
    """The media id has its content already."""

    errcode = "M_CANNOT_OVERWRITE_MEDIA"
    default_status = 409
