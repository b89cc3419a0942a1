"""``piu-lora doctor``."""

from pathlib import Path
from typing import Annotated

import typer

from piu_lora.cli.options import Json
from piu_lora.cli.terminal import print_result

__all__ = ["command"]

NOT_READY = 3


def command(
    base: Annotated[str | None, typer.Option(help="mini or arc2face; both by default")] = None,
    pack: Annotated[
        Path | None,
        typer.Option(help="folder of the face detector and arcface.onnx; $PIU_LORA_PACK by default"),
    ] = None,
    out: Annotated[Path, typer.Option(help="where adapters and reports are to go")] = Path(),
    as_json: Json = False,
) -> None:
    """Say what this machine can do and what it lacks; exit 3 when even the embedded base cannot be used."""
    from piu_lora.jobs.doctor import examine

    report = examine(base, pack=pack, out=out)
    print_result(report.to_dict(), report.table(), as_json)
    if not report.ready:
        raise typer.Exit(NOT_READY)
