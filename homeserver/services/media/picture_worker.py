"""The process that decodes pictures: what it is fed may be made to harm a decoder, so it holds nothing and may do
little.

It reads jobs from standard input, each a line of JSON, and answers each with a line of JSON and as many bytes as that
says. It cannot write files, has limits of memory and of time on the processor, and ends when its input does. Whoever
starts it gives it an empty environment (`picture_processes.py`).

https://spec.matrix.org/v1.19/client-server-api/#thumbnails
"""

import io
import json
import resource
import sys
from typing import Any, Final, TypedDict

from PIL import Image, ImageOps

MEMORY_BYTES_MAX: Final = 1536 * 1024 * 1024
PROCESSOR_SECONDS_MAX: Final = 600
OPEN_FILES_MAX: Final = 64
FRAMES_MAX: Final = 300
ANIMATED_PIXELS_MAX: Final = 60_000_000
"""Of all frames of an animation together, as they are shown; a longer one stands still."""

_FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP", "AVIF")
_TYPES: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
_JPEG_QUALITY: Final = 82
_WEBP_QUALITY: Final = 78
_RESAMPLING: Final = Image.Resampling.LANCZOS


class Job(TypedDict):
    """What is wanted: a thumbnail of a file, or only its size (`method` is `size`)."""

    path: str
    method: str
    width: int
    height: int
    animated: bool
    pixels_max: int


class TooManyPixels(Exception):
    """The picture is larger than is decoded."""


def main() -> None:
    """Does jobs until there are no more."""
    _limit_itself()
    Image.MAX_IMAGE_PIXELS = None  # checked here, before anything is decoded
    out = sys.stdout.buffer
    for line in sys.stdin.buffer:
        head, data = answer(json.loads(line))
        out.write(json.dumps({**head, "bytes": len(data)}).encode() + b"\n" + data)
        out.flush()


def answer(job: Job) -> tuple[dict[str, Any], bytes]:
    """Does a job; the answer's `outcome` is `made` (with the bytes), `original` (the file is small enough itself),
    `too_large`, or `unreadable`."""
    try:
        with Image.open(job["path"], formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height > job["pixels_max"]:
                raise TooManyPixels
            if job["method"] == "size":
                shown_width, shown_height = _shown_size(picture)
                return {"outcome": "size", "width": shown_width, "height": shown_height}, b""
            return _thumbnail(picture, job)
    except TooManyPixels:
        return {"outcome": "too_large"}, b""
    except MemoryError:
        return {"outcome": "too_large"}, b""
    except Exception as error:  # noqa: BLE001 - decoders raise anything, and none of it may end the process
        return {"outcome": "unreadable", "reason": type(error).__name__}, b""


def _thumbnail(picture: Image.Image, job: Job) -> tuple[dict[str, Any], bytes]:
    wanted = (job["width"], job["height"])
    is_animation = getattr(picture, "is_animated", False)
    shown_animated = job["animated"] and is_animation
    original_type = _TYPES.get(picture.format or "")
    width, height = _shown_size(picture)
    is_small = width <= wanted[0] and height <= wanted[1]
    if is_small and job["method"] == "scale" and original_type and (shown_animated or not is_animation):
        picture.load()  # a truncated file is no thumbnail of itself
        return {"outcome": "original", "type": original_type}, b""
    if shown_animated:
        animation = _animation(picture, job)
        if animation is not None:
            return {"outcome": "made", "type": "image/webp"}, animation
    if picture.format == "JPEG":
        picture.draft("RGB", (wanted[0] * 2, wanted[1] * 2))
    frame = _sized(ImageOps.exif_transpose(_plain(picture)), job["method"], wanted)
    return _encoded(frame, picture.format or "")


def _shown_size(picture: Image.Image) -> tuple[int, int]:
    """The size as it is shown: the EXIF orientation may turn it."""
    width, height = picture.size
    is_turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (height, width) if is_turned else (width, height)


def _plain(picture: Image.Image) -> Image.Image:
    """The picture in a form that can be resized: in full colours, with transparency only where there is some."""
    exif = picture.getexif()
    picture.load()
    if picture.mode in ("P", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        plain = picture.convert("RGBA")
    elif picture.mode in ("RGB", "RGBA", "L"):
        plain = picture
    else:
        plain = picture.convert("RGB")
    if plain.mode == "RGBA" and plain.getchannel("A").getextrema() == (255, 255):
        plain = plain.convert("RGB")
    plain.getexif().update(exif)
    return plain


def _sized(picture: Image.Image, method: str, wanted: tuple[int, int]) -> Image.Image:
    """The picture made smaller, never larger."""
    width, height = picture.size
    if method == "scale":
        factor = min(wanted[0] / width, wanted[1] / height, 1.0)
        return picture.resize((max(1, round(width * factor)), max(1, round(height * factor))), _RESAMPLING)
    # The largest part of the middle that has the wanted shape, at most as large as wanted.
    ratio = wanted[0] / wanted[1]
    part_width, part_height = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - part_width) / 2, (height - part_height) / 2
    size = (max(1, min(wanted[0], round(part_width))), max(1, min(wanted[1], round(part_height))))
    return picture.resize(size, _RESAMPLING, box=(left, top, left + part_width, top + part_height))


def _encoded(picture: Image.Image, source_format: str) -> tuple[dict[str, Any], bytes]:
    """Photographs as JPEG; what has transparency, or comes from a format for drawings, as PNG."""
    data = io.BytesIO()
    as_png = picture.mode == "RGBA" or source_format in ("PNG", "GIF")
    # Nothing of what the picture says of itself goes along: where it was taken, for example.
    clean = Image.new(picture.mode, picture.size)
    clean.paste(picture)
    if as_png:
        clean.save(data, "PNG", optimize=False)
    else:
        clean.save(data, "JPEG", quality=_JPEG_QUALITY, progressive=True)
    return {"outcome": "made", "type": "image/png" if as_png else "image/jpeg"}, data.getvalue()


def _animation(picture: Image.Image, job: Job) -> bytes | None:
    """An animated thumbnail; None if it would be too long."""
    count = getattr(picture, "n_frames", 1)
    if count > FRAMES_MAX or count * picture.width * picture.height > ANIMATED_PIXELS_MAX:
        return None
    wanted = (job["width"], job["height"])
    frames, durations = [], []
    for number in range(count):
        picture.seek(number)
        durations.append(max(10, int(picture.info.get("duration", 100))))
        frames.append(_sized(picture.convert("RGBA"), job["method"], wanted))
    data = io.BytesIO()
    frames[0].save(
        data,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=int(picture.info.get("loop", 0)),
        quality=_WEBP_QUALITY,
        method=2,
    )
    return data.getvalue()


def _limit_itself() -> None:
    for kind, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES_MAX),
        (resource.RLIMIT_CPU, PROCESSOR_SECONDS_MAX),
        (resource.RLIMIT_NOFILE, OPEN_FILES_MAX),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (value, value))


if __name__ == "__main__":
    main()
