"""Files that somebody else may have made: which names they may have, and how they are opened."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from piu_lora.errors import BadInput

__all__ = ["LARGEST_TEXT", "is_plain", "opened", "read_content", "read_text", "require_regular"]

LARGEST_TEXT = 64_000_000  # bytes; a receipt has thousands, a report with an audit a million
_LARGEST_NAME = 120
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?<!\.)")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # of Windows, whatever follows
_KINDS = {
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
    stat.S_ISDIR: "a folder",
}


def is_plain(name: str, folders: int = 0) -> bool:
    """Whether a file name means the same file on every system, below its folder, and is not hidden.

    Args:
        folders: how many may stand before it, separated by slashes.
    """
    parts = name.split("/")
    return (
        len(name) <= _LARGEST_NAME
        and len(parts) <= folders + 1
        and all(_PART.fullmatch(part) and not _DEVICES.fullmatch(part) for part in parts)
    )


def require_regular(path: Path, largest: int | None = None) -> Path:
    """The path, once it is known that a library may open it: nothing that waits, and nothing without end.

    Args:
        largest: bytes that such a file can have.

    Raises:
        BadInput: a pipe, a device, a socket or a folder; or a larger file.
        OSError: there is none, or it may not be read.
    """
    _check(path, path.stat(), largest)
    return path


@contextmanager
def opened(path: Path, largest: int | None = None) -> Iterator[BufferedReader]:
    """Open a regular file for reading; raises as ``require_regular``."""
    # A pipe without a writer would wait for one; O_BINARY is Windows' alone.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    require_regular(path, largest)
    with os.fdopen(os.open(path, flags), "rb") as file:
        _check(path, os.fstat(file.fileno()), largest)
        yield file


def read_content(path: Path, largest: int = LARGEST_TEXT) -> bytes:
    """The bytes of a regular file; raises as ``require_regular``, also where it grows meanwhile."""
    with opened(path, largest) as file:
        # No more than is there, and one byte to see it grow: read() makes room for all that it may read.
        content = file.read(min(os.fstat(file.fileno()).st_size, largest) + 1)
    if len(content) > largest:
        raise BadInput(_too_large(path, len(content), largest))
    return content


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """The text of a regular file; raises as ``require_regular``, and ``UnicodeDecodeError``."""
    return read_content(path, largest).decode()


def _check(path: Path, status: os.stat_result, largest: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_kind, kind in _KINDS.items() if is_kind(status.st_mode)), "no file")
        raise BadInput(f"{str(path)!r} is {kind}; put a regular file in its place")
    if largest is not None and status.st_size > largest:
        raise BadInput(_too_large(path, status.st_size, largest))


def _too_large(path: Path, size: int, largest: int) -> str:
    return f"{str(path)!r} has {size:,} bytes, and no such file has more than {largest:,}; get it again"
