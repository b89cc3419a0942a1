"""Faces before and after, drawn with the pipeline as it is."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piu_lora.progress import Progress, silent
from piu_lora.studio.faces import webp

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

    from piu_lora.identity import IdentityBank, PhotoReader
    from piu_lora.jobs.request.request import ErasureRequest
    from piu_lora.model import Prompt

__all__ = ["Draw", "Pair", "draw_pairs", "nearest_rows", "neighbours_of"]


@dataclass(frozen=True)
class Pair:
    """One face by the base alone and with the adapters, from the same condition and seed.

    Attributes:
        label: who it is.
        cosine: with the person whom the page is about; None where it says nothing.
        alike: cosine of the two pictures by the recognizer; None where there is none.
    """

    label: str
    before: bytes
    after: bytes
    cosine: float | None = None
    alike: float | None = None


@dataclass(frozen=True)
class Draw:
    """How faces are sampled."""

    steps: int
    guidance: float
    prompt: "Prompt | None" = None


def draw_pairs(
    pipe: "StableDiffusionPipeline",
    faces: Sequence[tuple[str, "torch.Tensor", int]],
    how: Draw,
    progress: Progress = silent,
    cosines: Sequence[float | None] | None = None,
    reader: "PhotoReader | None" = None,
    bare: "StableDiffusionPipeline | None" = None,
) -> list[Pair]:
    """Each face with the adapters off, and with those that are active.

    Args:
        faces: a label, an embedding (d,), and a seed each.
        cosines: of each with the person whom the page is about.
        reader: says how alike the two pictures of each are.
        bare: the base alone, where ``pipe`` is a changed copy of it.
    """
    import torch

    from piu_lora.adapter import active, adapters_disabled
    from piu_lora.model import generate

    embeddings = torch.stack([embedding for _, embedding, _ in faces])
    seeds = [seed for _, _, seed in faces]
    sides = []
    with progress("draw", 2 * len(faces)) as advance:
        for before in (True, False):
            one = bare if before and bare is not None else pipe
            with adapters_disabled(one) if before and active(one) else nullcontext():
                pictures = generate(
                    one,
                    embeddings,
                    seeds,
                    steps=how.steps,
                    guidance=how.guidance,
                    batch=4,
                    progress=advance,
                    prompt=how.prompt,
                )
            sides.append(pictures)
    alike: list[float | None] = [None] * len(faces)
    if reader is not None:
        first, second = (reader.embed(pictures) for pictures in sides)
        alike = (first * second).sum(dim=1).tolist()
    similar = cosines or [None] * len(faces)
    shown = [[webp(picture) for picture in pictures] for pictures in sides]
    return [Pair(label, *entry) for (label, _, _), *entry in zip(faces, *shown, similar, alike, strict=True)]


def neighbours_of(request: "ErasureRequest", centre: "torch.Tensor", count: int) -> list[int]:
    """The rows of the bank closest to a forgotten person (d,) whom a request leaves as they are."""
    changed = {*request.forget_rows, *request.anchor_rows, *(decoy.row for decoy in request.decoys)}
    return nearest_rows(request.bank, centre, changed | set(request.left_out), count)


def nearest_rows(bank: "IdentityBank", centre: "torch.Tensor", leave_out: set[int], count: int) -> list[int]:
    """The rows of a bank closest to a centroid (d,), closest first."""
    order = bank.cosines(centre).argsort(descending=True).tolist()
    return [row for row in order if row not in leave_out][:count]
