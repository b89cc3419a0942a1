"""``piu-lora generate``."""

from pathlib import Path
from typing import Annotated

import typer

from piu_lora.cli.groups import Opening, grouped
from piu_lora.cli.options import AllowNegative, Dtype, Force, Json, Seed, Weights
from piu_lora.cli.output import bars, print_result

__all__ = ["command"]


@grouped
def command(
    *,
    identity: Annotated[
        list[str],
        typer.Option(
            help="Whose face to generate: an id of the bank, photographs, or a file of embeddings. "
            "Repeat the option for a row each."
        ),
    ],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    opening: Opening,
    adapters: Annotated[
        list[str],
        typer.Option(
            "--adapter", help="Adapter folder or Hub id. Repeat the option to use several adapters at once."
        ),
    ] = [],
    weights: Weights = [],
    allow_negative: AllowNegative = False,
    images: Annotated[int, typer.Option(min=1, max=64, help="Number of images for each identity.")] = 4,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of denoising steps. By default that of the base.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=1, help="Guidance scale. By default that of the base.")
    ] = None,
    seed: Seed = 0,
    dtype: Dtype = "fp32",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Generate faces into a labelled grid, with or without adapters."""
    from piu_lora.jobs.evaluation.generate import GridSettings, generate_grid
    from piu_lora.jobs.request.session import open_session

    session = open_session(**opening.keywords, dtype=dtype, progress=bars)
    generate_grid(
        session,
        identity,
        out,
        adapters=adapters,
        weights=weights or None,
        allow_negative=allow_negative,
        settings=GridSettings(images, steps, guidance, seed),
        force=force,
    )
    print_result({"path": str(out), "identities": len(identity), "images": images}, f"wrote {out}", as_json)
