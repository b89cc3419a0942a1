"""``piu-lora generate``."""

from pathlib import Path
from typing import Annotated

import typer

from piu_lora.cli.options import AllowNegative, Bank, Base, Device, Dtype, Force, Json, Pack, Seed
from piu_lora.cli.output import bars, print_result

__all__ = ["command"]


def command(
    identity: Annotated[
        list[str], typer.Option(help="a bank id, photos or embeddings; repeatable: one row each")
    ],
    out: Annotated[Path, typer.Option(help="PNG to write")],
    base: Base = "mini",
    bank: Bank = None,
    pack: Pack = None,
    adapter: Annotated[
        list[str], typer.Option(help="adapter folder or Hub id; repeatable: all active together")
    ] = [],
    weight: Annotated[
        list[float], typer.Option(help="weight of the adapter in the same place; 1 by default")
    ] = [],
    allow_negative: AllowNegative = False,
    images: Annotated[int, typer.Option(min=1, max=64, help="images of each identity")] = 4,
    steps: Annotated[int | None, typer.Option(min=1, help="denoising steps; the base's default")] = None,
    guidance: Annotated[float | None, typer.Option(min=1, help="guidance scale; the base's default")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "fp32",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Generate faces into a labelled grid, with or without adapters."""
    from piu_lora.jobs.evaluation.generate import generate_grid

    generate_grid(
        identity, base, out, bank=bank, pack=pack, adapters=adapter, weights=weight or None, allow_negative=allow_negative,
        images=images, steps=steps, guidance=guidance, seed=seed,
        device=device, dtype=dtype, force=force, progress=bars,
    )  # fmt: skip
    print_result({"path": str(out), "identities": len(identity), "images": images}, f"wrote {out}", as_json)
