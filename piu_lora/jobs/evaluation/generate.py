"""Generating a labelled sheet of faces, with or without adapters."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import load_adapters, refuse_existing, unload, write_file
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.evidence import face_grid, png_bytes
from piu_lora.identity import IdentityBank, resolve_identity
from piu_lora.jobs.request.readers import reader_for
from piu_lora.jobs.request.request import bank_for
from piu_lora.model import Precision, as_pipeline, family_of, generate
from piu_lora.progress import Progress, silent

__all__ = ["generate_grid"]


def generate_grid(
    identities: Sequence[str | Path],
    base: str | Path | StableDiffusionPipeline,
    out: str | Path,
    *,
    bank: IdentityBank | str | Path | None = None,
    pack: str | Path | None = None,
    adapters: Sequence[str | Path] = (),
    weights: Sequence[float] | None = None,
    allow_negative: bool = False,
    images: int = 4,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: Precision = "fp32",
    force: bool = False,
    progress: Progress = silent,
) -> None:
    """Write a PNG with a row for each identity; the columns share their seeds.

    Args:
        identities, bank, pack: as for ``forget``.
        out: the PNG.
        adapters, weights, allow_negative: adapter folders or Hub ids, all active together, as for
            ``load_adapters``.
        device, dtype: of a base given by name.
        images: columns; they run through the embeddings of the identity.
        steps, guidance: of the sampler; by default those of the base's preset.

    Raises:
        BadInput: the file exists, nobody of that name, an unreadable adapter.
    """
    target = Path(out)
    refuse_existing(target, force=force)
    if target.suffix.lower() != ".png":
        raise BadInput(f"out = {str(target)!r} does not end in .png, and a PNG is what is written")
    people = bank_for(base, bank)
    preset = ForgetConfig.preset(family_of(base))
    reader = reader_for(base, pack, preset.faces, device)
    rows = [
        resolve_identity(identity, people, reader, preset.faces.linked).embeddings for identity in identities
    ]
    conditions = torch.cat([row[torch.arange(images) % len(row)] for row in rows])
    pipe = as_pipeline(base, device, dtype)
    names = load_adapters(pipe, adapters, weights, allow_negative=allow_negative)
    sampling = preset.evaluation
    seeds = [seed + column for _ in rows for column in range(images)]
    try:
        with progress("generate", len(seeds)) as advance:
            faces = generate(
                pipe,
                conditions,
                seeds,
                steps=steps or sampling.steps,
                guidance=guidance or sampling.guidance,
                progress=advance,
            )
    finally:
        unload(pipe, names)
    labels = [Path(str(identity)).name for identity in identities]
    grid = [(label, list(block)) for label, block in zip(labels, faces.split(images), strict=True)]
    write_file(target, png_bytes(face_grid(grid)))
