"""Describes the endpoints of sections as an OpenAPI 3.1 document, from the same data that serves them.

https://spec.openapis.org/oas/v3.1.0
"""

import inspect
import re
from collections.abc import Iterable
from typing import Any, Final

from homeserver.web.endpoint import Access, Endpoint, Section
from homeserver.web.routing import path_parameters

_SECURITY: Final[dict[Access, list[dict[str, list[str]]]]] = {
    Access.PUBLIC: [],
    Access.OPTIONAL: [{}, {"accessToken": []}, {"accessTokenQuery": []}],
    Access.USER: [{"accessToken": []}, {"accessTokenQuery": []}],
    Access.GUEST: [{"accessToken": []}, {"accessTokenQuery": []}],
    Access.ADMIN: [{"accessToken": []}, {"accessTokenQuery": []}],
    Access.APPSERVICE: [{"accessToken": []}, {"accessTokenQuery": []}],
    Access.SERVER: [{"signedRequest": []}],
}

_COMPONENTS: Final[dict[str, Any]] = {
    "securitySchemes": {
        "accessToken": {"type": "http", "scheme": "bearer", "description": "An access token from logging in."},
        "accessTokenQuery": {
            "type": "apiKey",
            "in": "query",
            "name": "access_token",
            "description": "Deprecated; tokens in URLs end up in logs.",
        },
        "signedRequest": {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "The scheme X-Matrix: a signature by the asking homeserver.",
        },
    },
    "schemas": {
        "Error": {
            "type": "object",
            "required": ["errcode", "error"],
            "properties": {"errcode": {"type": "string"}, "error": {"type": "string"}},
        }
    },
    "responses": {
        "Error": {
            "description": "An error",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
    },
}


def openapi_document(sections: Iterable[Section], *, title: str, version: str) -> dict[str, Any]:
    """The document of some sections.

    Each operation is listed under its first path; older paths of it stand in `x-aliases`.

    Raises:
        ValueError: two endpoints have the same name.
    """
    paths: dict[str, dict[str, Any]] = {}
    tags, names = [], set()
    for section in sections:
        tags.append({"name": section.title})
        for endpoint in section.endpoints:
            if endpoint.operation in names:
                raise ValueError(f"{endpoint.operation} is the name of two endpoints")
            names.add(endpoint.operation)
            path = paths.setdefault(_plain(endpoint.path), {})
            path[endpoint.method.lower()] = _operation(endpoint, section.title)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "tags": tags,
        "paths": dict(sorted(paths.items())),
        "components": _COMPONENTS,
    }


def _operation(endpoint: Endpoint, tag: str) -> dict[str, Any]:
    description = inspect.getdoc(endpoint.function) or ""
    operation: dict[str, Any] = {
        "operationId": endpoint.operation,
        "tags": [tag],
        "summary": description.partition("\n")[0],
        "security": _SECURITY[endpoint.access],
        "x-access": endpoint.access.value,
        "responses": {"200": {"description": "Success"}, "default": {"$ref": "#/components/responses/Error"}},
    }
    if "\n" in description:
        operation["description"] = description
    if endpoint.rate_limit is not None:
        operation["x-rate-limit"] = endpoint.rate_limit.value
    if endpoint.aliases:
        operation["x-aliases"] = [_plain(alias) for alias in endpoint.aliases]
    parameters = path_parameters(endpoint.path)
    if parameters:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in parameters
        ]
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": endpoint.body_required,
            "content": {"application/json": {"schema": dict(endpoint.body)}},
        }
    elif endpoint.body_streamed:
        binary = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {"required": True, "content": {"*/*": binary}}
    return operation


def _plain(path: str) -> str:
    """A path as OpenAPI writes it: there is no sign for a parameter that takes the rest."""
    return re.sub(r":path\}$", "}", path)
