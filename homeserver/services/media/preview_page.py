"""What a page says of itself: OpenGraph, Twitter cards, and else what stands in it.

It never calls itself, however deep a page is nested, and looks at a bounded part of it.

https://ogp.me/
"""

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

from lxml import etree

PROPERTIES_MAX: Final = 50
VALUE_CHARACTERS_MAX: Final = 1000
DESCRIPTION_CHARACTERS_MAX: Final = 500
ELEMENTS_MAX: Final = 50_000
"""How many elements of a page are looked at."""

_SPACE: Final = re.compile(r"\s+")
_NAME: Final = re.compile(r"og:[a-z0-9_:]{1,60}")
_TWITTER: Final = {
    "twitter:title": "og:title",
    "twitter:description": "og:description",
    "twitter:image": "og:image",
    "twitter:image:src": "og:image",
    "twitter:site": "og:site_name",
}
# Their text is none that a reader would be shown as the beginning of the page.
_NOT_READ: Final = frozenset(
    ("script", "style", "noscript", "template", "header", "nav", "aside", "footer", "svg", "form", "iframe", "button")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSummary:
    """What was found.

    Attributes:
        properties: OpenGraph's, without pictures.
        image_url: the picture that stands for the page, absolute.
        oembed_url: where more is told, absolute.
    """

    properties: Mapping[str, str]
    image_url: str | None = None
    oembed_url: str | None = None


def read_page(content: bytes, *, charset: str | None, url: str) -> PageSummary:
    """Reads a page, however broken it is.

    Args:
        content: the page, or its beginning.
        charset: what was said of its encoding; None or nonsense: what it says itself.
        url: where it came from, for what is relative.
    """
    root = _parsed(content, charset)
    if root is None:
        return PageSummary(properties={})
    found: dict[str, str] = {}
    cards: dict[str, str] = {}
    oembed_url: str | None = None
    title = description = heading = ""
    for number, element in enumerate(root.iter(etree.Element)):
        if number >= ELEMENTS_MAX:
            break
        match element.tag:
            case "meta":
                name = (element.get("property") or element.get("name") or "").strip().lower()
                value = _clean(element.get("content") or "")
                if value and _NAME.fullmatch(name) and len(found) < PROPERTIES_MAX:
                    found.setdefault(name, value)
                elif value and name in _TWITTER:
                    cards.setdefault(_TWITTER[name], value)
                elif name == "description":
                    description = description or value
            case "title":
                title = title or _clean(element.text or "")
            case "h1":
                heading = heading or _clean("".join(_texts(element)))
            case "link":
                oembed_url = oembed_url or _oembed_url(element, url)
            case _:
                pass
    _fill(found, {**cards, "og:title": cards.get("og:title") or title or heading, "og:description": description})
    if "og:description" not in found:
        _fill(found, {"og:description": _beginning(root)})
    image = found.get("og:image:secure_url") or found.get("og:image") or found.get("og:image:url")
    properties = {name: value for name, value in found.items() if not name.startswith("og:image")}
    return PageSummary(properties=properties, image_url=_absolute(url, image) if image else None, oembed_url=oembed_url)


def _parsed(content: bytes, charset: str | None) -> "etree._Element | None":
    parser = etree.HTMLParser(
        encoding=_known(charset), recover=True, no_network=True, remove_comments=True, remove_pis=True, huge_tree=False
    )
    try:
        return etree.fromstring(content, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None


def _known(charset: str | None) -> str | None:
    """An encoding that both Python and the parser know."""
    try:
        return None if charset is None else codecs.lookup(charset).name
    except (LookupError, ValueError):
        return None


def _fill(found: dict[str, str], more: Mapping[str, str]) -> None:
    for name, value in more.items():
        if value:
            found.setdefault(name, value)


def _oembed_url(element: "etree._Element", url: str) -> str | None:
    rel = (element.get("rel") or "").lower().split()
    kind = (element.get("type") or "").lower().strip()
    href = element.get("href")
    if "alternate" in rel and kind == "application/json+oembed" and href:
        return _absolute(url, href)
    return None


def _beginning(root: "etree._Element") -> str:
    """The first words that a reader of the page sees."""
    body = root.find("body")
    if body is None:
        return ""
    words: list[str] = []
    length = 0
    for text in _texts(body):
        cleaned = _clean(text)
        if cleaned:
            words.append(cleaned)
            length += len(cleaned) + 1
        if length > DESCRIPTION_CHARACTERS_MAX:
            break
    text = " ".join(words)
    if len(text) <= DESCRIPTION_CHARACTERS_MAX:
        return text
    return text[:DESCRIPTION_CHARACTERS_MAX].rpartition(" ")[0] + "…"


def _texts(top: "etree._Element") -> Iterator[str]:
    """The texts inside of an element in their order, by a list of what is left in place of recursion."""
    left: list[etree._Element | str] = [top]
    seen = 0
    while left and seen < ELEMENTS_MAX:
        seen += 1
        part = left.pop()
        if isinstance(part, str):
            yield part
            continue
        if part is not top and part.tail:
            left.append(part.tail)
        if part.tag in _NOT_READ:
            continue
        left.extend(reversed(part))
        if part.text:
            yield part.text


def _clean(text: str) -> str:
    return _SPACE.sub(" ", text).strip().replace("\0", "")[:VALUE_CHARACTERS_MAX]


def _absolute(url: str, reference: str) -> str | None:
    """Where a reference leads, if that is a page of the web."""
    try:
        absolute = urljoin(url, reference.strip())
        parts = urlsplit(absolute)
    except ValueError:
        return None
    return absolute if parts.scheme in ("http", "https") and parts.hostname else None
