"""User-interactive authentication: a request is answered only after its user has passed the stages of a flow.

A session is bound to who asks, to the operation and to its parameters; it serves nothing else and, once its flow is
complete, only once. Its identifier is known to the client alone: here its hash is stored, and the parameters as a MAC
under it, so that a copy of the database tells nothing of the passwords that parameters may hold.

https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from homeserver.core.clock import Clock
from homeserver.core.errors import BadJson, Forbidden, MatrixError
from homeserver.core.ids import UserId
from homeserver.services.accounts.opaque_tokens import new_token, token_hash
from storage import uia_sessions
from storage.database import Database
from storage.uia_sessions import UiaSessionRow

SESSION_LIFETIME_MS: Final = 15 * 60_000

Flow = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UiaOperation:
    """What is to be authenticated.

    Attributes:
        name: which operation, on what.
        flows: the flows that are offered, each the types of its stages in their order.
        user_id: who asks; None if the request itself does not say.
        parameters: the request without its `auth`, in one form of encoding.
        ip: where the request comes from.
        parameters_may_change: the operation itself looks after its parameters (registration).
    """

    name: str
    flows: Sequence[Flow]
    user_id: UserId | None
    parameters: bytes = field(repr=False)
    ip: str
    parameters_may_change: bool = False


@dataclass(frozen=True, slots=True)
class UiaSession:
    """A session with its secret identifier."""

    session_id: str = field(repr=False)
    row: UiaSessionRow

    def mac(self, text: bytes) -> bytes:
        """What can be stored of a text in place of it: nothing without the session's identifier."""
        return hmac.digest(self.session_id.encode(errors="surrogatepass"), text, hashlib.sha256)


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """What a passed stage has shown: whom it authenticated, or which registration token it took."""

    user_id: UserId | None = None
    registration_token: str | None = None


class StageFailed(Exception):
    """The stage was not passed; the client may try again.

    Attributes:
        reason: the errcode and message to tell.
    """

    def __init__(self, reason: MatrixError) -> None:
        super().__init__(reason.message)
        self.reason = reason


class Stage(Protocol):
    """One type of authentication."""

    @property
    def type(self) -> str:
        """Its name in the specification."""
        ...

    @property
    def params(self) -> Mapping[str, Any] | None:
        """What a client must know to pass it."""
        ...

    async def check(self, auth: Mapping[str, Any], *, user_id: UserId | None, ip: str) -> StageOutcome:
        """Judges an attempt.

        Args:
            auth: what the client sent.
            user_id: who has to be authenticated; None if anybody.
            ip: where it comes from.

        Raises:
            StageFailed: the attempt was not right.
            MatrixError: it cannot be judged, for example for too many attempts.
        """
        ...


class AuthenticationNeeded(MatrixError):
    """The answer that asks for (further) authentication: status 401 with the flows and the session.

    Attributes:
        reason: why a stage was not passed, if one was attempted.
    """

    default_status = 401

    def __init__(self, members: Mapping[str, Any], reason: MatrixError | None) -> None:
        super().__init__("Further authentication is needed")
        self._members = dict(members)
        self.reason = reason

    def body(self) -> dict[str, Any]:
        """The members of the specification's 401 response; errcode and error only if a stage was not passed."""
        if self.reason is None:
            return self._members
        return {"errcode": self.reason.errcode, "error": self.reason.message, **self._members}


