"""Lists of people: a text file that names one a line, as any system saves it."""

import codecs
from collections.abc import Container
from pathlib import Path

from piu_lora.errors import BadInput
from piu_lora.identity.photo_files import odd_name

__all__ = ["read_list"]

_LARGEST = 16 * 2**20  # bytes; a list of people is not larger
_INVISIBLE = " \t\u00a0\u200b\u2060\ufeff"
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u00ab": "\u00bb"}


def read_list(path: Path, ids: Container[str] = ()) -> list[str]:
    """The people of a list; empty lines and what follows ``#`` do not count.

    Encodings are told by their mark (UTF-8, UTF-16). A file or folder is looked for beside the list, then
    from where the program runs.

    Args:
        ids: of the bank; they go before files of the same name.

    Raises:
        BadInput: no such file, too large, or no text.
    """
    lines = (_entry(line, path.parent) for line in _text(path).splitlines())
    return [_located(line, path.parent, ids) for line in lines if line]


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise OSError("no such file" if not path.exists() else "not a regular file")
        if path.stat().st_size > _LARGEST:
            raise OSError(f"{path.stat().st_size} bytes are too many for a list of people")
        content = path.read_bytes()
        return content.decode(_encoding(content))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"cannot read the list of people {str(path)!r}: {error}; "
            "expected a text file in UTF-8 with one identity a line"
        ) from error


def _encoding(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in content[:4]:
        return "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    return "utf-8-sig"


def _entry(line: str, folder: Path) -> str:
    """A line without comment, quotes and what cannot be seen."""
    line = line.strip(_INVISIBLE)
    if line.startswith("#"):
        return ""
    if " #" in line and not Path(line).exists() and not (folder / line).exists():
        line = line.partition(" #")[0].strip(_INVISIBLE)
    if len(line) > 1 and _QUOTES.get(line[0]) == line[-1]:
        line = line[1:-1].strip(_INVISIBLE)
    if reason := odd_name(line):
        raise BadInput(f"the identity {line[:80]!r} {reason}; name it otherwise")
    return line


def _located(line: str, folder: Path, ids: Container[str]) -> str:
    beside = folder / line
    try:
        return str(beside) if line not in ids and beside.exists() else line
    except OSError:  # a name too long for the file system
        return line
