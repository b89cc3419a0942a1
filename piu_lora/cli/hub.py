"""``piu-lora push`` and ``piu-lora pull``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from piu_lora.cli.options import (
    Bank,
    DryRun,
    Force,
    Json,
    LedgerFile,
    Pack,
    PublicRepository,
    PulledFolder,
    SearchedIdentity,
)
from piu_lora.cli.output import Document, Part, print_result
from piu_lora.cli.terminal import opened_ledger

if TYPE_CHECKING:
    from piu_lora.jobs.adapters.publish import Published

__all__ = ["pull", "push"]


def push(
    adapter: Annotated[Path, typer.Argument(help="Adapter folder.")],
    repository: Annotated[
        str,
        typer.Argument(metavar="USER/REPO", help="Repository on the Hub; it is created where it is missing."),
    ],
    public: PublicRepository = False,
    dry_run: DryRun = False,
    identity: SearchedIdentity = None,
    bank: Bank = None,
    pack: Pack = None,
    ledger: LedgerFile = None,
    as_json: Json = False,
) -> None:
    """Upload an adapter to the Hub.

    Nothing is sent when a file names or shows the person whom the adapter forgets.
    """
    from piu_lora.jobs.adapters.publish import push as job

    with opened_ledger(ledger) as entries:
        published = job(
            adapter,
            repository,
            public=public,
            dry_run=dry_run,
            identity=identity,
            bank=bank,
            pack=pack,
            ledger=entries,
        )
    facts = {"repository": repository, "public": public, "dry_run": dry_run, **vars(published)}
    print_result(facts, _parts(published, dry_run=dry_run), as_json)


def _parts(published: "Published", *, dry_run: bool) -> list[Part]:
    from piu_lora.adapter.receipt import people_text

    files: list[Part] = [f"{size:>12,} {name}" for name, size in published.files.items()]
    if dry_run:
        return [*files, "", Document(published.card)]
    state = "pushed to" if published.changed else "unchanged at"
    people = people_text(published.people)
    return [*files, f"{state} {published.url} (commit {published.commit[:12]}), for {people}"]


def pull(
    name: Annotated[
        str,
        typer.Argument(metavar="USER/REPO[@REVISION]", help="Adapter on the Hub, at a revision if given."),
    ],
    out: PulledFolder = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Download an adapter from the Hub into a folder, and check the digest of every file."""
    from piu_lora.adapter.receipt import people_text
    from piu_lora.jobs.adapters.publish import pull as job

    adapter = job(name, out, force=force)
    people = adapter.receipt.people
    print_result(
        {"adapter_id": adapter.id, "path": str(adapter.path), "people": people},
        f"adapter {adapter.id} for {people_text(people)} in {adapter.path}",
        as_json,
    )
