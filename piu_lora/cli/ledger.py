"""``piu-lora ledger``: whom the adapters forget, and what became of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from piu_lora.cli.options import Force, Json, LedgerFile
from piu_lora.cli.output import Facts, Table, print_result
from piu_lora.cli.terminal import opened_ledger
from piu_lora.errors import BadInput
from piu_lora.groups import FORGET

if TYPE_CHECKING:
    from piu_lora.adapter import Entry

__all__ = ["app"]

app = typer.Typer(
    name="ledger",
    help="Keep your own record of whom each adapter forgets; it never leaves this machine.",
    no_args_is_help=True,
)
AdapterId = Annotated[str, typer.Argument(help="The adapter's id, or at least its first four characters.")]


@contextmanager
def _opened(name: str | None) -> Iterator[Any]:
    if name == "none":
        raise BadInput(
            "ledger = 'none' leaves nothing to look at; pass a file, or leave `ledger` out for your own"
        )
    with opened_ledger(name) as entries:
        yield entries


@app.command("list")
def list_(
    state: Annotated[
        Literal["pending", "active", "merged", "withdrawn"] | None,
        typer.Option(help="List only the adapters in this state."),
    ] = None,
    names: Annotated[bool, typer.Option("--names", help="Show whom the adapters forget.")] = False,
    ledger: LedgerFile = None,
    as_json: Json = False,
) -> None:
    """List the adapters. Whom they forget is shown only with --names, since terminals are logged."""
    from piu_lora.jobs.ledger import forgotten_people

    with _opened(ledger) as ledger_file:
        entries, path = ledger_file.entries(state), ledger_file.path
    facts = [
        {**(vars(entry) if names else entry.public()), "people": forgotten_people(entry)} for entry in entries
    ]
    nothing = f"no {state} adapters in {path}" if state else f"no adapters in {path}"
    print_result({"adapters": facts}, _listed(entries, names=names) if entries else nothing, as_json)


def _listed(entries: "list[Entry]", *, names: bool) -> Table:
    from piu_lora.jobs.ledger import forgotten_people

    head = ["adapter", "state", "base", "method", "people", "created", "forget ISM"]
    rows = [
        [
            entry.adapter_id,
            entry.state,
            entry.base,
            entry.method,
            str(forgotten_people(entry) or "-"),
            entry.created[:10],
            _forget_ratios(entry.figures),
            *([", ".join(entry.identities)] if names else []),
        ]
        for entry in entries
    ]
    return Table([*head, *(["identity"] if names else [])], rows)


def _forget_ratios(figures: dict[str, dict[str, float | None]]) -> str:
    ratios = [scores.get(FORGET) for scores in figures.values()]
    return " / ".join(f"x {ratio:.3f}" for ratio in ratios if ratio is not None) or "-"


@app.command("show")
def show(adapter: AdapterId, ledger: LedgerFile = None, as_json: Json = False) -> None:
    """Show one entry in full, with the person whom the adapter forgets."""
    from piu_lora.jobs.ledger import forgotten_people

    with _opened(ledger) as entries:
        entry = entries.find(adapter)
    facts = {**vars(entry), "people": forgotten_people(entry)}
    pairs = [(name.replace("_", " "), _text(value)) for name, value in facts.items() if value]
    print_result(facts, Facts(pairs, 15), as_json)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return ", ".join(value) if isinstance(value, tuple) else str(value)


@app.command("withdraw")
def withdraw(
    adapter: AdapterId,
    note: Annotated[str, typer.Option(help="Why, for your own records.")] = "",
    ledger: LedgerFile = None,
    as_json: Json = False,
) -> None:
    """Mark an adapter as withdrawn. Its folder is left for you to delete."""
    with _opened(ledger) as entries:
        entry = entries.withdraw(adapter, note)
        merged = [merge.adapter_id for merge in entries.containing(entry.adapter_id)]
    lines = [f"{entry.adapter_id} is withdrawn; delete {entry.path} where it is no longer wanted"]
    lines += [
        f"it is still part of {name}: `piu-lora stack withdraw` merges anew without it" for name in merged
    ]
    print_result({**entry.public(), "still_part_of": merged}, lines, as_json)


@app.command("export")
def export(
    out: Annotated[Path, typer.Option(help="The .json or .csv file to write; only you may read it.")],
    public: Annotated[
        bool, typer.Option("--public", help="Leave out identities, banks, paths and notes.")
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
        list[Path], typer.Argument(help="Folders to search for adapters that have no entry.")
    ] = [],
    mend: Annotated[
        bool, typer.Option("--mend", help="Enter the adapters that have no entry, with an unknown identity.")
    ] = False,
    ledger: LedgerFile = None,
    as_json: Json = False,
) -> None:
    """Compare the ledger with the adapter folders, and settle what a killed run left behind.

    The exit code is 1 when something is left to do.
    """
    from piu_lora.jobs.ledger import check_ledger

    with _opened(ledger) as entries:
        problems = check_ledger(entries, folders, mend=mend)
    lines = [
        f"{'mended' if problem.mended else 'problem'}: {problem.adapter_id} {problem.what}"
        for problem in problems
    ]
    facts = {"problems": [vars(problem) for problem in problems]}
    print_result(facts, lines or "ledger and folders agree", as_json)
    if any(not problem.mended for problem in problems):
        raise typer.Exit(1)
