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
Processes = Annotated[int, typer.Option(help="processes; their gradients are averaged")]
_WORK, _OUT, _CORES = Path("mini-work"), Path(mini.__file__).parent / "weights", os.cpu_count() or 1

# Optimiser steps of the shipped weights, and the processes they were averaged over.
STEPS = {"conditioning": 2000, "evaluating": 2000, "vae": 1700, "colours": 700, "decoder": 1500, "generator": 11000}


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

    columns = [portraits(person, shots, seed * 1009 + place) for place, person in enumerate(sample(people, seed))]
    faces = torch.stack(columns, dim=1)
    pixels = faces.permute(0, 3, 1, 4, 2).reshape(shots * faces.shape[-1], people * faces.shape[-1], 3)
    Image.fromarray(pixels.numpy()).resize((pixels.shape[1] * 2, pixels.shape[0] * 2), Image.Resampling.LANCZOS).save(out)


@app.command()
def render(work: Work = _WORK, processes: Processes = _CORES) -> None:
    """Render the training set."""
    from piu_lora.model.mini.dataset import write_training_set

    work.mkdir(parents=True, exist_ok=True)
    write_training_set(work, processes)


@app.command()
def train(piece: str, work: Work = _WORK, processes: Processes = _CORES, steps: int = 0) -> None:
    """Train one piece: conditioning, evaluating, vae, decoder or generator."""
    from piu_lora.model.mini import autoencoder, generator, recognizers
    from piu_lora.model.mini.training import launch

    count = steps or STEPS.get(piece, 0)
    if piece in recognizers.RECOGNIZERS:
        launch(recognizers.train_recognizer, processes, piece, work, count)
    elif piece == "vae":
        launch(autoencoder.train_autoencoder, processes, work, count)
    elif piece == "colours":
        launch(autoencoder.train_colours, processes, work, count)
    elif piece == "decoder":
        launch(autoencoder.train_decoder, processes, work, count)
    elif piece == "generator":
        autoencoder.encode_training_set(work)
        generator.embed_training_set(work)
        launch(generator.train_generator, processes, work, count)
    else:
        raise typer.BadParameter(f"unknown piece {piece!r}; known: {', '.join(STEPS)}")


@app.command()
def export(work: Work = _WORK, out: Out = _OUT) -> None:
    """Write recognizers, base and banks from the checkpoints."""
    from piu_lora.model.mini import export as shipping

    shipping.export_recognizers(work, out)
    shipping.export_base(work, out)
    shipping.export_banks(out)


@app.command("all")
def everything(work: Work = _WORK, out: Out = _OUT, processes: Processes = _CORES) -> None:
    """Every stage in order: about two hours on four cores."""
    render(work, processes)
    for piece in STEPS:
        train(piece, work, processes)
    export(work, out)


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    app()
