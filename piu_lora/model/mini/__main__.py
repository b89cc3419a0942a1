"""Make the embedded base from nothing: ``python -m piu_lora.model.mini all``.

Each stage is seeded, shows its progress, resumes from its checkpoint in ``--work`` and is skipped once done.
"""

import os
from pathlib import Path
from typing import Annotated

import torch
import typer

import piu_lora.model.mini as mini

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Work = Annotated[Path, typer.Option(help="folder of data set and checkpoints, 3 GB")]
Out = Annotated[Path, typer.Option(help="folder of the shipped weights")]
Processes = Annotated[int, typer.Option(help="processes that render")]
Recipe = Annotated[int | None, typer.Option(help="another number than the shipped weights were made with")]
_WORK, _OUT, _CORES = Path("mini-work"), Path(mini.__file__).parent / "weights", os.cpu_count() or 1

# Optimiser steps of the shipped weights, and the processes their gradients were averaged over.
RECIPE = {
    "conditioning": (2000, 2),
    "evaluating": (2000, 2),
    "vae": (1700, 4),
    "colours": (700, 4),
    "decoder": (1200, 1),
    "generator": (3300, 3),
}


@app.command()
def path() -> None:
    """Print the folder of the embedded base, for stock diffusers."""
    typer.echo(mini.folder())


@app.command()
def sheet(out: Path, people: int = 8, shots: int = 5, seed: int = 0) -> None:
    """Render a sheet of portraits: a column a person, a row a photograph."""
    from PIL import Image

    from piu_lora.model.mini.dataset import people as sample
    from piu_lora.model.mini.dataset import portraits

    columns = [
        portraits(person, shots, seed * 1009 + index) for index, person in enumerate(sample(people, seed))
    ]
    faces = torch.stack(columns, dim=1)
    pixels = faces.permute(0, 3, 1, 4, 2).reshape(shots * faces.shape[-1], people * faces.shape[-1], 3)
    Image.fromarray(pixels.numpy()).resize(
        (pixels.shape[1] * 2, pixels.shape[0] * 2), Image.Resampling.LANCZOS
    ).save(out)


@app.command()
def render(work: Work = _WORK, processes: Processes = _CORES) -> None:
    """Render the training set."""
    from piu_lora.model.mini.dataset import write_training_set

    work.mkdir(parents=True, exist_ok=True)
    write_training_set(work, processes)


@app.command()
def train(piece: str, work: Work = _WORK, processes: Recipe = None, steps: Recipe = None) -> None:
    """Train one piece: conditioning, evaluating, vae, colours, decoder or generator."""
    from piu_lora.model.mini import autoencoder, generator, recognizers
    from piu_lora.model.mini.training import launch

    if piece not in RECIPE:
        raise typer.BadParameter(f"unknown piece {piece!r}; known: {', '.join(RECIPE)}")
    count, workers = steps or RECIPE[piece][0], processes or RECIPE[piece][1]
    if piece in recognizers.RECOGNIZERS:
        launch(recognizers.train_recognizer, workers, piece, work, count)
    elif piece == "vae":
        launch(autoencoder.train_autoencoder, workers, work, count)
    elif piece == "colours":
        launch(autoencoder.train_colours, workers, work, count)
    elif piece == "decoder":
        launch(autoencoder.train_decoder, workers, work, count)
    else:
        autoencoder.encode_training_set(work)
        generator.embed_training_set(work)
        launch(generator.train_generator, workers, work, count)


@app.command()
def export(work: Work = _WORK, out: Out = _OUT) -> None:
    """Write recognizers, base and banks from the checkpoints."""
    from piu_lora.model.mini import export as shipping

    shipping.export_recognizers(work, out)
    shipping.export_base(work, out)
    shipping.export_banks(out)


@app.command("hard-banks")
def hard_banks(out: Out = _OUT) -> None:
    """Write the banks of photographs that are hard on purpose, by the recognizers that are there."""
    from piu_lora.model.mini.hard import save_hard_banks

    save_hard_banks(out)


@app.command("all")
def everything(work: Work = _WORK, out: Out = _OUT, processes: Processes = _CORES) -> None:
    """Every stage in order: about two hours on four cores."""
    render(work, processes)
    for piece in RECIPE:
        train(piece, work)
    export(work, out)


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    app()
