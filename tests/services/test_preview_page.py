"""What is read out of pages: https://ogp.me/."""

import pytest

from homeserver.services.media.preview_page import (
    DESCRIPTION_CHARACTERS_MAX,
    PROPERTIES_MAX,
    VALUE_CHARACTERS_MAX,
    PageSummary,
    read_page,
)

URL = "https://example.org/a/page"


def read(text: str, *, charset: str | None = "utf-8", encoding: str = "utf-8") -> PageSummary:
    return read_page(text.encode(encoding), charset=charset, url=URL)


def test_opengraph() -> None:
    page = read(
        """<html><head><title>Else</title><meta property="og:title" content=" A  title ">
        <meta name="og:type" content="x">
        <meta property="og:title" content="Second"><meta property="og:image" content="/i.png">
        <meta property="og:image:width" content="99999"><meta property="og:description" content="D&eacute;"></head>"""
    )
    assert page.properties == {"og:title": "A title", "og:type": "x", "og:description": "Dé"}
    assert page.image_url == "https://example.org/i.png"


def test_twitter_cards_stand_in() -> None:
    page = read(
        '<meta name="twitter:title" content="T"><meta name="twitter:image" content="i.png">'
        '<meta property="og:description" content="D"><meta name="twitter:description" content="other">'
    )
    assert page.properties == {"og:title": "T", "og:description": "D"}
    assert page.image_url == "https://example.org/a/i.png"


def test_a_page_that_says_nothing_of_itself() -> None:
    page = read(
        """<html><head><title>Title</title></head><body><nav>Menu</nav><script>var x</script><style>a{}</style>
        <h1>Heading</h1><p>First <b>bold</b> words.</p><!-- hidden --><footer>Imprint</footer> The end</body></html>"""
    )
    assert page.properties == {"og:title": "Title", "og:description": "Heading First bold words. The end"}
    assert read("<h1>Only <i>this</i></h1>").properties["og:title"] == "Only this"


def test_where_more_is_told() -> None:
    link = '<link rel="alternate" type="application/json+oembed" href="/oembed?url=x&amp;y=z">'
    assert read(link).oembed_url == "https://example.org/oembed?url=x&y=z"
    assert read(link.replace("alternate", "stylesheet")).oembed_url is None


@pytest.mark.parametrize(
    "target", ["file://localhost/etc/passwd", "javascript:alert(1)", "data:image/png;base64,x", "http://[::1"]
)
def test_pictures_are_on_the_web(target: str) -> None:
    assert read(f'<meta property="og:image" content="{target}">').image_url is None


@pytest.mark.parametrize(
    ("said", "inside", "encoding"),
    [
        ("iso-8859-1", "", "latin-1"),
        (None, "<meta charset=windows-1251>", "windows-1251"),
        ("nonsense", "<meta charset=utf-8>", "utf-8"),
        ("utf-8", "<meta charset=latin-1>", "utf-8"),
        ("shift_jis", "", "shift_jis"),
    ],
)
def test_encodings(said: str | None, inside: str, encoding: str) -> None:
    word = {"windows-1251": "Привет", "shift_jis": "こんにちは"}.get(encoding, "Grüße")
    assert read(f"{inside}<title>{word}</title>", charset=said, encoding=encoding).properties["og:title"] == word


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\0", b"\xff\xfe\xfd", b"<", b"<!DOCTYPE html>", b"<?xml version='1.0'?>", b"plain text", b"<a" * 1000],
)
def test_what_is_hardly_a_page(content: bytes) -> None:
    read_page(content, charset=None, url=URL)


def test_a_page_that_is_nested_very_deeply() -> None:
    """Lesson S35: nothing calls itself however deep it is."""
    for tag in ("div", "b", "h1", "table", "template"):
        page = read("<title>Deep</title>" + f"<{tag}>" * 200_000 + "words")
        assert page.properties["og:title"] == "Deep"


def test_entities_are_not_expanded_without_end() -> None:
    """Nor is anything fetched while a page is read."""
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    read(
        f'<!DOCTYPE x [<!ENTITY l0 "lol">{laughs}<!ENTITY f SYSTEM "file://localhost/etc/passwd">]><title>&l9;&f;</title>'
    )


def test_a_page_that_says_too_much() -> None:
    many = "".join(f'<meta property="og:x{n}" content="{"y" * 5000}">' for n in range(500))
    page = read(f"{many}<body><p>{'word ' * 5000}")
    assert len(page.properties) <= PROPERTIES_MAX + 2
    assert max(len(value) for value in page.properties.values()) <= VALUE_CHARACTERS_MAX
    assert len(page.properties["og:description"]) <= DESCRIPTION_CHARACTERS_MAX + 1
