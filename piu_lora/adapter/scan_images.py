"""Metadata of images: EXIF, XMP, IPTC, comments and texts. An image is known by its content, whatever it is
called.
"""

import mmap
import re
import struct
from collections.abc import Iterator
from pathlib import Path

__all__ = ["image_kind", "metadata_offset"]

_MAGIC = (
    ("png", re.compile(rb"\x89PNG\r\n\x1a\n")), ("jpeg", re.compile(rb"\xff\xd8\xff")), ("gif", re.compile(rb"GIF8[79]a")),
    ("webp", re.compile(rb"RIFF....WEBP", re.DOTALL)), ("tiff", re.compile(rb"II[*+]\x00|MM\x00[*+]")),
    ("heif", re.compile(rb"....ftyp(?:hei|hev|mif|avi|msf)", re.DOTALL)), ("bmp", re.compile(rb"BM....\x00\x00\x00\x00", re.DOTALL)),
    ("jxl", re.compile(rb"\x00\x00\x00\x0cJXL |\xff\x0a")),
)  # fmt: skip
_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
    ".bmp",
    ".heic",
    ".heif",
    ".avif",
    ".jxl",
)
# What looks like metadata where the structure of the file is not understood.
_TRACES = re.compile(
    rb"Exif\x00\x00|(?<=.{8})EXIF.{4}(?:II|MM)|http://ns\.adobe\.com/xap|<x:xmpmeta|Photoshop 3\.0\x00|(?<=.{4})(?:eXIf|tEXt|iTXt|zTXt)",
    re.DOTALL,
)
_HEIF_ITEMS = re.compile(rb"infe.{8}(?:Exif|mime)", re.DOTALL)
# The program that drew it: a version and a home page, nothing else.
_PROGRAM = re.compile(
    rb"(?:Matplotlib|Pillow)(?: ?version)? ?[\d.]*(?:\.?(?:rc|post|dev)\d*)?(?:, https?://matplotlib\.org/)?"
)
_JPEG_PLAIN = {0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xE0, 0xEE}
_PNG_TEXTS = {b"eXIf", b"tEXt", b"iTXt", b"zTXt"}
_TIFF_SOFTWARE, _TIFF_PROFILE = 305, 34675
_TIFF_TEXTS = {269, 270, 271, 272, 285, 306, 315, 316, 700}


def image_kind(path: Path) -> str | None:
    """The format of an image, by its first bytes, else by its name; None for other files."""
    with path.open("rb") as file:
        head = file.read(16)
    kind = next((kind for kind, magic in _MAGIC if magic.match(head)), None)
    return kind or ("unknown" if path.suffix.lower() in _SUFFIXES else None)


def metadata_offset(path: Path) -> int | None:
    """Where the metadata of an image begins; None where there is none, or where the file is no image."""
    kind = image_kind(path)
    if kind is None or not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        walk = {"png": _png, "jpeg": _jpeg, "webp": _webp, "tiff": _tiff, "heif": _heif}.get(kind, _unknown)
        try:
            return next(walk(data), None)
        except (struct.error, IndexError):
            # Cut short or made up: no structure to go by.
            return next(_unknown(data), None)


def _png(data: mmap.mmap) -> Iterator[int]:
    place = 8
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind in _PNG_TEXTS and not (kind == b"tEXt" and _is_program(data[place + 8 : place + 8 + length])):
            yield place + 4
        place += 12 + length
        if kind == b"IEND":
            yield from _unknown(data, place)
            return


def _is_program(text: bytes) -> bool:
    name, _, value = text.partition(b"\x00")
    return name == b"Software" and _PROGRAM.fullmatch(value) is not None


def _jpeg(data: mmap.mmap) -> Iterator[int]:
    place = 2
    while place < len(data):
        mark, code, length = struct.unpack_from(">BBH", data, place)
        if mark != 0xFF:
            raise IndexError
        profile = code == 0xE2 and data[place + 4 : place + 16] == b"ICC_PROFILE\x00"
        if code == 0xFE or (0xE0 <= code <= 0xEF and code not in _JPEG_PLAIN and not profile):
            yield place
        if code == 0xDA:
            yield from _unknown(data, place)
            return
        place += 2 + length


def _webp(data: mmap.mmap) -> Iterator[int]:
    place = 12
    while place < len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        if kind in (b"EXIF", b"XMP "):
            yield place
        place += 8 + length + length % 2


def _tiff(data: mmap.mmap) -> Iterator[int]:
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4] != struct.pack(f"{order}H", 42):
        yield 0  # BigTIFF: not looked into, so not trusted
        return
    (place,), seen = struct.unpack_from(f"{order}I", data, 4), set[int]()
    while place and place not in seen:
        seen.add(place)
        (count,) = struct.unpack_from(f"{order}H", data, place)
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            tag, _, size, value = struct.unpack_from(f"{order}HHII", data, entry)
            program = tag == _TIFF_SOFTWARE and _PROGRAM.fullmatch(data[value : value + size].rstrip(b"\x00"))
            if (
                tag in _TIFF_TEXTS
                or (tag == _TIFF_SOFTWARE and not program)
                or (tag > 0x7FFF and tag != _TIFF_PROFILE)
            ):
                yield entry
        (place,) = struct.unpack_from(f"{order}I", data, place + 2 + 12 * count)


def _heif(data: mmap.mmap) -> Iterator[int]:
    yield from (found.start() for found in _HEIF_ITEMS.finditer(data))


def _unknown(data: mmap.mmap, start: int = 0) -> Iterator[int]:
    yield from (found.start() for found in _TRACES.finditer(data, start))
