"""``piu-lora stack``: adapters together."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from piu_lora.cli.options import (
    AdapterArgument,
    AllowNegative,
    Bank,
    Base,
    Device,
    Dtype,
    Force,
    Json,
    LedgerFile,
    Pack,
)
from piu_lora.cli.terminal import opened_ledger, print_result

__all__ = ["app"]

app = typer.Typer(
    name="stack",
    help="Adapters together: interference, one out of several, baked into a base.",
    no_args_is_help=True,
)
Adapters = Annotated[list[str], typer.Argument(help="adapter folders or Hub ids")]
Weights = Annotated[
    list[float], typer.Option("--weight", help="weight of the adapter in the same place; 1 by default")
]
Identities = Annotated[
    list[str],
    typer.Option(
        "--identity",
        help="whom the adapter in the same place forgets, as given to forget; from the ledger by default",
    ),
]
Out = Annotated[Path, typer.Option(help="folder to create")]
Rank = Annotated[int, typer.Option(min=0, help="highest rank of a layer; 0 keeps all")]
Tolerance = Annotated[
    float, typer.Option(min=0, help="drop what is below this share of a layer's largest singular value")
]
Stored = Annotated[
    Literal["fp32", "bf16", "fp16"], typer.Option("--dtype", help="precision of the stored factors")
]


@app.command("check")
def check(
    adapters: Adapters,
    weight: Weights = [],
    identity: Identities = [],
    base: Base = "mini",
    bank: Bank = None,
    pack: Pack = None,
    people: Annotated[int, typer.Option(min=1, help="bystanders sampled from the bank")] = 64,
    activations: Annotated[
        int, typer.Option(min=0, help="people on whom the layers behind the latents are measured")
    ] = 4,
    limit: Annotated[
        float,
        typer.Option(min=0, help="highest 95th percentile of the change of bystanders' keys and values"),
    ] = 1.5,
    own_limit: Annotated[
        float, typer.Option(min=0, help="highest change by others for a member's person, of the meant one")
    ] = 0.25,
    out: Annotated[Path | None, typer.Option(help="PNG for the heat map")] = None,
    seed: Annotated[int, typer.Option(help="seed of the sample")] = 0,
    ledger: LedgerFile = None,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure whom a stack would disturb, before anything is generated; exit 1 when a stack exceeds the
    limit.
    """
    from piu_lora.adapter import refuse_existing, write_file
    from piu_lora.jobs.stacks.check import check_picture, check_stack, check_table
    from piu_lora.jobs.stacks.members import open_members, people_of

    if out is not None:
        refuse_existing(out, force=force)
    # An audit may look at negative weights; nothing is generated.
    members = open_members(adapters, weight or None, allow_negative=True)
    with opened_ledger(ledger) as entries:
        members = people_of(members, identity, entries, base, bank, pack, device)
    found = check_stack(
        members,
        base,
        bank,
        people=people,
        activations=activations,
        limit=limit,
        own_limit=own_limit,
        seed=seed,
        device=device,
    )
    if out is not None:
        write_file(out, check_picture(found))
    print_result(found.facts(), check_table(found), as_json)
    if found.exceeded:
        raise typer.Exit(1)


@app.command("merge")
def merge(
    adapters: Adapters,
    out: Out,
    weight: Weights = [],
    allow_negative: AllowNegative = False,
    method: Annotated[
        str, typer.Option(help="sum: exact; refit: each on its own person, nothing on others")
    ] = "sum",
    rank: Rank = 0,
    tolerance: Tolerance = 0.0,
    stored: Stored = "fp32",
    identity: Identities = [],
    base: Base = "mini",
    bank: Bank = None,
    pack: Pack = None,
    ledger: LedgerFile = None,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make one adapter of several."""
    from piu_lora.adapter import find_merge
    from piu_lora.jobs.stacks.members import open_members, people_of
    from piu_lora.jobs.stacks.merge import MergeSettings, merge_adapters

    settings = MergeSettings(method, rank, tolerance, stored)
    members = open_members(adapters, weight or None, allow_negative=allow_negative)
    with opened_ledger(ledger) as entries:
        if find_merge(method).needs_second_moments:
            members = people_of(members, identity, entries, base, bank, pack, device)
        result = merge_adapters(
            members, out, settings, base=base, bank=bank, device=device, force=force, ledger=entries
        )
    _print_merged(result, as_json)


@app.command("withdraw")
def withdraw(
    merged: AdapterArgument,
    leaving: Annotated[str, typer.Argument(metavar="ADAPTER_ID", help="id of the member that goes")],
    out: Out,
    member: Annotated[
        list[str], typer.Option(help="folder or Hub id of a remaining member; from the ledger by default")
    ] = [],
    identity: Identities = [],
    base: Base = "mini",
    bank: Bank = None,
    pack: Pack = None,
    ledger: LedgerFile = None,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Merge anew without one member, exactly as if it had never been there: for somebody who withdraws the
    request.
    """
    from piu_lora.adapter import find_merge, open_adapter
    from piu_lora.jobs.ledger import folders_of
    from piu_lora.jobs.stacks.members import people_of
    from piu_lora.jobs.stacks.merge import merge_adapters, remaining_members, settings_of

    opened = open_adapter(merged)
    settings = settings_of(opened)
    with opened_ledger(ledger) as entries:
        available = member or folders_of(entries, opened.receipt)
        stay = remaining_members(opened, leaving, [open_adapter(each) for each in available])
        if find_merge(settings.method).needs_second_moments:
            stay = people_of(stay, identity, entries, base, bank, pack, device)
        result = merge_adapters(
            stay,
            out,
            settings,
            base=base,
            bank=bank,
            device=device,
            force=force,
            ledger=entries,
            instead_of=opened.id,
            withdrawn=leaving,
        )
    _print_merged(result, as_json)


@app.command("fuse")
def fuse(
    base: Annotated[str, typer.Argument(help="mini, arc2face, a folder, or a Hub id[@revision]")],
    adapters: Adapters,
    out: Out,
    weight: Weights = [],
    allow_negative: AllowNegative = False,
    dtype: Dtype = "fp32",
    shard: Annotated[str, typer.Option(help="largest weights file")] = "2GB",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a complete diffusers pipeline with the adapters baked into its weights."""
    from piu_lora.adapter.receipt import people_text
    from piu_lora.jobs.stacks.fuse import fuse_adapters
    from piu_lora.jobs.stacks.members import open_members

    members = open_members(adapters, weight or None, allow_negative=allow_negative)
    receipt = fuse_adapters(members, base, out, dtype=dtype, shard=shard, force=force)
    people = sum(member.adapter.receipt.people for member in members if member.weight)
    text = f"{len(members)} adapters for {people_text(people)} fused into {out} ({dtype}); load it with load_base or diffusers"
    print_result({"path": str(out), "people": people, **receipt}, text, as_json)


def _print_merged(result: Any, as_json: bool) -> None:
    from piu_lora.adapter.receipt import people_text

    ranks = sorted({error.rank for error in result.errors.values()})
    facts = {
        "adapter_id": result.receipt.adapter_id, "path": str(result.path), "people": result.receipt.people, "members": result.receipt.members,
        "worst_relative": result.worst,
        "layers": {module: vars(error) for module, error in result.errors.items()},
    }  # fmt: skip
    span = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    text = (
        f"adapter {result.receipt.adapter_id} for {people_text(result.receipt.people)} in {result.path}, made of {len(result.receipt.members)}: {len(result.errors)} layers, "
        f"{span}; compression and storage lose at most {result.worst:.2e} of a layer's change (spectral norm)"
    )
    print_result(facts, text, as_json)
