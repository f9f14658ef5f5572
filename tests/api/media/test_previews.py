"""Previews of URLs: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web

from homeserver.config.schema import UrlPreviewsConfig
from tests.api.media.api import V1, Gallery, picture
from tests.api.server import CONFIG, Client, Site, composed_server, refused, with_changes
from tests.net.hosts import http_host
from tests.web.harness import Reply

BLOCKED = "127.0.0.2"
PREVIEWS = UrlPreviewsConfig(enabled=True)
PAGE = '<title>Page</title><meta property="og:image" content="/picture"><meta name="description" content="Words">'


@dataclass
class Web:
    """A web server, what it has been asked, and a user who looks at previews of its pages."""

    url: str
    reader: Client
    answers: dict[str, Any]
    asked: list[web.BaseRequest] = field(default_factory=list)

    async def try_preview(self, path: str = "/page", *, language: str | None = None, **query: Any) -> Reply:
        """Asks for a preview."""
        headers = {} if language is None else {"accept-language": language}
        query = {"url": path if ":" in path else f"{self.url}{path}", **query}
        return await self.reader.server.request(
            "GET", f"{V1}/preview_url", token=self.reader.token, headers=headers, query=query
        )

    async def preview(self, path: str = "/page", **query: Any) -> dict[str, Any]:
        """A preview, which must come."""
        reply = await self.try_preview(path, **query)
        assert reply.status == 200, reply.body
        preview: dict[str, Any] = reply.json
        return preview


@asynccontextmanager
async def running_web(database_url: str, previews: UrlPreviewsConfig = PREVIEWS) -> AsyncIterator[Web]:
    """A web server on this machine, and a server that may ask it."""
    answers: dict[str, Any] = {
        "/page": html(PAGE),
        "/picture": lambda _: web.Response(body=picture(80, 40), content_type="image/png"),
    }
    asked: list[web.BaseRequest] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request)
        made = answers.get(request.path)
        response: web.StreamResponse = web.Response(status=404) if made is None else made(request)
        return response

    config = with_changes(
        replace(CONFIG, federation=replace(CONFIG.federation, ip_range_blocklist=(ipaddress.ip_network(BLOCKED),))),
        media={"url_previews": previews},
    )
    async with http_host(answer) as host, composed_server(database_url, config) as site:
        yield Web(f"http://127.0.0.1:{host.port}", await site.register("alice"), answers, asked)


def html(text: str) -> Any:
    return lambda _: web.Response(text=text, content_type="text/html")


@pytest.fixture
async def pages(database_url: str) -> AsyncIterator[Web]:
    """With the usual settings."""
    async with running_web(database_url) as running:
        yield running


async def test_a_page_and_its_picture(pages: Web) -> None:
    preview = await pages.preview()
    uri = preview.pop("og:image")
    assert preview == {
        "og:title": "Page",
        "og:description": "Words",
        "og:url": f"{pages.url}/page",
        "og:image:type": "image/png",
        "og:image:width": 80,
        "og:image:height": 40,
        "matrix:image:size": len(picture(80, 40)),
    }
    shown = await Gallery(pages.reader).download(uri.removeprefix("mxc://"))
    assert (shown.body, shown.headers["content-type"]) == (picture(80, 40), "image/png")


async def test_the_deprecated_path(pages: Web) -> None:
    for version in ("v3", "r0", "v1"):
        body = await pages.reader.get(f"/_matrix/media/{version}/preview_url", url=f"{pages.url}/page")
        assert body["og:title"] == "Page"


async def test_a_preview_is_kept_for_an_hour_and_a_language(pages: Web) -> None:
    first = await pages.preview()
    assert await pages.preview("/page#part") == first
    assert len(pages.asked) == 2
    await pages.preview(language="de, en;q=0.5")
    assert [request.headers["accept-language"] for request in pages.asked] == [
        "en",
        "en",
        "de, en;q=0.5",
        "de, en;q=0.5",
    ]
    pages.reader.server.clock.advance(3601)
    await pages.preview()
    assert len(pages.asked) == 6


async def test_several_at_once_ask_once(pages: Web) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pages.preview()) for _ in range(5)]
    assert len({task.result()["og:image"] for task in tasks}) == 1
    assert len(pages.asked) == 2


async def test_a_picture_is_its_own_preview(pages: Web) -> None:
    preview = await pages.preview("/picture")
    assert (preview["og:image:width"], preview["og:image:type"]) == (80, "image/png")


async def test_what_is_neither_page_nor_picture(pages: Web) -> None:
    pages.answers["/file"] = lambda _: web.Response(body=b"%PDF", content_type="application/pdf")
    pages.answers["/svg"] = lambda _: web.Response(text="<svg onload=alert(1)>", content_type="image/svg+xml")
    assert await pages.preview("/file") == {}
    assert await pages.preview("/svg") == {}
    assert Gallery(pages.reader).files == []


async def test_a_page_goes_without_a_picture_that_does_not_come(pages: Web) -> None:
    for number, target in enumerate(
        ("/absent", f"http://{BLOCKED}/x", "http://127.0.0.1:1/", "/page", "http://u:p@x/")
    ):
        pages.answers[f"/p{number}"] = html(f'<title>T</title><meta property="og:image" content="{target}">')
        assert set(await pages.preview(f"/p{number}")) == {"og:title", "og:url"}


async def test_what_is_told_elsewhere(pages: Web) -> None:
    pages.answers["/video"] = html('<link rel="alternate" type="application/json+oembed" href="/oembed">')
    told = {
        "type": "video",
        "title": "Film",
        "author_name": "A",
        "provider_name": "P",
        "thumbnail_url": f"{pages.url}/picture",
    }
    pages.answers["/oembed"] = lambda _: web.json_response(told)
    preview = await pages.preview("/video")
    assert (preview["og:title"], preview["og:site_name"], preview["og:image:width"]) == ("Film", "P", 80)
    pages.answers["/other"] = pages.answers["/video"]
    pages.answers["/oembed"] = lambda _: web.Response(text="no JSON")
    assert set(await pages.preview("/other")) == {"og:url"}


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/b",
        "file://localhost/etc/passwd",
        "nonsense:",
        "http:///x",
        "http://user:pw@127.0.0.1/",
        "http://[::1/",
        "http://a:0/",
        "http://a/" + "b" * 3000,
    ],
)
async def test_what_is_no_page_of_the_web(pages: Web, url: str) -> None:
    refused(await pages.try_preview(url), 400, "M_INVALID_PARAM")


async def test_wrong_parameters(pages: Web) -> None:
    refused(await pages.reader.call("GET", f"{V1}/preview_url"), 400, "M_MISSING_PARAM")
    refused(await pages.try_preview(ts="yesterday"), 400, "M_INVALID_PARAM")
    refused(await pages.reader.server.anonymous().call("GET", f"{V1}/preview_url"), 401, "M_MISSING_TOKEN")


async def test_pages_that_do_not_come(pages: Web) -> None:
    pages.answers["/broken"] = lambda _: web.Response(status=500)
    for path in ("/broken", "/absent", "http://127.0.0.1:1/"):
        refused(await pages.try_preview(path), 502, "M_UNKNOWN")


async def test_nothing_in_our_network_is_asked(pages: Web) -> None:
    """Lesson S34: not the page, not where it redirects to, not its picture, not what it says of itself elsewhere."""
    connections = 0

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    async with await asyncio.start_server(connected, BLOCKED, 0) as inner:
        secret = f"http://{BLOCKED}:{inner.sockets[0].getsockname()[1]}/secret"
        pages.answers["/away"] = lambda _: web.Response(status=302, headers={"Location": secret})
        pages.answers["/pic"] = html(f'<title>T</title><meta property="og:image" content="{secret}">')
        pages.answers["/emb"] = html(f'<link rel="alternate" type="application/json+oembed" href="{secret}">')
        refused(await pages.try_preview(secret), 502, "M_UNKNOWN")
        refused(await pages.try_preview("/away"), 502, "M_UNKNOWN")
        await pages.preview("/pic")
        await pages.preview("/emb")
    assert connections == 0


async def test_pages_are_bounded(database_url: str) -> None:
    """Lesson S35: of an endless page only the beginning is read; an endless picture is given up."""
    async with running_web(database_url, UrlPreviewsConfig(enabled=True, page_bytes_max=4_000_000)) as pages:
        pages.answers["/page"] = lambda _: web.Response(text=PAGE + " " * 3_000_000, content_type="text/html")
        pages.answers["/picture"] = lambda _: web.Response(body=picture() + b"x" * 5_000_000, content_type="image/png")
        assert set(await pages.preview()) == {"og:title", "og:description", "og:url"}
        refused(await pages.try_preview("/picture"), 502, "M_UNKNOWN")
        assert Gallery(pages.reader).files == []


async def test_only_some_pages(database_url: str) -> None:
    settings = UrlPreviewsConfig(enabled=True, allowed_urls=("127.0.0.1/p*",), denied_urls=("*/private*",))
    async with running_web(database_url, settings) as pages:
        await pages.preview()
        for path in ("/private", "/other", "http://elsewhere/page"):
            refused(await pages.try_preview(path), 403, "M_FORBIDDEN")
        pages.answers["/pass"] = lambda _: web.Response(status=302, headers={"Location": "/private"})
        pages.answers["/private"] = html("<title>Secret")
        refused(await pages.try_preview("/pass"), 403, "M_FORBIDDEN")


async def test_there_are_none_unless_an_operator_wants_them(site: Site, alice: Client) -> None:
    refused(await alice.call("GET", f"{V1}/preview_url", url="http://127.0.0.1/"), 404, "M_UNRECOGNIZED")
