"""Looking through files for anything that names a person: texts, embeddings, image metadata. A finding never repeats what it found."""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from piu_lora.identity import centroid

__all__ = ["Hit", "Secrets", "scan_files"]

_CHUNK = 1 << 24
_OVERLAP = 1 << 12
_RUN = 4  # consecutive values of an embedding that are looked for
_SHORTEST = 4  # shorter texts are looked for as whole words in text files only
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".bmp")
# In PNG, every text but the name of the program that drew it.
_METADATA = re.compile(
    rb"Exif\x00\x00|(?<=.{8})EXIF.{4}(?:II|MM)|http://ns\.adobe\.com/xap|<x:xmpmeta"
    rb"|(?<=.{4})(?:eXIf|(?:tEXt|iTXt|zTXt)(?!Software\x00))",
    re.DOTALL,
)
_HOME = re.compile(rb"(?:/home/|/Users/|/root/|[A-Za-z]:\\\\?Users\\\\?)[\w.-]+")


@dataclass(frozen=True)
class Secrets:
    """What must not be in a file.

    Attributes:
        texts: ids, labels, source paths, by what they are.
        embeddings: (n, d) of the person.
    """

    texts: dict[str, str] = field(default_factory=dict)
    embeddings: torch.Tensor | None = None

    @classmethod
    def of(cls, identity: str = "", embeddings: torch.Tensor | None = None) -> "Secrets":
        """A person as the operator knows them: the id or path as it is, and the parts of a path that may be a name."""
        texts = {}
        if identity:
            path = Path(identity)
            texts = {"the identity": identity, "the name of its file": path.name, "the stem of its file": path.stem}
            if path.exists() or path.is_absolute():
                texts |= {"its source path": str(path.absolute()), "the folder of its source": path.absolute().parent.name}
        return cls({what: text for what, text in texts.items() if text.strip("/. ")}, embeddings)


@dataclass(frozen=True)
class Hit:
    """Something found; ``what`` describes it without repeating it."""

    file: str
    offset: int
    what: str


def scan_files(folder: Path, files: Iterable[str], secrets: Secrets) -> list[Hit]:
    """Everything in these files that names the person, or that may name anybody: image metadata, paths in a user's home.

    Args:
        files: names relative to ``folder``, which are looked through as well.
    """
    needles = list(_needles(secrets))
    return [hit for name in files for hit in _scan(folder / name, name, secrets, needles)]


def _scan(path: Path, name: str, secrets: Secrets, needles: list[tuple[str, re.Pattern[bytes]]]) -> Iterator[Hit]:
    for what, text in secrets.texts.items():
        if len(text) >= _SHORTEST and text.casefold() in name.casefold():
            yield Hit(name, 0, f"{what} in the file's own name")
    patterns = [*needles, ("a path in a user's home", _HOME)]
    if path.suffix.lower() in _IMAGES:
        patterns.append(("image metadata (EXIF, XMP or text)", _METADATA))
    if _is_text(path):
        patterns += [(what, _word(text)) for what, text in secrets.texts.items() if len(text) < _SHORTEST]
    found = set()
    for start, chunk in _chunks(path):
        for what, pattern in patterns:
            if what not in found and (match := pattern.search(chunk)):
                found.add(what)
                yield Hit(name, start + match.start(), what)


def _chunks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Pieces that overlap, so that nothing hides on a border and a file of any size fits."""
    start, tail = 0, b""
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            yield start - len(tail), tail + piece
            start += len(piece)
            tail = piece[-_OVERLAP:]


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\x00" not in file.read(4096)


def _word(text: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?<!\w)" + re.escape(text.encode()) + rb"(?!\w)", re.IGNORECASE)


def _needles(secrets: Secrets) -> Iterator[tuple[str, re.Pattern[bytes]]]:
    for what, text in secrets.texts.items():
        if len(text) >= _SHORTEST:
            # Bytes know no case beyond ASCII, so those spellings are looked for one by one.
            spellings = {text, text.upper(), text.lower(), text.title()}
            forms = {form for each in spellings for form in _encoded(each)}
            yield what, re.compile(b"|".join(re.escape(form) for form in sorted(forms)), re.IGNORECASE)
    if secrets.embeddings is not None:
        runs = sorted({form for row in _rows(secrets.embeddings) for form in _forms(row)})
        yield "values of the person's embedding", re.compile(b"|".join(map(re.escape, runs)))


def _encoded(text: str) -> Iterator[bytes]:
    yield from (text.encode(), text.encode("utf-16-le"), text.encode("utf-16-be"), json.dumps(text)[1:-1].encode(), _percent(text))


def _percent(text: str) -> bytes:
    return "".join(c if c.isascii() else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text).encode()


def _rows(embeddings: torch.Tensor) -> Iterator[torch.Tensor]:
    """Every embedding and the centroid."""
    yield from embeddings.float()
    yield centroid(embeddings)


def _forms(row: torch.Tensor) -> Iterator[bytes]:
    """A few runs of consecutive values, as each program might store them."""
    for start in sorted({0, len(row) // 2, max(len(row) - _RUN, 0)}):
        run = row[start : start + _RUN]
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            raw = run.to(dtype).view(torch.uint8).numpy().tobytes()
            yield raw
            yield from _base64(raw)
        yield from _decimals(run.tolist())


def _base64(raw: bytes) -> Iterator[bytes]:
    """The middle of its base64 form at each of the three alignments."""
    for shift in range(3):
        encoded = base64.b64encode(b"\x00" * shift + raw)
        yield encoded[4 if shift else 0 : len(encoded) - 4 - (len(encoded) % 4)]


def _decimals(values: Sequence[float]) -> Iterator[bytes]:
    """Written out as a list, with the separators and the digits that are usual."""
    for separator in (", ", ",", " ", "\n", ",\n    "):
        yield separator.join(map(repr, values)).encode()
        for digits in (4, 6, 8):
            yield separator.join(f"{value:.{digits}f}" for value in values).encode()
