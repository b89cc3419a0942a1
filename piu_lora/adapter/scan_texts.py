"""Patterns that find a text in bytes, however it was spelled or encoded, and not where chance wrote it."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import quote_from_bytes

__all__ = ["Search", "as_label", "as_text", "as_word", "pattern_search"]

# The offset of the first finding in a piece of a file.
Search = Callable[[bytes], int | None]

_HEX = re.compile(r"[0-9a-f]{1,7}", re.IGNORECASE)
_DIGEST = 16  # hex digits in a row that are a digest, in which a short text can stand by chance
_NAMING = rb"(?<![a-z])(?:ids?|identity|label|person|subject|name|celeb)[\"'\s:=_#\[\\-]{0,6}"


def as_text(text: str) -> Search:
    """Anywhere, in any case: UTF-8, UTF-16, Latin-1, composed or not, with the escapes of JSON and of URLs.

    Whole numbers are not found inside longer numbers, and short runs of hex digits not inside digests.
    """
    forms = sorted({unicodedata.normalize(form, text) for form in ("NFC", "NFD")})
    patterns = [b"".join(map(_narrow, form)) for form in forms]
    patterns += [
        b"".join(_wide(character, encoding) for character in form)
        for form in forms
        for encoding in ("utf-16-le", "utf-16-be")
    ]
    pattern = re.compile(b"|".join(patterns), re.IGNORECASE)

    def search(piece: bytes) -> int | None:
        return next(
            (match.start() for match in pattern.finditer(piece) if _stands_alone(piece, *match.span(), text)),
            None,
        )

    return search


def as_word(text: str) -> Search:
    """Only as a word of its own: for texts so short that they are part of others."""
    return pattern_search(re.compile(rb"(?<!\w)" + re.escape(text.encode()) + rb"(?!\w)", re.IGNORECASE))


def as_label(number: str) -> Search:
    """A number only where it stands for somebody: quoted, as part of a path, or after a word such as
    ``identity``.

    Every receipt is full of numbers that say nothing.
    """
    digits = re.escape(number.encode())
    return pattern_search(
        re.compile(
            _NAMING
            + digits
            + rb"(?!\w|\.\d)|[\"']"
            + digits
            + rb"[\"']|[/\\]"
            + digits
            + rb"(?:[/\\](?![\"'])|\.(?:jpe?g|png|webp|npy|tiff?|bmp)\b)",
            re.IGNORECASE,
        )
    )


def pattern_search(pattern: re.Pattern[bytes]) -> Search:
    """The first match of a pattern."""

    def search(piece: bytes) -> int | None:
        match = pattern.search(piece)
        return None if match is None else match.start()

    return search


def _spellings(character: str) -> set[str]:
    # Bytes know no case beyond ASCII, so these are spelled out.
    return {character, character.lower(), character.upper()}


def _narrow(character: str) -> bytes:
    """One character in whichever 8-bit form; forms may be mixed within a text."""
    if character.isascii() and character.isalnum():
        return character.encode()
    return _either({form for spelling in _spellings(character) for form in _escapes(spelling)})


def _escapes(spelling: str) -> Iterator[bytes]:
    encoded = spelling.encode("utf-8", "surrogatepass")
    yield encoded
    yield json.dumps(spelling)[1:-1].encode()
    yield quote_from_bytes(encoded, safe="").encode()
    yield from {" ": [b"+"], "/": [b"\\/"], "_": [b"%5F"], "-": [b"%2D"]}.get(spelling, [])
    if not spelling.isascii():
        yield spelling.encode("latin-1", "ignore")


def _wide(character: str, encoding: str) -> bytes:
    return _either({spelling.encode(encoding, "surrogatepass") for spelling in _spellings(character)})


def _either(forms: set[bytes]) -> bytes:
    return b"(?:" + b"|".join(re.escape(form) for form in sorted(forms) if form) + b")"


def _stands_alone(piece: bytes, start: int, stop: int, text: str) -> bool:
    before, after = piece[max(start - 64, 0) : start], piece[stop : stop + 64]
    if text.isdigit() and (re.search(rb"(?:\d|\d\.|-\.|[\s,\[]\.)$", before) or re.match(rb"\d|\.\d", after)):
        return False
    if not _HEX.fullmatch(text):
        return True
    run = _length(rb"[0-9a-f]*\Z", before) + stop - start + _length(rb"\A[0-9a-f]*", after)
    return run < _DIGEST


def _length(pattern: bytes, text: bytes) -> int:
    match = re.search(pattern, text, re.IGNORECASE)
    return len(match.group()) if match else 0
