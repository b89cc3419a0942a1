"""``piu-lora compare``."""

from pathlib import Path
from typing import Annotated

import typer

from piu_lora import interrupts
from piu_lora.cli.groups import Opening, grouped
from piu_lora.cli.options import Against, EngineName, Json, SecondBank, SecondPack, Settings, Variants, Vary
from piu_lora.cli.output import bars, print_result
from piu_lora.cli.tables import markdown_parts

__all__ = ["command"]


@grouped
def command(
    *,
    out: Annotated[Path, typer.Option(help="Folder of the comparison. One that exists is continued.")],
    methods: Annotated[
        str,
        typer.Option(
            help="Methods to compare, separated by commas. By default all, each baseline in its usual form."
        ),
    ] = "",
    people: Annotated[int, typer.Option(help="Number of people to draw from the bank.", min=1)] = 20,
    seeds: Annotated[int, typer.Option(help="Number of seeds for each person.", min=1)] = 2,
    vary: Vary = [],
    variants: Variants = [],
    opening: Opening,
    second: SecondPack = None,
    second_bank: SecondBank = None,
    settings: Settings = [],
    processes: Annotated[
        int,
        typer.Option(
            help="Number of processes that run at once; with --engine ray, 0 is all of a cluster.", min=0
        ),
    ] = 1,
    engine: EngineName = "processes",
    address: Annotated[
        str, typer.Option(help="Address of a running Ray cluster. By default Ray is started here.")
    ] = "",
    against: Against = None,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep", help="Run each method at several strengths, and compare at equal forgetting, too."
        ),
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep what each method makes, for `audit`, in OUT/artefacts.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing, and report on what was run before.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare methods and baselines on the same people, seeds, anchors and recognizers."""
    from dataclasses import asdict

    from piu_lora.jobs.arena.arena import shared_settings
    from piu_lora.jobs.arena.compare import compare
    from piu_lora.jobs.arena.contender import usual_methods
    from piu_lora.model import family_of

    family = family_of(opening.base)
    config = shared_settings(family).updated_from_pairs(settings)
    chosen = [name.strip() for name in methods.split(",")] if methods else usual_methods(family)
    try:
        result = compare(
            out,
            chosen,
            people=people,
            seeds=seeds,
            vary=vary,
            variants=variants,
            second=second,
            second_bank=second_bank,
            config=config,
            processes=processes,
            engine=engine,
            address=address,
            against=against,
            sweep=sweep,
            keep=keep,
            report_only=report_only,
            progress=bars,
            **opening.keywords,
        )
    except KeyboardInterrupt:
        interrupts.advise("repeat the command to go on")
        raise
    facts = {
        "rows": [asdict(row) for row in result.rows],
        "differences": [asdict(difference) for difference in result.differences],
        "files": [str(path) for path in result.files],
    }
    written = [f"wrote {path}" for path in result.files]
    print_result(facts, [*markdown_parts(result.text), "", *written], as_json)
