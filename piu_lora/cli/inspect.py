"""``piu-lora inspect`` and ``piu-lora list``."""

from pathlib import Path
from typing import Annotated

import typer

from piu_lora.cli.options import AdapterArgument, Force, Json
from piu_lora.cli.output import print_result

__all__ = ["command", "list_command"]


def command(adapter: AdapterArgument, as_json: Json = False) -> None:
    """Say what a LoRA is: ours with its receipt, anybody's with what it lacks."""
    from piu_lora.adapter import adapter_folder, describe_lora, screen

    facts = describe_lora(adapter_folder(adapter))
    print_result(facts, screen(facts), as_json)


def list_command(
    folder: Annotated[Path, typer.Argument(help="folder with adapter folders in it")],
    out: Annotated[Path | None, typer.Option(help="write the list as an index: .json or .md")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """List the adapters of a folder: what each was made by, from what, and what it was measured to do."""
    from piu_lora.jobs.adapters.list import index_adapters, index_table, write_index

    found = index_adapters(folder)
    if out is not None:
        write_index(found, out, force=force)
    print_result({"adapters": found}, index_table(found), as_json)
