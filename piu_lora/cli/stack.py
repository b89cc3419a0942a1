"""``piu-lora stack``: adapters together."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from piu_lora.cli.groups import Compressing, Making, Opening, grouped
from piu_lora.cli.options import (
    Activations,
    AdapterArgument,
    AdapterFolder,
    AllowNegative,
    Bystanders,
    Dtype,
    Force,
    Json,
    LedgerFile,
    Limit,
    OwnLimit,
    Seed,
    Shard,
    Stored,
    Weights,
)
from piu_lora.cli.output import Part, Table, print_result
from piu_lora.cli.terminal import opened_ledger

if TYPE_CHECKING:
    from piu_lora.jobs.stacks.check import StackCheck

__all__ = ["app", "check_parts"]

app = typer.Typer(
    name="stack",
    help="Use several adapters together: check how they interfere, merge them, bake them into a base.",
    no_args_is_help=True,
)
Adapters = Annotated[list[str], typer.Argument(help="Adapter folders or Hub ids.")]
Identities = Annotated[
    list[str],
    typer.Option(
        "--identity",
        help="Whom an adapter forgets, as it was given to forget; one for each, in the order of the "
        "adapters. By default taken from the ledger.",
    ),
]


@app.command("check")
@grouped
def check(
    *,
    adapters: Adapters,
    weights: Weights = [],
    identity: Identities = [],
    opening: Opening,
    people: Bystanders = 64,
    activations: Activations = 4,
    limit: Limit = 1.5,
    own_limit: OwnLimit = 0.25,
    out: Annotated[
        Path | None, typer.Option(help="Draw the changes as a heat map into this PNG file.")
    ] = None,
    seed: Seed = 0,
    ledger: LedgerFile = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure whom a stack of adapters would disturb, before anything is generated.

    The exit code is 1 when a stack exceeds a limit.
    """
    from piu_lora.adapter import refuse_existing, write_file
    from piu_lora.jobs.stacks.check import check_picture, check_stack
    from piu_lora.jobs.stacks.members import known_identities, open_members, with_people

    if out is not None:
        refuse_existing(out, force=force)
    # An audit may look at negative weights; nothing is generated.
    members = open_members(adapters, weights or None, allow_negative=True)
    with opened_ledger(ledger) as entries:
        names = known_identities(members, identity, entries)
    checked = check_stack(
        with_people(members, names, **opening.keywords),
        opening.base,
        opening.bank,
        people=people,
        activations=activations,
        limit=limit,
        own_limit=own_limit,
        seed=seed,
        device=opening.device,
    )
    if out is not None:
        write_file(out, check_picture(checked))
    print_result(checked.facts(), check_parts(checked), as_json)
    if checked.exceeded:
        raise typer.Exit(1)


def check_parts(check: "StackCheck") -> list[Part]:
    """What each stack changes for whom, for people."""
    head = (
        "stack",
        "bystanders, median",
        "95 %",
        "highest",
        "behind the latents",
        "own person",
        "others on own person",
        "",
    )
    rows = [_stack_row(check, index) for index in range(len(check.interference.stacks))]
    return [Table(head, rows), "", *_stack_notes(check)]


def _stack_row(check: "StackCheck", index: int) -> tuple[str, ...]:
    measured = check.interference
    stack, harm = measured.stacks[index], measured.harm(index, check.bystanders)
    activations = measured.activations
    changes = [
        measured.condition[index, column] for column, owner in enumerate(check.owners) if owner in stack
    ]
    return (
        check.label(stack),
        *(f"{harm[name]:.2f}" for name in ("median", "p95", "max")),
        "-" if activations is None else f"{activations[index].mean():.2f}",
        _span(changes),
        _span(list(check.disturbed(index).values())),
        "over the limit" if check.over(index) else "",
    )


def _stack_notes(check: "StackCheck") -> list[str]:
    """What the columns mean, and what to do."""
    notes = [
        "Relative change |dW x| / |W x| of keys and values; "
        "behind the latents: of the other layers' outputs.",
        "others on own person: what the other members change for it, "
        "as a share of what its own adapter means to change.",
        f"Limits: {check.limit:g} for the 95th percentile of bystanders, "
        f"{check.own_limit:g} for others on the own person.",
    ]
    if check.shared_neurons:
        notes.append(_collisions(check))
    if len(check.owners) < len(check.ids):
        notes.append(
            "Whom some adapters forget is not known here, so they may be among the bystanders; "
            "pass --identity once for each."
        )
    if any(len(stack) > 1 for stack in check.exceeded):
        notes.append(
            "`piu-lora stack merge --method refit` makes one adapter of them "
            "that keeps each to its own person."
        )
    return notes


def _collisions(check: "StackCheck") -> str:
    """Which adapters took the same gate neurons, and what to do."""
    clashing = sorted({index for indices in check.shared_neurons.values() for index in indices})
    names = sorted(check.shared_neurons)
    listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return (
        f"{', '.join(check.ids[index] for index in clashing)} use the same gate neurons ({listed}), so each "
        "spoils what the other reads and writes; the rows above measure it. Make one of them anew with the "
        "other's gates as gate.occupied, or all of them at once."
    )


