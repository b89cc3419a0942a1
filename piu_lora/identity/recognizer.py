"""A face recognizer as a plain ONNX session: aligned crops in, unit-norm embeddings out."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from piu_lora.identity.bank import RecognizerId
from piu_lora.identity.embedding import normalize
from piu_lora.identity.faces import Face
from piu_lora.identity.pictures import UnusablePhoto, read_picture
from piu_lora.telemetry import import_onnxruntime
from piu_lora.threads import without_spinning

__all__ = ["Recognizer", "read_aligned"]


class Recognizer:
    """An ONNX recognizer with input (n, 3, s, s) RGB in [-1, 1] and output (n, d).

    Args:
        path: the ONNX file.
        name: what to call it in tables.
        batch: faces at once; 1 for int8 models, whose result depends on the batch.
        providers: onnxruntime execution providers, first choice first.
    """

    def __init__(
        self, path: Path, name: str, *, batch: int = 64, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        self.path, self.name, self.batch, self.providers = path, name, batch, list(providers)

    @cached_property
    def id(self) -> RecognizerId:
        """Name and digest of the file."""
        return RecognizerId(self.name, hashlib.sha256(self.path.read_bytes()).hexdigest())

    @cached_property
    def _session(self) -> Any:
        onnxruntime = import_onnxruntime()

        options = without_spinning(onnxruntime.SessionOptions())
        return onnxruntime.InferenceSession(str(self.path), options, providers=self.providers)

    @property
    def size(self) -> int:
        """Height and width of the input, in pixels."""
        return int(self._session.get_inputs()[0].shape[2])

    def embed(self, faces: torch.Tensor) -> torch.Tensor:
        """Embed aligned faces.

        Args:
            faces: (n, 3, h, w) RGB in [0, 1], any size; resized with antialiasing.

        Returns:
            (n, d) float32 unit rows.
        """
        scaled = faces.float() * 2 - 1
        if scaled.shape[-1] != self.size or scaled.shape[-2] != self.size:
            scaled = torch.nn.functional.interpolate(
                scaled, (self.size, self.size), mode="bilinear", antialias=True
            )
        name = self._session.get_inputs()[0].name
        blocks = [self._session.run(None, {name: block.numpy()})[0] for block in scaled.split(self.batch)]
        return normalize(torch.from_numpy(np.concatenate(blocks)))

    def read(self, path: Path) -> list[Face]:
        """The one face of an aligned portrait.

        Raises:
            UnusablePhoto: the file is not a picture, or not square.
        """
        portrait = read_aligned(path)
        return [
            Face(
                self.embed(portrait[None])[0],
                (0.0, 0.0, float(portrait.shape[2]), float(portrait.shape[1])),
                1.0,
            )
        ]


def read_aligned(path: Path) -> torch.Tensor:
    """Read a square, already aligned portrait: (3, s, s) RGB in [0, 1].

    Raises:
        UnusablePhoto: the file is not a picture, or not square.
    """
    upright = read_picture(path)
    height, width, _ = upright.shape
    if width != height:
        raise UnusablePhoto(path, f"{width} x {height} pixels, and this base takes square, aligned portraits")
    return torch.from_numpy(upright.copy()).permute(2, 0, 1).float() / 255
