"""Looking through files for anything that names a person: texts, embeddings, image metadata. A finding never
repeats what it found.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath

import torch

from piu_lora.adapter.card import model_card
from piu_lora.adapter.receipt import BaseRef, Receipt
from piu_lora.adapter.scan_embeddings import EmbeddingSearch
from piu_lora.adapter.scan_images import image_kind, metadata_offset
from piu_lora.adapter.scan_texts import Search, as_label, as_text, as_word, pattern_search
from piu_lora.config import ForgetConfig
from piu_lora.model.factors import Factors

__all__ = ["Hit", "Secrets", "image_kind", "scan_files"]

_CHUNK = 1 << 24
_OVERLAP = 1 << 12
_SHORTEST = 4  # shorter texts are looked for as whole words in text files only
_NUMBER = 8  # shorter whole numbers among the parts of a path say nothing by themselves
_HEADER = 1 << 24  # a longer header of a safetensors file is none
_HOME = re.compile(rb"(?:/home/|/Users/|/root/|[A-Za-z]:\\\\?Users\\\\?)[\w.-]+")
# Folders that tell nobody apart.
_USUAL_FOLDERS = """
    photo photos picture pictures image images portrait portraits face faces person persons people data
    dataset datasets home user users root work works tmp temp media downloads desktop documents test
    tests train retain nearest random report reports bank banks mini conditioning evaluating project
    projects example examples
"""
_COMMON = frozenset(_USUAL_FOLDERS.split())


@dataclass(frozen=True)
class Secrets:
    """What must not be in a file.

    Attributes:
        texts: ids, names, source paths, by what they are.
        embeddings: (n, d) of the person.
        labels: numbers that stand for the person, by what they are: looked for only where they can mean
            somebody.
    """

    texts: dict[str, str] = field(default_factory=dict)
    embeddings: torch.Tensor | None = None
    labels: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        identity: str = "",
        embeddings: torch.Tensor | None = None,
        sources: Sequence[Path] = (),
        label: int | None = None,
    ) -> "Secrets":
        """A person as the operator knows them.

        Args:
            identity: the id, or the path that was given; of a path, the parts that may be a name count as
                well.
            sources: further files that the embeddings came from.
            label: the person's number in the bank.
        """
        texts, labels = (
            {"the identity": identity},
            {} if label is None else {"the label in the bank": str(label)},
        )
        if _is_path(identity):
            texts |= {"the source path": str(Path(identity).absolute())}
            parts = [
                *PurePath(identity).parts,
                PurePath(identity).stem,
                Path(identity).absolute().parent.name,
            ]
            if _common(identity):
                del texts["the identity"]
        else:
            parts = []
        parts += [part for source in sources for part in (source.name, source.stem)]
        for index, part in enumerate(dict.fromkeys(part for part in parts if not _common(part))):
            searched = labels if part.isdigit() and len(part) < _NUMBER else texts
            searched[f"part {index + 1} of the source path"] = part
        return cls({kind: text for kind, text in texts.items() if text.strip("/\\. ")}, embeddings, labels)


def _is_path(identity: str) -> bool:
    if not identity:
        return False
    try:
        return "/" in identity or "\\" in identity or Path(identity).exists()
    except (OSError, ValueError):  # too long for the file system, or no name at all
        return False


def _common(part: str) -> bool:
    """Whether a part of a path tells nobody apart: a usual folder, or a text that stands in every adapter
    folder.
    """
    word = part.strip("/\\. ").casefold()
    return not word or word in _COMMON or word in _every_adapter()


@cache
def _every_adapter() -> str:
    """Card and receipt of an adapter of nobody."""
    receipt = Receipt(BaseRef("", "", ""), "piu", ForgetConfig().to_dict(), adapter_id="0")
    layer = {"unet.attn2.to_q": Factors(torch.zeros(1, 1), torch.zeros(1, 1))}
    return (model_card(receipt, layer) + receipt.to_json()).casefold()


@dataclass(frozen=True)
class Hit:
    """Something found; ``kind`` describes it without repeating it."""

    file: str
    offset: int
    kind: str


def scan_files(folder: Path, files: Iterable[str], secrets: Secrets) -> list[Hit]:
    """Everything in these files that names the person, or that may name anybody: image metadata, paths in a
    user's home.

    Args:
        files: names relative to ``folder``, which are looked through as well.
    """
    everywhere, in_text = list(_everywhere(secrets)), list(_in_text(secrets))
    return [hit for name in files for hit in _scan(folder / name, name, secrets, everywhere, in_text)]


def _scan(
    path: Path,
    name: str,
    secrets: Secrets,
    everywhere: list[tuple[str, Search]],
    in_text: list[tuple[str, Search]],
) -> Iterator[Hit]:
    for kind, text in secrets.texts.items():
        if len(text) >= _SHORTEST and as_text(text)(name.encode()) is not None:
            yield Hit(name, 0, f"{kind} in the file's own name")
    if (metadata := metadata_offset(path)) is not None:
        yield Hit(name, metadata, "image metadata (EXIF, XMP or text)")
    yield from _first_hits(path, name, everywhere, 0, path.stat().st_size)
    if in_text:
        yield from _first_hits(path, name, in_text, *_text_range(path))


def _first_hits(
    path: Path, name: str, searches: list[tuple[str, Search]], start: int, stop: int
) -> Iterator[Hit]:
    """The first finding of every kind between two offsets."""
    left = dict(enumerate(searches))
    for offset, piece in _pieces(path, start, stop):
        for number, (kind, search) in list(left.items()):
            if (position := search(piece)) is not None:
                del left[number]
                yield Hit(name, offset + position, kind)


def _pieces(path: Path, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Pieces that overlap, so that nothing hides on a border and a file of any size fits."""
    tail = b""
    with path.open("rb") as file:
        file.seek(start)
        while piece := file.read(min(_CHUNK, stop - start)):
            yield start - len(tail), tail + piece
            start += len(piece)
            tail = (tail + piece)[-_OVERLAP:]


def _text_range(path: Path) -> tuple[int, int]:
    """The part of a file that is text: all, nothing, or the header of a safetensors file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
    if b"\x00" not in head:
        return 0, size
    header = int.from_bytes(head[:8], "little")
    is_header = path.suffix == ".safetensors" and header <= min(_HEADER, size - 8)
    return (8, 8 + header) if is_header else (0, 0)


def _everywhere(secrets: Secrets) -> Iterator[tuple[str, Search]]:
    yield "a path in a user's home", pattern_search(_HOME)
    yield from ((kind, as_text(text)) for kind, text in secrets.texts.items() if len(text) >= _SHORTEST)
    if secrets.embeddings is not None:
        yield "values of the person's embedding", EmbeddingSearch(secrets.embeddings)


def _in_text(secrets: Secrets) -> Iterator[tuple[str, Search]]:
    yield from ((kind, as_label(number)) for kind, number in secrets.labels.items())
    for kind, text in secrets.texts.items():
        if len(text) < _SHORTEST:
            yield kind, as_label(text) if text.isdigit() else as_word(text)
