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

import numpy as np
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError

from piu_lora.adapter import disk_errors, write_file
from piu_lora.config import EvaluationConfig
from piu_lora.evidence import Gallery, Measured, Shot, measure
from piu_lora.evidence.metrics import Array
from piu_lora.model import generate

__all__ = ["ImageMeasurer", "kept_measurements"]

_log = logging.getLogger("piu_lora")
_SHARP, _QUALITY, _EMBEDDED = "sharpness", "face_quality", "embedded."


@dataclass
class ImageMeasurer:
    """Generates and measures; keeps only the pictures it is asked to keep.

    Attributes:
        cache: folder for what was measured; None keeps nothing.
        advance: told the number of pictures done.
    """

    galleries: Sequence[Gallery]
    sampling: EvaluationConfig
    cache: Path | None = None
    face_quality: Callable[[torch.Tensor], Array] | None = None
    advance: Callable[[int], None] = lambda count: None
    images: int = field(default=0, init=False)

    def generate_and_measure(
        self, pipe: StableDiffusionPipeline, name: str, shots: Sequence[Shot], *, keep: Collection[int] = (), steps: int | None = None,
        guidance: float | None = None,
    ) -> tuple[Measured, dict[int, torch.Tensor]]:  # fmt: skip
        """Generate ``shots`` with the pipeline as it is.

        Args:
            name: of this set of pictures, unique within an evaluation.
            keep: places whose pictures are wanted.
            steps, guidance: of the sampler; the evaluation's by default.

        Returns:
            The measurements in order, and the pictures (3, h, w) by place.
        """
        parts: list[Measured] = []
        pictures: dict[int, torch.Tensor] = {}

        def made(places: Sequence[int]) -> torch.Tensor:
            some = [shots[place] for place in places]
            drawn: torch.Tensor = generate(
                pipe, torch.stack([shot.embedding for shot in some]), [shot.seed for shot in some], steps=steps or self.sampling.steps,
                guidance=guidance or self.sampling.guidance, batch=self.sampling.batch,
            )  # fmt: skip
            pictures.update({place: drawn[row].clone() for row, place in enumerate(places) if place in keep})
            return drawn

        for start in range(0, len(shots), self.sampling.batch):
            places = range(start, min(start + self.sampling.batch, len(shots)))
            part = self._recall(f"{name}-{start}")
            if part is None:
                part = measure(made(places), self.galleries, self.face_quality)
                self._remember(f"{name}-{start}", part)
            elif wanted := [place for place in places if place in keep]:
                made(wanted)  # measured before an interruption, which took the pictures with it
            parts.append(part)
            self.images += len(places)
            self.advance(len(places))
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
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file(label, json.dumps(digest).encode(), mode=0o600)
    yield cache
    # Not reached by an exception: then the next run goes on from here.
    shutil.rmtree(cache)
