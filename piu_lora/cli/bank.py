"""``piu-lora bank``."""

from pathlib import Path
from typing import Annotated

import typer

from piu_lora.cli.options import Force, Json
from piu_lora.cli.terminal import print_result

__all__ = ["app"]

app = typer.Typer(help="Identity banks: the people whom an adapter must leave alone.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Identity banks."""


@app.command("show")
def show(
    bank: Annotated[str, typer.Argument(help="bank file, or mini for the embedded one")] = "mini",
    as_json: Json = False,
) -> None:
    """Say what a bank holds."""
    from piu_lora.jobs.case import bank_for

    people = bank_for("mini", bank)
    counts = people.labels.bincount()
    facts = {
        "identities": len(people), "embeddings": len(people.embeddings), "width": people.width,
        "fewest_per_identity": int(counts.min()), "most_per_identity": int(counts.max()),
        "recognizer": people.recognizer.name, "recognizer_sha256": people.recognizer.sha256, "settings": people.settings,
        "first_ids": people.ids[:5],
    }  # fmt: skip
    print_result(facts, "\n".join(f"{name.replace('_', ' '):22} {value}" for name, value in facts.items()), as_json)


@app.command("export")
def export(
    identity: Annotated[str, typer.Argument(help="an id of the bank")],
    out: Annotated[Path, typer.Option(help=".npy file to write, (n, d) float32 unit rows")],
    bank: Annotated[str, typer.Option(help="bank file, or mini for the embedded one")] = "mini",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the embeddings of one identity, for tools that know no bank. They are biometric data: keep them safe."""
    from piu_lora.jobs.bank import export_embeddings

    count = export_embeddings(bank, identity, out, force=force)
    print_result({"path": str(out), "embeddings": count}, f"wrote {count} embeddings to {out}", as_json)
