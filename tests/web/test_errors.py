"""Errors as responses."""

import asyncio

import pytest
import structlog

from homeserver.core.errors import Forbidden, LimitExceeded, MatrixError, UnknownToken
from homeserver.web.answer import encode_error, encode_response
from homeserver.web.endpoint import Response
from homeserver.web.errors import MethodNotAllowed, error_response
from storage.errors import DatabaseUnavailable


def test_errors_for_clients_keep_what_they_say() -> None:
    response = error_response(UnknownToken(soft_logout=True))
    assert (response.status, response.headers) == (401, {})
    assert response.body == {"errcode": "M_UNKNOWN_TOKEN", "error": "Unknown access token", "soft_logout": True}
    assert error_response(Forbidden("No", status=400)).status == 400


@pytest.mark.parametrize(("wait_ms", "seconds"), [(1, "1"), (1000, "1"), (1001, "2"), (0, "1")])
def test_limits_say_when_to_come_again(wait_ms: int, seconds: str) -> None:
    response = error_response(LimitExceeded(retry_after_ms=wait_ms))
    assert response.status == 429
    assert response.headers == {"Retry-After": seconds}
    assert response.body["retry_after_ms"] == wait_ms


def test_a_database_that_is_away_is_no_fault_of_the_client() -> None:
    response = error_response(DatabaseUnavailable())
    assert (response.status, response.body["errcode"]) == (503, "M_UNKNOWN")
    assert int(response.headers["Retry-After"]) > 0


def test_wrong_methods_name_the_right_ones() -> None:
    response = error_response(MethodNotAllowed(frozenset({"PUT", "GET"})))
    assert (response.status, response.headers) == (405, {"Allow": "GET, PUT"})


@pytest.mark.parametrize("error", [ValueError("the password is hunter2"), RecursionError(), TimeoutError()])
def test_anything_else_is_logged_and_not_told(error: Exception) -> None:
    with structlog.testing.capture_logs() as lines:
        response = error_response(error)
    assert (response.status, response.body) == (500, {"errcode": "M_UNKNOWN", "error": "Internal server error"})
    assert [(line["log_level"], line["exc_info"]) for line in lines] == [("error", error)]


async def test_an_error_out_of_a_task_group_is_still_the_clients() -> None:
    async def refuse() -> None:
        raise Forbidden("No")

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as group:
            group.create_task(refuse())
    assert error_response(raised.value).status == 403
    mixed = ExceptionGroup("", [Forbidden("No"), ValueError()])
    with structlog.testing.capture_logs():
        assert error_response(mixed).status == 500


def test_what_cannot_be_sent_is_refused_while_it_can_still_be_answered() -> None:
    with pytest.raises(TypeError):
        encode_response(Response({"a": object()}))
    with pytest.raises(TypeError):
        encode_response(Response({"a": "\ud800"}))
    for value in ("a\r\nSet-Cookie: b", "\0", "€"):
        with pytest.raises(ValueError, match="header"):
            encode_response(Response(headers={"Location": value}))


def test_errors_are_known_by_their_errcode() -> None:
    assert encode_error(MatrixError("x")).errcode == "M_UNKNOWN"
    assert encode_response(Response({"errcode": "x"})).errcode is None