def _span(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{values[0]:.2f}" if len(values) == 1 else f"{min(values):.2f} to {max(values):.2f}"


@app.command("merge")
@grouped
def merge(
    *,
    adapters: Adapters,
    making: Making,
    weights: Weights = [],
    allow_negative: AllowNegative = False,
    method: Annotated[
        str,
        typer.Option(
            help="How to merge: sum adds the adapters exactly, refit keeps each to its own person and "
            "leaves others alone."
        ),
    ] = "sum",
    compressing: Compressing,
    dtype: Stored = "fp32",
    identity: Identities = [],
    opening: Opening,
    as_json: Json = False,
) -> None:
    """Merge several adapters into one."""
    from piu_lora.jobs.stacks.members import open_members
    from piu_lora.jobs.stacks.merge import MergeSettings, merge_adapters

    settings = MergeSettings(method=method, dtype=dtype, **compressing.keywords)
    members = open_members(adapters, weights or None, allow_negative=allow_negative)
    with making.recorded() as recorded:
        result = merge_adapters(
            members, making.out, settings, identities=identity, **recorded, **opening.keywords
        )
    _print_merged(result, as_json)


@app.command("withdraw")
@grouped
def withdraw(
    *,
    merged: AdapterArgument,
    leaving: Annotated[str, typer.Argument(metavar="ADAPTER_ID", help="Id of the adapter to take out.")],
    making: Making,
    member: Annotated[
        list[str],
        typer.Option(
            help="Folder or Hub id of an adapter that stays; repeat for each. "
            "By default taken from the ledger."
        ),
    ] = [],
    identity: Identities = [],
    opening: Opening,
    as_json: Json = False,
) -> None:
    """Take one adapter out of a merged one, exactly as if it had never been there.

    For somebody who withdraws the request to be forgotten.
    """
    from piu_lora.jobs.stacks.merge import withdraw_member

    with making.recorded() as recorded:
        result = withdraw_member(
            merged, leaving, making.out, member, identities=identity, **recorded, **opening.keywords
        )
    _print_merged(result, as_json)


@app.command("fuse")
def fuse(
    base: Annotated[
        str, typer.Argument(help="The face generator: mini, arc2face, a folder, or a Hub id (@REVISION).")
    ],
    adapters: Adapters,
    out: AdapterFolder,
    weights: Weights = [],
    allow_negative: AllowNegative = False,
    dtype: Dtype = "fp32",
    shard: Shard = "2GB",
    layout: Annotated[
        Literal["diffusers", "arc2face"],
        typer.Option(
            help="What to write: a pipeline of diffusers, or the folders arc2face and encoder that the demos "
            "of Arc2Face and ComfyUI's nodes keep under models."
        ),
    ] = "diffusers",
    bin_encoder: Annotated[
        bool,
        typer.Option(
            "--bin-encoder",
            help="Write the text encoder as pytorch_model.bin, for hosts that look for that name.",
        ),
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Bake adapters into the weights of a base, for hosts in which an adapter could be switched off.

    With `--layout arc2face`, put the two folders that are written in the place of those in `models`.
    """
    from piu_lora.adapter.receipt import people_text
    from piu_lora.jobs.stacks.fuse import fuse_adapters
    from piu_lora.jobs.stacks.members import open_members

    members = open_members(adapters, weights or None, allow_negative=allow_negative)
    receipt = fuse_adapters(
        members, base, out, dtype=dtype, shard=shard, layout=layout, pickled_encoder=bin_encoder, force=force
    )
    people = sum(member.adapter.receipt.people for member in members if member.weight)
    headline = f"{len(members)} adapters for {people_text(people)} fused into {out} ({dtype})"
    text = f"{headline}; " + (
        "load it with load_base or diffusers"
        if layout == "diffusers"
        else "put its folders arc2face and encoder in the place of those in the host's models"
    )
    print_result({"path": str(out), "people": people, **receipt}, text, as_json)


def _print_merged(result: Any, as_json: bool) -> None:
    from piu_lora.adapter.receipt import people_text

    receipt, ranks = result.receipt, sorted({error.rank for error in result.errors.values()})
    facts = {
        "adapter_id": receipt.adapter_id,
        "path": str(result.path),
        "people": receipt.people,
        "members": receipt.members,
        "worst_relative": result.worst,
        "layers": {module: vars(error) for module, error in result.errors.items()},
    }
    span = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    text = (
        f"adapter {receipt.adapter_id} for {people_text(receipt.people)} in {result.path}, "
        f"made of {len(receipt.members)}: {len(result.errors)} layers, {span}; "
        f"compression and storage lose at most {result.worst:.2e} of a layer's change (spectral norm)"
    )
    print_result(facts, text, as_json)
