"""``piu-lora evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from piu_lora.cli.options import AdapterArgument, Bank, Base, Device, Dtype, Force, Identities, Json, Pack, Settings
from piu_lora.cli.terminal import bars, print_result

__all__ = ["command"]


def command(
    adapter: AdapterArgument,
    identity: Identities,
    out: Annotated[Path | None, typer.Option(help="folder for report.json and before_after.png")] = None,
    base: Base = "mini",
    bank: Bank = None,
    pack: Pack = None,
    settings: Settings = [],  # noqa: B006
    max_forget: Annotated[float | None, typer.Option(help="fail above this forget ISM, as a multiple of its value before")] = None,
    max_acc_u: Annotated[float | None, typer.Option(help="fail above this share of recognised forget images")] = None,
    min_retain: Annotated[float | None, typer.Option(help="fail below this retain ISM, as a multiple of its value before")] = None,
    device: Device = "auto",
    dtype: Dtype = "fp32",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Score an adapter with the split and seeds of its receipt; exit 1 when a threshold is missed."""
    from piu_lora.evidence import missed, report_table, summary
    from piu_lora.jobs.evaluate import evaluate

    evaluation = evaluate(
        adapter, identity, base, out, bank=bank, pack=pack, settings=tuple(settings), device=device, dtype=dtype, force=force, progress=bars
    )
    failures = missed(evaluation.figures, forget_ratio=max_forget, acc_u=max_acc_u, retain_ratio=min_retain)
    print_result({**summary(evaluation), "missed": failures}, report_table(evaluation.figures), as_json)
    if failures:
        typer.echo("\n".join(f"missed: {line}" for line in failures), err=True)
        raise typer.Exit(1)
