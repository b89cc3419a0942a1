"""``piu-lora compare``."""

from pathlib import Path
from typing import Annotated

import typer

from piu_lora.cli.options import Bank, Base, Device, Json, Pack, SecondBank, SecondPack, Settings
from piu_lora.cli.terminal import INTERRUPTED, bars, print_result

__all__ = ["command"]


def command(
    out: Annotated[Path, typer.Option(help="folder of the comparison; one that is there is gone on with")],
    methods: Annotated[str, typer.Option(help="separated by commas; all of them by default")] = "",
    people: Annotated[int, typer.Option(help="drawn from the bank", min=1)] = 20,
    seeds: Annotated[int, typer.Option(help="of each person", min=1)] = 2,
    vary: Annotated[
        list[str],
        typer.Option(help="section.key=VALUE,VALUE for ours, baseline:key=VALUE,VALUE for a baseline"),
    ] = [],
    variants: Annotated[
        list[str], typer.Option("--variant", help='one more contender: "METHOD section.key=VALUE ..."')
    ] = [],
    base: Base = "mini",
    bank: Bank = None,
    pack: Pack = None,
    second: SecondPack = None,
    second_bank: SecondBank = None,
    settings: Settings = [],
    processes: Annotated[int, typer.Option(help="run at once", min=1)] = 1,
    device: Device = "auto",
    against: Annotated[
        str | None, typer.Option(help="method that the others are compared with, on the cells that both have")
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="run nothing; tables of the cells that are there")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare methods, ours and the baselines', on the same people, split, seeds, anchors and judges."""
    from dataclasses import asdict

    from piu_lora.jobs.arena.compare import compare, shared_settings
    from piu_lora.jobs.arena.round import known_methods
    from piu_lora.model import family_of

    family = family_of(base)
    config = shared_settings(family).updated_from_pairs(settings)
    chosen = [name.strip() for name in methods.split(",")] if methods else known_methods(family)
    try:
        result = compare(
            out, chosen, people=people, seeds=seeds, vary=vary, variants=variants, base=base, bank=bank, pack=pack, second=second,
            second_bank=second_bank, config=config, processes=processes, device=device, against=against, report_only=report_only,
            progress=bars,
        )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo("interrupted; repeat the command to go on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    facts = {
        "rows": [asdict(row) for row in result.rows],
        "differences": [asdict(each) for each in result.differences],
        "files": [str(path) for path in result.files],
    }
    print_result(facts, "\n".join([result.text, "", *(f"wrote {path}" for path in result.files)]), as_json)
