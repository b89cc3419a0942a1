"""``piu-lora push`` and ``piu-lora pull``."""

from pathlib import Path
from typing import Annotated

import typer

from piu_lora.cli.options import Bank, Force, Json, LedgerFile, Pack
from piu_lora.cli.terminal import opened_ledger, print_result

__all__ = ["pull", "push"]


def push(
    adapter: Annotated[Path, typer.Argument(help="adapter folder")],
    repository: Annotated[str, typer.Argument(metavar="USER/REPO", help="created where it is missing")],
    public: Annotated[
        bool, typer.Option("--public", help="a new repository is seen by everybody; private by default")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="list the files and the card, and send nothing")
    ] = False,
    identity: Annotated[
        str | None,
        typer.Option(help="whom it forgets: the files are searched for it; from the ledger by default"),
    ] = None,
    bank: Bank = None,
    pack: Pack = None,
    ledger: LedgerFile = None,
    as_json: Json = False,
) -> None:
    """Push an adapter to the Hub; refuses when a file names the person it forgets."""
    from piu_lora.adapter.receipt import people_text
    from piu_lora.jobs.adapters.publish import push as job

    with opened_ledger(ledger) as entries:
        done = job(
            adapter,
            repository,
            public=public,
            dry_run=dry_run,
            identity=identity,
            bank=bank,
            pack=pack,
            ledger=entries,
        )
    facts = {"repository": repository, "public": public, "dry_run": dry_run, **vars(done)}
    listing = [f"{size:>12,} {name}" for name, size in done.files.items()]
    if dry_run:
        text = "\n".join([*listing, "", done.card])
    else:
        text = "\n".join(
            [
                *listing,
                f"{'pushed to' if done.changed else 'unchanged at'} {done.url} (commit {done.commit[:12]}), "
                f"for {people_text(done.people)}",
            ]
        )
    print_result(facts, text, as_json)


def pull(
    name: Annotated[str, typer.Argument(metavar="USER/REPO[@REVISION]", help="an adapter on the Hub")],
    out: Annotated[
        Path | None, typer.Option(help="folder to create; the repository's name by default")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Download an adapter from the Hub into a folder, with every digest checked."""
    from piu_lora.adapter.receipt import people_text
    from piu_lora.jobs.adapters.publish import pull as job

    adapter = job(name, out, force=force)
    print_result(
        {"adapter_id": adapter.id, "path": str(adapter.path), "people": adapter.receipt.people},
        f"adapter {adapter.id} for {people_text(adapter.receipt.people)} in {adapter.path}",
        as_json,
    )
