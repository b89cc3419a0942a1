"""``piu-lora tune``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from piu_lora import interrupts
from piu_lora.cli.groups import Opening, grouped
from piu_lora.cli.options import Json, Settings
from piu_lora.cli.output import bars, print_result

__all__ = ["command"]


@grouped
def command(
    *,
    out: Annotated[
        Path, typer.Option(help="The preset to write, a .toml file. A search that exists is continued.")
    ],
    method: Annotated[str, typer.Option(help="Method whose settings are searched.")] = "piu",
    people: Annotated[int, typer.Option(help="Number of people of the bank to try on.", min=1)] = 4,
    budget: Annotated[str, typer.Option(help="How long new trials are begun: 90s, 20m, 2h.")] = "20m",
    trials: Annotated[
        int, typer.Option(help="Number of trials at most; 0 for as many as the budget allows.", min=0)
    ] = 0,
    opening: Opening,
    settings: Settings = [],
    seed: Annotated[int, typer.Option(help="Seed of the search and of every run.", min=0)] = 42,
    as_json: Json = False,
) -> None:
    """Search the settings that suit your own base and bank, by trials on people of the bank.

    The preset is for `piu-lora forget --config`.
    """
    from piu_lora.jobs.arena.tune import tune

    try:
        tuned = tune(
            out,
            method,
            people=people,
            budget=budget,
            trials=trials,
            settings=settings,
            seed=seed,
            progress=bars,
            **opening.keywords,
        )
    except KeyboardInterrupt:
        interrupts.advise("repeat the command to go on")
        raise
    lines = [
        f"score {tuned.score:.3f} after {tuned.trials} trials, {tuned.first:.3f} with what it began with",
        *(f"{name} = {value:.6g}" for name, value in tuned.settings.items()),
        "",
        *(f"wrote {path}" for path in tuned.files),
    ]
    facts = {**asdict(tuned), "files": [str(path) for path in tuned.files]}
    print_result(facts, lines, as_json)
