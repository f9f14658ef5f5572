"""The stages of user-interactive authentication that this server knows.

https://spec.matrix.org/v1.19/client-server-api/#authentication-types
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from homeserver.config.schema import TermsConfig
from homeserver.core.clock import Clock
from homeserver.core.errors import BadJson, Forbidden, MissingParam, Unauthorized, Unknown
from homeserver.core.ids import UserId
from homeserver.services.accounts.credentials import Credentials
from homeserver.services.accounts.uia import StageFailed, StageOutcome
from storage import registration_tokens
from storage.database import Database

PASSWORD: Final = "m.login.password"  # noqa: S105 - the name of a type, as those below
DUMMY: Final = "m.login.dummy"
TERMS: Final = "m.login.terms"
REGISTRATION_TOKEN: Final = "m.login.registration_token"  # noqa: S105

IDENTIFIER_USER: Final = "m.id.user"
IDENTIFIERS_THIRD_PARTY: Final = frozenset({"m.id.thirdparty", "m.id.phone"})


def identified_user(auth: Mapping[str, Any]) -> str | None:
    """The user that a login or a stage names by `identifier` or, as of old, by `user`; None if it names none.

    Raises:
        Forbidden: it names somebody by an address that this server does not know.
        Unknown: it uses a type of identifier that this server does not know.
        BadJson: the identifier has a wrong form.
        MissingParam: the identifier lacks a member.
    """
    identifier = auth.get("identifier")
    if identifier is None:
        if "medium" in auth or "address" in auth:
            raise Forbidden("Wrong user name or password")
        identifier = {"type": IDENTIFIER_USER, "user": auth["user"]} if "user" in auth else None
    if identifier is None:
        return None
    if not isinstance(identifier, dict):
        raise BadJson("identifier must be an object")
    kind = identifier.get("type")
    if kind is not None and not isinstance(kind, str):
        raise BadJson("identifier.type must be a string")
    if kind in IDENTIFIERS_THIRD_PARTY or (kind is None and "medium" in identifier):
        raise Forbidden("Wrong user name or password")
    if kind != IDENTIFIER_USER:
        raise Unknown("Unknown type of identifier")
    if "user" not in identifier:
        raise MissingParam("Missing identifier.user")
    if not isinstance(identifier["user"], str):
        raise BadJson("identifier.user must be a string")
    return str(identifier["user"])


class DummyStage:
    """`m.login.dummy`: passed by asking."""

    type = DUMMY
    params = None

    async def check(self, auth: Mapping[str, Any], *, user_id: UserId | None, ip: str) -> StageOutcome:
        """Passes."""
        return StageOutcome()


class PasswordStage:
    """`m.login.password`: the password of the asking user."""

    type = PASSWORD
    params = None

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def check(self, auth: Mapping[str, Any], *, user_id: UserId | None, ip: str) -> StageOutcome:
        """Passes with the right password.

        Raises:
            StageFailed: it is wrong.
            Forbidden: it is another user's.
            BadJson, MissingParam: there is none, or it is said wrongly whose it is.
            LimitExceeded: there were too many wrong ones.
        """
        password = auth.get("password")
        if password is None:
            raise MissingParam("Missing auth.password")
        if not isinstance(password, str):
            raise BadJson("auth.password must be a string")
        user = identified_user(auth) or user_id
        if user is None:
            raise MissingParam("Missing auth.identifier")
        if user_id is not None and self._credentials.user_id_named(user) != user_id:
            raise Forbidden("The request must be authenticated by its own user")
        try:
            row = await self._credentials.check(user, password, ip=ip)
        except Forbidden as error:
            raise StageFailed(Forbidden(error.message)) from None
        return StageOutcome(user_id=row.user_id)


class TermsStage:
    """`m.login.terms`: the user accepts the documents that it was shown."""

    type = TERMS

    def __init__(self, terms: Sequence[TermsConfig]) -> None:
        self.params: Mapping[str, Any] | None = {
            "policies": {
                document.id: {"version": document.version, "en": {"name": document.name, "url": document.url}}
                for document in terms
            }
        }

    async def check(self, auth: Mapping[str, Any], *, user_id: UserId | None, ip: str) -> StageOutcome:
        """Passes: to ask is to accept."""
        return StageOutcome()


class RegistrationTokenStage:
    """`m.login.registration_token`: a token that an administrator has made."""

    type = REGISTRATION_TOKEN
    params = None

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def check(self, auth: Mapping[str, Any], *, user_id: UserId | None, ip: str) -> StageOutcome:
        """Passes with a token that may be used.

        Raises:
            StageFailed: it may not, or not any more.
            BadJson, MissingParam: there is none.
        """
        token = auth.get("token")
        if token is None:
            raise MissingParam("Missing auth.token")
        if not isinstance(token, str):
            raise BadJson("auth.token must be a string")
        now_ms = self._clock.now_ms()
        async with self._db.connection() as conn:
            row = await registration_tokens.find_registration_token(conn, token.replace("\0", ""), now_ms=now_ms)
        if row is None or row.token != token or not row.usable(now_ms):
            raise StageFailed(Unauthorized("The registration token is not valid"))
        return StageOutcome(registration_token=token)
