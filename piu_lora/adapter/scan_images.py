"""Pictures in an adapter folder: which files are some, and where the metadata of a PNG begins.

The only picture that is pushed is the curve of the loss, a PNG; any other stays behind, whatever it holds.
"""

import mmap
import re
import struct
from collections.abc import Iterator
from pathlib import Path

__all__ = ["image_kind", "metadata_offset"]

_PNG = b"\x89PNG\r\n\x1a\n"
_OTHERS = re.compile(
    rb"\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II[*+]\x00|MM\x00[*+]|....ftyp(?:hei|hev|mif|avi|msf)"
    rb"|BM....\x00\x00\x00\x00|\x00\x00\x00\x0cJXL |\xff\x0a",
    re.DOTALL,
)
_SUFFIX = re.compile(r"\.(?:png|jpe?g|webp|tiff?|gif|bmp|heic|heif|avif|jxl)", re.IGNORECASE)
# What looks like metadata where the structure of the file is not understood.
_TRACES = re.compile(
    rb"Exif\x00\x00|(?<=.{8})EXIF.{4}(?:II|MM)|http://ns\.adobe\.com/xap|<x:xmpmeta"
    rb"|Photoshop 3\.0\x00|(?<=.{4})(?:eXIf|tEXt|iTXt|zTXt)",
    re.DOTALL,
)
# The program that made it: a version and a home page, nothing else.
_PROGRAM = re.compile(
    rb"(?:Matplotlib|Pillow)(?: ?version)? ?[\d.]*(?:\.?(?:rc|post|dev)\d*)?(?:, https?://matplotlib\.org/)?"
)
_TEXTS = {b"eXIf", b"tEXt", b"iTXt", b"zTXt"}


def image_kind(path: Path) -> str | None:
    """``png`` or ``other`` for a picture, ``unknown`` where only its name says so; None for other files."""
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(_PNG):
        return "png"
    if _OTHERS.match(head):
        return "other"
    return "unknown" if _SUFFIX.fullmatch(path.suffix) else None


def metadata_offset(path: Path) -> int | None:
    """Where the metadata of a PNG begins; None where there is none, or where the file is no picture.

    Of a picture of another kind it is the beginning: it is not looked into, so it is not trusted.
    """
    kind = image_kind(path)
    if kind is None or not path.stat().st_size:
        return None
    if kind == "other":
        return 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return next(_chunks_with_metadata(data) if kind == "png" else _traces(data), None)
        except (struct.error, IndexError):
            # Cut short or made up: no structure to go by.
            return next(_traces(data), None)


def _chunks_with_metadata(data: mmap.mmap) -> Iterator[int]:
    offset = len(_PNG)
    while offset < len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        content = offset + 8
        if kind in _TEXTS and not (kind == b"tEXt" and _is_program(data[content : content + length])):
            yield offset + 4
        offset += 12 + length
        if kind == b"IEND":
            yield from _traces(data, offset)
            return


def _is_program(text: bytes) -> bool:
    name, _, value = text.partition(b"\x00")
    return name == b"Software" and _PROGRAM.fullmatch(value) is not None


def _traces(data: mmap.mmap, start: int = 0) -> Iterator[int]:
    yield from (match.start() for match in _TRACES.finditer(data, start))
