"""Content types of media: which are shown in a browser, which pictures can be made smaller.

https://spec.matrix.org/v1.19/client-server-api/#serving-inline-content
"""

import re
from typing import Final

UNKNOWN_TYPE: Final = "application/octet-stream"
CONTENT_TYPE_BYTES_MAX: Final = 255

INLINE_TYPES: Final = frozenset(
    (
        "text/css",
        "text/plain",
        "text/csv",
        "application/json",
        "application/ld+json",
        "image/jpeg",
        "image/gif",
        "image/png",
        "image/apng",
        "image/webp",
        "image/avif",
        "video/mp4",
        "video/webm",
        "video/ogg",
        "video/quicktime",
        "audio/mp4",
        "audio/webm",
        "audio/aac",
        "audio/mpeg",
        "audio/ogg",
        "audio/wave",
        "audio/wav",
        "audio/x-wav",
        "audio/x-pn-wav",
        "audio/flac",
        "audio/x-flac",
    )
)
"""What a browser may show by itself: none of these can hold a program that it would run."""

SNIFFED_BYTES: Final = 32
"""How much of a file's beginning tells what picture it is."""

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a token of HTTP's grammar
_MEDIA_TYPE: Final = re.compile(rf"({_TOKEN}/{_TOKEN})[ \t]*(;[\x20-\x7e\t]*)?")
_AVIF_BRANDS: Final = frozenset((b"avif", b"avis"))


def clean_content_type(value: str | None) -> str:
    """A content type as somebody has said it, if it has the form of one; else the unknown type."""
    text = (value or "").strip()
    if len(text) > CONTENT_TYPE_BYTES_MAX or not _MEDIA_TYPE.fullmatch(text):
        return UNKNOWN_TYPE
    return text


def is_inline(content_type: str) -> bool:
    """Whether a browser may show it; parameters and the case of letters do not count."""
    return content_type.partition(";")[0].strip().lower() in INLINE_TYPES


def sniff_picture(head: bytes) -> str | None:
    """What picture a file is by its first bytes; None if it is none that is ever decoded here.

    What its owner says of a file, and its name, do not count: only these formats reach a decoder.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and head[8:12] in _AVIF_BRANDS:
        return "AVIF"
    return None
