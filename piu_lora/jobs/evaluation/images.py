"""Generating pictures to measure: in batches, measured at once and then let go; what was measured outlives an
interruption.
"""

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError

from piu_lora.adapter import disk_errors, write_file
from piu_lora.attacks import AuditConfig
from piu_lora.config import EvaluationConfig
from piu_lora.evidence import Gallery, Measured, Shot, measure
from piu_lora.evidence.metrics import Array
from piu_lora.model import generate
from piu_lora.writing import make_folder

__all__ = ["ImageMeasurer", "Sampling", "generate_images", "kept_measurements"]

_log = logging.getLogger("piu_lora")
_SHARP, _QUALITY, _EMBEDDED = "sharpness", "face_quality", "embedded."


@dataclass(frozen=True)
class Sampling:
    """How images are sampled: denoising steps, guidance scale, images at once."""

    steps: int
    guidance: float
    batch: int

    @classmethod
    def of(cls, settings: EvaluationConfig | AuditConfig) -> Self:
        """As an evaluation or an audit has it."""
        return cls(settings.steps, settings.guidance, settings.batch)


def generate_images(
    pipe: StableDiffusionPipeline,
    embeddings: torch.Tensor,
    seeds: Sequence[int],
    sampling: Sampling,
    advance: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """``generate`` with the settings of a job: (n, 3, h, w) of (n, d) embeddings."""
    images: torch.Tensor = generate(
        pipe,
        embeddings,
        seeds,
        steps=sampling.steps,
        guidance=sampling.guidance,
        batch=sampling.batch,
        progress=advance,
    )
    return images


@dataclass
class ImageMeasurer:
    """Generates and measures; keeps only the pictures it is asked to keep.

    Attributes:
        cache: folder for what was measured; None keeps nothing.
        advance: told the number of pictures done.
    """

    galleries: Sequence[Gallery]
    sampling: Sampling
    cache: Path | None = None
    face_quality: Callable[[torch.Tensor], Array] | None = None
    advance: Callable[[int], None] = lambda count: None
    images: int = field(default=0, init=False)

    def generate_and_measure(
        self,
        pipe: StableDiffusionPipeline,
        name: str,
        shots: Sequence[Shot],
        *,
        keep: Collection[int] = (),
        sampling: Sampling | None = None,
    ) -> tuple[Measured, dict[int, torch.Tensor]]:
        """Generate ``shots`` with the pipeline as it is.

        Args:
            name: of this set of pictures, unique within an evaluation.
            keep: indices of the shots whose pictures are wanted.
            sampling: the evaluation's by default.

        Returns:
            The measurements in order, and the kept pictures (3, h, w) by index.
        """
        parts: list[Measured] = []
        pictures: dict[int, torch.Tensor] = {}

        sampling = sampling or self.sampling

        def generate_some(indices: Sequence[int]) -> torch.Tensor:
            embeddings = torch.stack([shots[index].embedding for index in indices])
            images = generate_images(pipe, embeddings, [shots[index].seed for index in indices], sampling)
            pictures.update(
                {index: images[row].clone() for row, index in enumerate(indices) if index in keep}
            )
            return images

        for start in range(0, len(shots), sampling.batch):
            indices = range(start, min(start + sampling.batch, len(shots)))
            part = self._recall(f"{name}-{start}")
            if part is None:
                part = measure(generate_some(indices), self.galleries, self.face_quality)
                self._remember(f"{name}-{start}", part)
            elif kept_indices := [index for index in indices if index in keep]:
                # Measured before an interruption, which took the pictures with it.
                generate_some(kept_indices)
            parts.append(part)
            self.images += len(indices)
            self.advance(len(indices))
        return Measured.joined(parts), pictures

    def _remember(self, name: str, part: Measured) -> None:
        if self.cache is None:
            return
        tensors = {_EMBEDDED + key: value.contiguous() for key, value in part.embedded.items()}
        tensors[_SHARP] = torch.from_numpy(part.sharpness)
        if part.face_quality is not None:
            tensors[_QUALITY] = torch.from_numpy(part.face_quality)
        with disk_errors(f"the measurements to {str(self.cache)!r}"):
            write_file(self.cache / f"{name}.safetensors", safetensors.torch.save(tensors), mode=0o600)

    def _recall(self, name: str) -> Measured | None:
        path = None if self.cache is None else self.cache / f"{name}.safetensors"
        if path is None or not path.exists():
            return None
        try:
            tensors = safetensors.torch.load_file(path)
            embedded = {gallery.name: tensors[_EMBEDDED + gallery.name] for gallery in self.galleries}
            quality = tensors[_QUALITY].numpy() if self.face_quality else None
            return Measured(embedded, np.asarray(tensors[_SHARP].numpy(), float), quality)
        except (OSError, KeyError, SafetensorError):  # half a file: measured again
            return None


@contextlib.contextmanager
def kept_measurements(folder: Path | None, digest: str) -> Iterator[Path | None]:
    """While open, a private folder for what is measured; it stays behind only where the work is interrupted.

    Args:
        folder: where the report will be; None keeps nothing.
        digest: of everything that the measurements depend on; those of another digest are thrown away.
    """
    if folder is None:
        yield None
        return
    cache = folder / ".measured"
    label = cache / "digest.json"
    with disk_errors(f"the measurements to {str(folder)!r}"):
        if cache.exists() and (not label.exists() or json.loads(label.read_text() or "null") != digest):
            shutil.rmtree(cache)
        if cache.exists():
            _log.warning(
                "going on with an interrupted evaluation: %d sets of pictures are measured already",
                len(list(cache.glob("*.safetensors"))),
            )
        make_folder(cache, 0o700)
        write_file(label, json.dumps(digest).encode(), mode=0o600)
    yield cache
    # Not reached by an exception: then the next run goes on from here.
    shutil.rmtree(cache)
