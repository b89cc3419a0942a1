"""``piu-lora evaluate``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from piu_lora.cli.options import (
    AdapterArgument,
    Bank,
    Base,
    Device,
    Dtype,
    Force,
    Identities,
    Json,
    Junit,
    Pack,
    PolicyFile,
    Public,
    SecondBank,
    SecondPack,
    Settings,
)
from piu_lora.cli.terminal import INTERRUPTED, bars, check_junit, judged, print_result

__all__ = ["command"]


def command(
    adapter: AdapterArgument,
    identity: Identities,
    out: Annotated[
        Path | None, typer.Option(help="folder for report.json, report.md and report.html")
    ] = None,
    base: Base = "mini",
    bank: Bank = None,
    pack: Pack = None,
    second: SecondPack = None,
    second_bank: SecondBank = None,
    references: Annotated[
        Path | None,
        typer.Option(help="photographs of the person that `forget` did not see, to verify against"),
    ] = None,
    quality: Annotated[Path | None, typer.Option(help="ONNX model of face quality")] = None,
    settings: Settings = [],
    policy: PolicyFile = None,
    max_forget: Annotated[
        float | None, typer.Option(help="fail above this forget ISM, as a multiple of its value before")
    ] = None,
    max_acc_u: Annotated[
        float | None, typer.Option(help="fail above this share of recognised forget images")
    ] = None,
    min_retain: Annotated[
        float | None, typer.Option(help="fail below this retain ISM, as a multiple of its value before")
    ] = None,
    junit: Junit = None,
    images: Annotated[
        bool, typer.Option("--images", help="show the forgotten person in report.html")
    ] = False,
    public: Public = False,
    device: Device = "auto",
    dtype: Dtype = "fp32",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure an adapter with the split and seeds of its receipt; exit 1 when a policy that was asked for is
    missed.
    """
    from piu_lora.evidence import Policy
    from piu_lora.evidence.report import report_table
    from piu_lora.jobs.evaluation.evaluate import Judges, evaluate

    limits = _stated(max_forget, max_acc_u, min_retain)
    chosen = Policy.load(policy) if policy else Policy.only("command line", **limits) if limits else Policy()
    check_junit(junit)
    try:
        found = evaluate(
            adapter, identity, base, out, bank=bank, pack=pack, judges=Judges(second, second_bank, references, quality),
            settings=settings, policy=chosen.tightened(**limits), images=images, public=public, device=device, dtype=dtype, force=force,
            progress=bars,
        )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted; {'repeat the command to go on' if out else 'with --out, it would go on'}", err=True
        )
        raise typer.Exit(INTERRUPTED) from None
    print_result(
        found.document,
        "\n".join([report_table(found.figures), *(f"wrote {path}" for path in found.files)]),
        as_json,
    )
    judged(found.report, junit, binding=policy is not None or bool(limits))


def _stated(max_forget: float | None, max_acc_u: float | None, min_retain: float | None) -> dict[str, Any]:
    limits = {
        "forget_ism": max_forget,
        "recognised": max_acc_u,
        "random_ism": min_retain,
        "nearest_ism": min_retain,
    }
    return {name: limit for name, limit in limits.items() if limit is not None}
