"""Real photographs as embeddings, for benchmarks: read once by the pack, kept outside the project, split by
a hash of the id.

No picture and no embedding goes into the project: the cache is a file of the user's own (0600), and results
hold aggregate figures.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from piu_lora.identity import FaceReader
from piu_lora.identity.pictures import UnusablePhoto

__all__ = ["PACK", "RealFaces", "embedded_faces", "half_of"]

PACK = "buffalo_s_int8_dyn"
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class RealFaces:
    """Unit embeddings (n, d) float32 and the person of each, (n,) ascending; ``ids`` are the folders'
    names.
    """

    embeddings: torch.Tensor
    labels: torch.Tensor
    ids: list[str]

    def half(self, name: str) -> torch.Tensor:
        """(m,) people of the ``tuning`` or the ``reporting`` half."""
        return torch.tensor([person for person, identity in enumerate(self.ids) if half_of(identity) == name])


def half_of(identity: str) -> str:
    """``tuning`` or ``reporting``: the parity of the first byte of the id's SHA-256."""
    return ("tuning", "reporting")[hashlib.sha256(identity.encode()).digest()[0] % 2]


def embedded_faces(faces: Path, cache: Path) -> RealFaces:
    """The photographs of ``faces/lfw/ID/*`` by the pack beside them; read from ``cache`` where they were
    read before.

    Args:
        faces: holds ``lfw`` and the pack.
        cache: a safetensors file, made with mode 0600 where it is missing.
    """
    if not cache.exists():
        _read(faces / "lfw", FaceReader(faces / PACK, threads=1), cache)
    stored = load_file(cache)
    return RealFaces(
        stored["embeddings"], stored["labels"].long(), bytes(stored["ids"].tolist()).decode().split("\n")
    )


def _read(folder: Path, reader: FaceReader, cache: Path) -> None:
    rows, labels, ids = [], [], []
    for person in sorted(path for path in folder.iterdir() if path.is_dir()):
        read = [
            face
            for path in sorted(person.iterdir())
            if path.suffix.lower() in _ENDINGS
            for face in _faces(reader, path)
        ]
        if read:
            rows += read
            labels += [len(ids)] * len(read)
            ids.append(person.name)
    cache.parent.mkdir(parents=True, exist_ok=True)
    temporary = cache.with_suffix(".part")
    os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
    names = torch.tensor(list("\n".join(ids).encode()), dtype=torch.uint8)
    save_file({"embeddings": torch.stack(rows), "labels": torch.tensor(labels), "ids": names}, temporary)
    temporary.chmod(0o600)
    temporary.replace(cache)


def _faces(reader: FaceReader, path: Path) -> list[torch.Tensor]:
    try:
        return [reader.read(path)[0].embedding]
    except UnusablePhoto:
        return []
