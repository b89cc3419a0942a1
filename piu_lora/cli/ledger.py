"""``piu-lora ledger``: whom the adapters forget, and what became of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from piu_lora.cli.options import Force, Json, LedgerFile
from piu_lora.cli.terminal import opened_ledger, print_result
from piu_lora.errors import BadInput
from piu_lora.groups import FORGET

__all__ = ["app"]

app = typer.Typer(
    name="ledger",
    help="The operator's own record of whom each adapter forgets; it never leaves this machine.",
    no_args_is_help=True,
)
AdapterId = Annotated[str, typer.Argument(help="an adapter's id, or at least its first four characters")]


@contextmanager
def _opened(name: str | None) -> Iterator[Any]:
    if name == "none":
        raise BadInput(
            "--ledger 'none' leaves nothing to look at; pass a file, or leave the option out for your own ledger"
        )
    with opened_ledger(name) as entries:
        yield entries


@app.command("list")
def list_(
    state: Annotated[
        Literal["pending", "active", "merged", "withdrawn"] | None, typer.Option(help="only those")
    ] = None,
    names: Annotated[bool, typer.Option("--names", help="show whom they forget")] = False,
    ledger: LedgerFile = None,
    as_json: Json = False,
) -> None:
    """List the adapters; whom they forget only with --names, since terminals are logged."""
    from piu_lora.evidence import aligned
    from piu_lora.jobs.ledger import forgotten_people

    with _opened(ledger) as entries:
        found, place = entries.entries(state), entries.path
    head = [
        "adapter",
        "state",
        "base",
        "method",
        "people",
        "created",
        "forget ISM",
        *(["identity"] if names else []),
    ]
    rows = [
        [
            each.adapter_id,
            each.state,
            each.base,
            each.method,
            str(forgotten_people(each) or "-"),
            each.created[:10],
            _forget(each.figures),
            *([", ".join(each.identities)] if names else []),
        ]
        for each in found
    ]
    facts = {
        "adapters": [
            {**(vars(each) if names else each.public()), "people": forgotten_people(each)} for each in found
        ]
    }
    print_result(
        facts,
        "\n".join(aligned([head, *rows]))
        if rows
        else f"no {state or ''} adapters in {place}".replace("  ", " "),
        as_json,
    )


def _forget(figures: dict[str, dict[str, float | None]]) -> str:
    ratios = [scores.get(FORGET) for scores in figures.values()]
    return " / ".join(f"x {ratio:.3f}" for ratio in ratios if ratio is not None) or "-"


@app.command("show")
def show(adapter: AdapterId, ledger: LedgerFile = None, as_json: Json = False) -> None:
    """Show one entry in full, with the person."""
    from piu_lora.jobs.ledger import forgotten_people

    with _opened(ledger) as entries:
        entry = entries.find(adapter)
    found = {**vars(entry), "people": forgotten_people(entry)}
    lines = [f"{name.replace('_', ' '):15} {_plain(value)}" for name, value in found.items() if value]
    print_result(found, "\n".join(lines), as_json)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return ", ".join(value) if isinstance(value, tuple) else str(value)


@app.command("withdraw")
def withdraw(
    adapter: AdapterId,
    note: Annotated[str, typer.Option(help="why, for your own records")] = "",
    ledger: LedgerFile = None,
    as_json: Json = False,
) -> None:
    """Mark an adapter withdrawn; its folder is left to you."""
    with _opened(ledger) as entries:
        found = entries.withdraw(adapter, note)
        still = [each.adapter_id for each in entries.containing(found.adapter_id)]
    lines = [f"{found.adapter_id} is withdrawn; delete {found.path} where it is no longer wanted"]
    lines += [
        f"it is still part of {name}: `piu-lora stack withdraw` merges anew without it" for name in still
    ]
    print_result({**found.public(), "still_part_of": still}, "\n".join(lines), as_json)


@app.command("export")
def export(
    out: Annotated[Path, typer.Option(help=".json or .csv file to write, readable by you alone")],
    public: Annotated[
        bool, typer.Option("--public", help="without identities, banks, paths and notes")
    ] = False,
    ledger: LedgerFile = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the ledger to a file."""
    from piu_lora.jobs.ledger import export_ledger

    with _opened(ledger) as entries:
        count = export_ledger(entries, out, public=public, force=force)
    print_result({"path": str(out), "adapters": count}, f"wrote {count} entries to {out}", as_json)


@app.command("check")
def check(
    folders: Annotated[
        list[Path], typer.Argument(help="folders to search for adapters that have no entry")
    ] = [],
    mend: Annotated[
        bool, typer.Option("--mend", help="enter adapters that have none, with an unknown identity")
    ] = False,
    ledger: LedgerFile = None,
    as_json: Json = False,
) -> None:
    """Compare the ledger with the adapter folders, and settle what a killed run left; exit 1 when something
    is left to do.
    """
    from piu_lora.jobs.ledger import check_ledger

    with _opened(ledger) as entries:
        problems = check_ledger(entries, folders, mend=mend)
    lines = [f"{'mended' if each.mended else 'problem'}: {each.adapter_id} {each.what}" for each in problems]
    print_result(
        {"problems": [vars(each) for each in problems]},
        "\n".join(lines) or "ledger and folders agree",
        as_json,
    )
    if any(not each.mended for each in problems):
        raise typer.Exit(1)
