"""Generating a labelled sheet of faces, with or without adapters."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from piu_lora.adapter import load_adapters, refuse_existing, unload, write_file
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.evidence import face_grid, png_bytes
from piu_lora.identity import resolve_identity
from piu_lora.jobs.request.session import Session
from piu_lora.model import generate
from piu_lora.writing import PRIVATE

__all__ = ["GridSettings", "generate_grid"]


@dataclass(frozen=True)
class GridSettings:
    """What a sheet shows of each identity.

    Attributes:
        images: columns; they run through the embeddings of the identity.
        steps, guidance: of the sampler; by default those of the base's preset.
        seed: of the first column; the columns of every row share their seeds.
    """

    images: int = 4
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0


def generate_grid(
    session: Session,
    identities: Sequence[str | Path],
    out: str | Path,
    *,
    adapters: Sequence[str | Path] = (),
    weights: Sequence[float] | None = None,
    allow_negative: bool = False,
    settings: GridSettings = GridSettings(),
    force: bool = False,
) -> None:
    """Write a PNG with a row for each identity.

    Args:
        identities: as for ``forget``.
        out: the PNG.
        adapters, weights, allow_negative: adapter folders or Hub ids, all active together, as for
            ``load_adapters``.
        force: replace a file that is there.

    Raises:
        BadInput: the file exists, nobody of that name, an unreadable adapter.
    """
    target = Path(out)
    refuse_existing(target, force=force)
    if target.suffix.lower() != ".png":
        raise BadInput(f"out = {str(target)!r} does not end in .png, and a PNG is what is written")
    preset = ForgetConfig.preset(session.family)
    rows = [
        resolve_identity(identity, session.bank, session.reader, preset.faces.linked).embeddings
        for identity in identities
    ]
    conditions = torch.cat([row[torch.arange(settings.images) % len(row)] for row in rows])
    pipe, sampling = session.pipe, preset.evaluation
    names = load_adapters(pipe, adapters, weights, allow_negative=allow_negative)
    seeds = [settings.seed + column for _ in rows for column in range(settings.images)]
    try:
        with session.progress("generate", len(seeds)) as advance:
            faces = generate(
                pipe,
                conditions,
                seeds,
                steps=settings.steps or sampling.steps,
                guidance=settings.guidance or sampling.guidance,
                progress=advance,
            )
    finally:
        unload(pipe, names)
    labels = [Path(str(identity)).name for identity in identities]
    blocks = faces.split(settings.images)
    grid = [(label, list(block)) for label, block in zip(labels, blocks, strict=True)]
    write_file(target, png_bytes(face_grid(grid)), mode=PRIVATE)