class UserInteractiveAuth:
    """Conducts user-interactive authentications."""

    def __init__(self, *, db: Database, clock: Clock, stages: Sequence[Stage]) -> None:
        self._db = db
        self._clock = clock
        self._stages = {stage.type: stage for stage in stages}

    async def authenticate(self, operation: UiaOperation, auth: Mapping[str, Any] | None) -> UserId | None:
        """Lets a request through that has passed its stages, once.

        Returns:
            who was authenticated: the asking user, or whom the stages have shown.

        Raises:
            AuthenticationNeeded: there are stages to pass.
            Forbidden: the session was begun for something else, or somebody else was authenticated.
            MatrixError: as the stages do.
        """
        session = await self.proceed(operation, await self.open(operation, auth), auth)
        async with self._db.connection() as conn:
            ended = await uia_sessions.delete_uia_session(conn, session.row.session_hash)
        if not ended:
            raise self._needed(operation, await self._begin(operation))
        return operation.user_id or session.row.authenticated_user_id

    async def open(self, operation: UiaOperation, auth: Mapping[str, Any] | None) -> UiaSession:
        """The session that a request continues, or a new one if it names none.

        Raises:
            AuthenticationNeeded: the session is not known (any more); a new one has been begun.
            Forbidden: the session was begun for something else.
            BadJson: the session is named in a wrong way.
        """
        session_id = auth.get("session") if auth is not None else None
        if session_id is None:
            return await self._begin(operation)
        if not isinstance(session_id, str):
            raise BadJson("auth.session must be a string")
        session = await self.find(operation, session_id)
        if session is None:
            raise self._needed(operation, await self._begin(operation))
        return session

    async def find(self, operation: UiaOperation, session_id: str) -> UiaSession | None:
        """A session that has not expired.

        Raises:
            Forbidden: it was begun for something else.
        """
        async with self._db.connection() as conn:
            row = await uia_sessions.find_uia_session(conn, token_hash(session_id), now_ms=self._clock.now_ms())
        if row is None:
            return None
        session = UiaSession(session_id=session_id, row=row)
        if row.operation != operation.name or row.user_id != operation.user_id:
            raise Forbidden("The session was begun for another operation")
        unchanged = hmac.compare_digest(row.parameters_hash, session.mac(operation.parameters))
        if not unchanged and not operation.parameters_may_change:
            raise Forbidden("The request has changed since the session was begun")
        return session

    async def proceed(self, operation: UiaOperation, session: UiaSession, auth: Mapping[str, Any] | None) -> UiaSession:
        """Judges the stage that a request attempts; the session, if its flow is complete now.

        Raises:
            AuthenticationNeeded: there are stages to pass.
            MatrixError: as the stages do.
        """
        if auth is not None and auth.get("type") is not None:
            session = await self.attempt(operation, session, auth)
        if session.row.completed not in operation.flows:
            raise self._needed(operation, session)
        return session

    async def attempt(self, operation: UiaOperation, session: UiaSession, auth: Mapping[str, Any]) -> UiaSession:
        """Judges one stage, unless it has been passed before; the session after it.

        Raises:
            AuthenticationNeeded: it was not passed, for this `reason`.
            MatrixError: as the stage does.
        """
        completed = session.row.completed
        stage_type = auth.get("type")
        if stage_type in completed:
            return session
        next_stages = {
            flow[len(completed)]
            for flow in operation.flows
            if len(flow) > len(completed) and flow[: len(completed)] == completed
        }
        stage = self._stages.get(stage_type) if isinstance(stage_type, str) and stage_type in next_stages else None
        if stage is None:
            raise self._needed(operation, session, Forbidden("This stage is not the next one of any flow"))
        try:
            outcome = await stage.check(auth, user_id=operation.user_id, ip=operation.ip)
        except StageFailed as failure:
            raise self._needed(operation, session, failure.reason) from None
        async with self._db.connection() as conn:
            completed = await uia_sessions.complete_stage(
                conn,
                session.row.session_hash,
                stage.type,
                authenticated_user_id=outcome.user_id,
                registration_token=outcome.registration_token,
            )
        row = replace(
            session.row,
            completed=completed,
            authenticated_user_id=outcome.user_id or session.row.authenticated_user_id,
            registration_token=outcome.registration_token or session.row.registration_token,
        )
        return replace(session, row=row)

    async def _begin(self, operation: UiaOperation) -> UiaSession:
        session_id, now_ms = new_token(), self._clock.now_ms()
        row = UiaSessionRow(
            session_hash=token_hash(session_id),
            operation=operation.name,
            user_id=operation.user_id,
            parameters_hash=b"",
            completed=(),
            authenticated_user_id=None,
            registration_token=None,
            registration=None,
            registered_user_id=None,
            expires_ts=now_ms + SESSION_LIFETIME_MS,
        )
        session = UiaSession(session_id=session_id, row=row)
        parameters_hash = session.mac(operation.parameters)
        async with self._db.connection() as conn:
            await uia_sessions.insert_uia_session(
                conn,
                row.session_hash,
                operation=operation.name,
                user_id=operation.user_id,
                parameters_hash=parameters_hash,
                expires_ts=row.expires_ts,
                now_ms=now_ms,
            )
        return replace(session, row=replace(row, parameters_hash=parameters_hash))

    def _needed(
        self, operation: UiaOperation, session: UiaSession, reason: MatrixError | None = None
    ) -> AuthenticationNeeded:
        types = {stage_type for flow in operation.flows for stage_type in flow}
        members = {
            "session": session.session_id,
            "flows": [{"stages": list(flow)} for flow in operation.flows],
            "params": {
                stage_type: dict(stage.params)
                for stage_type, stage in self._stages.items()
                if stage_type in types and stage.params is not None
            },
            "completed": list(session.row.completed),
        }
        return AuthenticationNeeded(members, reason)
