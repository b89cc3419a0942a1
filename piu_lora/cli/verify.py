"""``piu-lora verify``."""

from typing import Annotated

import typer

from piu_lora.cli.options import AdapterArgument, Bank, Base, Device, Json, Pack
from piu_lora.cli.terminal import bars, print_result

__all__ = ["command"]


def command(
    adapter: AdapterArgument,
    base: Base = "mini",
    identity: Annotated[
        str | None, typer.Option(help="whom it forgets: then its figures are measured again")
    ] = None,
    bank: Bank = None,
    pack: Pack = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Check an adapter against its receipt: files, weights, base, effect, figures; exit 1 with the first
    thing that differs.
    """
    from piu_lora.adapter.receipt import people_text
    from piu_lora.evidence import aligned
    from piu_lora.jobs.evaluation.verify import verify_adapter

    verdict = verify_adapter(
        adapter, base, identity=identity, bank=bank, pack=pack, device=device, progress=bars
    )
    rows = [("check", "result", "")]
    rows += [
        (
            check.name,
            "DIFFERS" if check.differs else "skipped" if check.skipped else "as stated",
            check.differs or check.skipped,
        )
        for check in verdict.checks
    ]
    lines = aligned(rows)
    if verdict.people is not None:
        lines.append(f"by its receipt it forgets {people_text(verdict.people)}")
    facts = {
        "verified": verdict.failure is None,
        "people": verdict.people,
        "checks": [vars(check) for check in verdict.checks],
    }
    print_result(facts, "\n".join(lines), as_json)
    if verdict.failure is not None:
        raise typer.Exit(1)
