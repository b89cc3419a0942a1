"""Make the hosts of the embedded base: ``python -m piu_lora.model.mini.hosts all``.

An LCM-LoRA, a ControlNet and an expression IP-Adapter, small and only good enough to ask whether a forgotten
person comes out of them. Each stage is seeded, resumes from its checkpoint in ``--work`` and is skipped once
done.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

import piu_lora.model.mini as mini

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Work = Annotated[Path, typer.Option(help="folder of photographs and checkpoints, 0.5 GB")]
Out = Annotated[Path, typer.Option(help="folder of the shipped weights")]
_WORK, _OUT = Path("hosts-work"), Path(mini.__file__).parent / "weights" / "hosts"

# Optimiser steps of the shipped weights, on one process.
RECIPE = {"expression": 250, "controlnet": 250, "lcm": 250}


@app.command()
def render(work: Work = _WORK) -> None:
    """Render the photographs that the hosts are trained on."""
    from piu_lora.model.mini.hosts.photographs import photographs

    photographs(work)


@app.command()
def train(
    host: str,
    work: Work = _WORK,
    steps: Annotated[int | None, typer.Option(help="another number than the shipped weights had")] = None,
) -> None:
    """Train one host: expression, controlnet or lcm."""
    from piu_lora.model.mini.hosts import controlnet, expression, lcm

    trainers = {
        "expression": expression.train_expression,
        "controlnet": controlnet.train_controlnet,
        "lcm": lcm.train_lcm,
    }
    if host not in trainers:
        raise typer.BadParameter(f"unknown host {host!r}; known: {', '.join(trainers)}")
    trainers[host](work, steps or RECIPE[host])


@app.command()
def export(work: Work = _WORK, out: Out = _OUT) -> None:
    """Write what ships, in half precision, from the checkpoints."""
    from safetensors.torch import save_file

    from piu_lora.model.mini.hosts import controlnet, expression, lcm

    out.mkdir(parents=True, exist_ok=True)
    controlnet.load_trained(work).half().save_pretrained(out / "controlnet")
    save_file(expression.trained_adapter(work), out / "expression.safetensors")
    save_file(lcm.trained_lora(work), out / "lcm.safetensors")


@app.command("all")
def everything(work: Work = _WORK, out: Out = _OUT) -> None:
    """Every stage in order: half an hour on one core."""
    render(work)
    for host in RECIPE:
        train(host, work)
    export(work, out)


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    app()
