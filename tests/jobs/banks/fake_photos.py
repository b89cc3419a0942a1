"""Photographs that are JSON, the people in them, and the reader that reads them."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from piu_lora.identity import RecognizerId, normalize
from piu_lora.identity.pictures import UnusablePhoto

WIDTH = 64
FAKE = RecognizerId("fake.onnx", "ab" * 32)
FAKE_SETTINGS = {"detector": "fake-detector.onnx", "detector_sha256": "cd" * 32}


@dataclass
class FakeReader:
    """Reads photographs that are JSON: a list of embeddings, or the reason why there is none.

    Attributes:
        stop_after: so many photographs are read, then the user presses Ctrl-C.
        seen: file names, in the order of reading.
    """

    stop_after: int | None = None
    id: RecognizerId = FAKE
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def read(self, path: Path) -> Sequence[Any]:
        with self._lock:
            if len(self.seen) == self.stop_after:
                raise KeyboardInterrupt
            self.seen.append(path.name)
        content = json.loads(path.read_text())
        if isinstance(content, str):
            raise UnusablePhoto(path, content)
        return [type("Face", (), {"embedding": row}) for row in normalize(torch.tensor(content))]

    def embed(self, faces: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def face(person: int, look: int = 0, *, towards: Mapping[int, float] | None = None) -> list[float]:
    """A face of somebody: an axis of their own, leaning to others as told, and a small look that differs by
    photograph.
    """
    row = 0.02 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(1000 * person + look))
    row[person] += 1
    for other, share in (towards or {}).items():
        row[other] += share
    return [float(value) for value in row]


def photograph(path: Path, *faces: list[float], reason: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(reason or list(faces)))
    return path


def people(root: Path, count: int = 5, shots: int = 3) -> Path:
    """A folder for each person."""
    for person in range(count):
        for look in range(shots):
            photograph(root / f"person-{person:03d}" / f"{look:03d}.jpg", face(person, look))
    return root
