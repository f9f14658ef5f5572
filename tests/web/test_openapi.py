"""The OpenAPI document of sections."""

import orjson
import pytest

from homeserver.web.endpoint import EMPTY, Request, Response, Section
from homeserver.web.openapi import openapi_document
from tests.web.example_sections import Witness, access_section, echo_section, slow_section


def document() -> dict[str, object]:
    """The document of the examples."""
    sections = [echo_section(Witness()), access_section(Witness()), slow_section(Witness())]
    made = openapi_document(sections, title="Example", version="1")
    return orjson.loads(orjson.dumps(made))  # type: ignore[no-any-return]


def test_an_operation_says_all_that_its_endpoint_says() -> None:
    paths = document()["paths"]
    assert isinstance(paths, dict)
    assert paths["/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}"]["put"] == {
        "operationId": "send_message",
        "tags": ["Echo"],
        "summary": "Sends a message.",
        "description": "Sends a message.\n\nWith a second paragraph.",
        "security": [{"accessToken": []}, {"accessTokenQuery": []}],
        "x-access": "user",
        "x-rate-limit": "message",
        "x-aliases": ["/_matrix/client/r0/rooms/{room_id}/send/{event_type}/{txn_id}"],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in ("room_id", "event_type", "txn_id")
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        "responses": {"200": {"description": "Success"}, "default": {"$ref": "#/components/responses/Error"}},
    }


def test_paths_methods_and_access() -> None:
    paths = document()["paths"]
    assert isinstance(paths, dict)
    assert "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/{state_key}" in paths
    assert set(paths["/_matrix/client/v3/slow"]) == {"get", "put"}
    assert paths["/_matrix/client/versions"]["get"]["security"] == []
    assert paths["/_matrix/client/v3/access/optional"]["get"]["security"][0] == {}
    assert paths["/_matrix/federation/v1/send/{txn_id}"]["put"]["security"] == [{"signedRequest": []}]
    assert paths["/_matrix/client/v3/optional_body"]["post"]["requestBody"]["required"] is False
    assert "requestBody" not in paths["/_matrix/client/v3/no_body"]["post"]
    assert "*/*" in paths["/_matrix/media/v3/upload"]["post"]["requestBody"]["content"]


def test_every_reference_leads_somewhere() -> None:
    made = document()
    text = orjson.dumps(made).decode()
    for reference in {part.partition('"')[0] for part in text.split('"$ref":"')[1:]}:
        place = made
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]  # type: ignore[assignment]
        assert place


def test_names_must_be_unique() -> None:
    twice = Section("Twice")

    async def function(request: Request) -> Response:
        return EMPTY

    for path in ("/a", "/b"):
        twice.endpoint("GET", path, operation="same")(function)
    with pytest.raises(ValueError, match="same"):
        openapi_document([twice], title="x", version="1")
