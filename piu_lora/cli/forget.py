"""``piu-lora forget``."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from piu_lora import interrupts
from piu_lora.cli.groups import Making, Opening, grouped
from piu_lora.cli.options import Identities, Json, Settings, Unseen
from piu_lora.cli.output import Part, bars, print_result
from piu_lora.cli.tables import evaluation_parts, expected_parts

if TYPE_CHECKING:
    from piu_lora.jobs.forget import ForgetResult

__all__ = ["command"]

_log = logging.getLogger("piu_lora")


@grouped
def command(
    *,
    identity: Identities,
    making: Making,
    opening: Opening,
    method: Annotated[str | None, typer.Option(help="Method of forgetting. By default gate-encoder.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    settings: Settings = [],
    seed: Annotated[int | None, typer.Option(help="Seed of every random draw.")] = None,
    evaluate: Annotated[
        bool,
        typer.Option("--evaluate/--no-evaluate", help="Generate images before and after, and measure them."),
    ] = True,
    unseen: Unseen = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    as_json: Json = False,
) -> None:
    """Forget a person, or several: make an adapter, measure what it does, and write it to a folder."""
    from piu_lora.config import ForgetConfig
    from piu_lora.jobs.forget import forget
    from piu_lora.jobs.training.launched import is_main
    from piu_lora.model import family_of

    stated = {key: value for key, value in (("method", method), ("seed", seed)) if value is not None}

    def over(chosen: ForgetConfig) -> ForgetConfig:
        if config is not None:
            chosen = chosen.updated_from_toml(config)
        return chosen.updated_from_pairs(settings).updated(stated)

    # The method may be set anywhere, and has defaults of its own.
    family = family_of(opening.base)
    chosen = over(ForgetConfig.preset(family, over(ForgetConfig.preset(family)).method))
    _say_unread(chosen.method, settings)
    try:
        # Of several processes, the first one writes.
        with making.recorded(first=is_main()) as recorded:
            result = forget(
                identity,
                out=making.out,
                config=chosen,
                evaluate=evaluate,
                unseen=unseen,
                resume=resume,
                progress=bars,
                **recorded,
                **opening.keywords,
            )
    except KeyboardInterrupt:
        interrupts.advise("repeat the command with --resume to go on")
        raise
    if not is_main():
        return
    receipt = result.receipt
    facts = {
        "adapter_id": receipt.adapter_id,
        "path": str(result.path),
        "people": receipt.people,
        "seconds": receipt.seconds,
        "evaluation": receipt.evaluation,
    }
    print_result(facts, _result_parts(result), as_json)


def _result_parts(result: "ForgetResult") -> list[Part]:
    """What was made, and how well it forgets."""
    from piu_lora.adapter.receipt import people_text
    from piu_lora.unlearn import find_method

    receipt = result.receipt
    lines: list[Part] = [
        f"adapter {receipt.adapter_id} for {people_text(receipt.people)} in {result.path}",
        f"{'solved' if find_method(receipt.method).solve else 'trained'} in {receipt.seconds['train']:.0f} s",
    ]
    if result.evaluation is not None:
        lines += [
            "",
            *evaluation_parts(result.evaluation.figures),
            *expected_parts(result.evaluation),
            "",
            f"look at {result.path / 'report' / 'before_after.png'}",
        ]
    return lines


def _say_unread(method: str, settings: Sequence[str]) -> None:
    from piu_lora.unlearn import unread_settings

    keys = [pair.partition("=")[0].strip() for pair in settings]
    if unread := unread_settings(method, keys):
        _log.warning(
            "%s does nothing: %s solves in closed form; pass --method piu to train", ", ".join(unread), method
        )
