"""``piu-lora verify``."""

import typer

from piu_lora.cli.groups import Opening, grouped
from piu_lora.cli.messages import translated
from piu_lora.cli.options import AdapterArgument, CheckedIdentity, Json
from piu_lora.cli.output import Table, bars, print_result

__all__ = ["command"]


@grouped
def command(
    *, adapter: AdapterArgument, opening: Opening, identity: CheckedIdentity = None, as_json: Json = False
) -> None:
    """Check an adapter against its receipt: files, weights, base, effect and figures.

    The exit code is 1 when something differs; the checks end there.
    """
    from piu_lora.adapter.receipt import people_text
    from piu_lora.jobs.evaluation.verify import verify_adapter

    verdict = verify_adapter(adapter, identity=identity, progress=bars, **opening.keywords)
    rows = [
        (
            check.name,
            "DIFFERS" if check.differs else "skipped" if check.skipped else "as stated",
            translated(check.differs or check.skipped),
        )
        for check in verdict.checks
    ]
    people = None if verdict.people is None else f"by its receipt it forgets {people_text(verdict.people)}"
    facts = {
        "verified": verdict.failure is None,
        "people": verdict.people,
        "checks": [vars(check) for check in verdict.checks],
    }
    print_result(facts, [Table(("check", "result", ""), rows), *([people] if people else [])], as_json)
    if verdict.failure is not None:
        raise typer.Exit(1)
