"""Adapters in other shapes: other formats, other ranks, and dense checkpoints turned into adapters."""

from dataclasses import dataclass, replace
from pathlib import Path

from piu_lora.adapter import (
    Change,
    LayerError,
    Ledger,
    OutputFolder,
    Receipt,
    adapter_folder,
    compress_change,
    compression_facts,
    library_versions,
    open_adapter,
    read_lora,
    refuse_existing,
    save_diffusers,
    save_kohya,
    weights_digest,
    write_adapter,
    write_peft,
)
from piu_lora.adapter.extract import Extracted, extract_change, read_checkpoint
from piu_lora.adapter.older_loaders import without_zeros
from piu_lora.adapter.records import MemberRecord
from piu_lora.errors import BadInput
from piu_lora.jobs.ledger import identities_of, registered
from piu_lora.jobs.request.session import base_reference
from piu_lora.model import DTYPES, Precision, load_base
from piu_lora.writing import replacing

__all__ = ["Converted", "Reshaped", "convert_adapter", "extract_adapter", "resize_adapter"]


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote, and the largest relative error that casting made in a factor."""

    path: Path
    format: str
    layers: int
    error: float


@dataclass(frozen=True)
class Reshaped:
    """A new adapter folder, and by layer what compression and storage lost."""

    path: Path
    receipt: Receipt
    errors: dict[str, LayerError]
    extracted: Extracted | None = None


def convert_adapter(
    source: str | Path, to: str, out: str | Path, *, dtype: Precision | None = None, force: bool = False
) -> Converted:
    """Write an adapter, or any LoRA file, in another format.

    Args:
        source: an adapter folder, a Hub id, a PEFT folder, or a LoRA file.
        to: ``diffusers`` or ``kohya`` for one .safetensors file, ``peft`` for a folder.
        dtype: of the factors; as they are by default, and then the result is exact.

    Raises:
        BadInput: unreadable source, unknown format, a file that exists.
    """
    folder_or_file, target = adapter_folder(source), Path(out)
    lora = read_lora(folder_or_file)
    stored = (
        {module: factors.to(DTYPES[dtype]) for module, factors in lora.change.items()}
        if dtype
        else lora.change
    )
    refuse_existing(target, force=force)
    if to == "peft":
        with (
            OutputFolder(target, force=force, mark="adapter_config.json").claimed() as output,
            output.staged() as folder,
        ):
            write_peft(folder, without_zeros(stored), _base_of(folder_or_file))
    elif to in ("diffusers", "kohya"):
        _write_single(stored, to, target, _title(folder_or_file))
    else:
        raise BadInput(f"unknown format {to!r}; known: diffusers, kohya, peft")
    return Converted(target, to, len(without_zeros(stored)), _casting_error(lora.change, stored))


def _write_single(change: Change, to: str, target: Path, title: str) -> None:
    if target.suffix != ".safetensors":
        raise BadInput(f"out = {str(target)!r} does not end in .safetensors, and that is what is written")
    with replacing(target) as temporary:
        if to == "kohya":
            save_kohya(change, temporary, title=title)
        else:
            save_diffusers(change, temporary)


def _title(source: Path) -> str:
    """The adapter's opaque id. A foreign file's name may be a person's, so it is not passed on."""
    try:
        return f"piu-lora-{open_adapter(source).id}"
    except BadInput:
        return "lora"


def _base_of(source: Path) -> str:
    try:
        return open_adapter(source).receipt.base.id
    except BadInput:
        return ""


def _casting_error(exact: Change, stored: Change) -> float:
    """Largest ``|stored - exact| / max |exact|`` of a factor."""
    worst = 0.0
    for module, factors in exact.items():
        for factor, stored_factor in ((factors.down, stored[module].down), (factors.up, stored[module].up)):
            scale = float(factor.double().abs().max())
            error = float((factor.double() - stored_factor.double()).abs().max())
            worst = max(worst, error / scale if scale else 0.0)
    return worst


def resize_adapter(
    source: str | Path,
    out: str | Path,
    *,
    rank: int = 0,
    tolerance: float = 0.0,
    dtype: Precision = "fp16",
    force: bool = False,
    ledger: Ledger | None = None,
) -> Reshaped:
    """Write an adapter of lower rank: in every layer the best approximation (Eckart-Young).

    Args:
        rank: the highest allowed; 0 for no limit.
        tolerance: drop what is below this share of the layer's largest singular value.
        ledger: the new adapter is entered for the same person.

    Raises:
        BadInput: neither rank nor tolerance, or an unreadable adapter.
    """
    _require_size(rank, tolerance)
    adapter = open_adapter(adapter_folder(source))
    stored, errors = compress_change(
        adapter.change, rank=rank or None, tolerance=tolerance, dtype=DTYPES[dtype]
    )
    members: list[MemberRecord] = adapter.receipt.members or [
        {"adapter_id": adapter.id, "weight": 1.0, "weights_sha256": weights_digest(adapter)}
    ]
    receipt = Receipt(
        adapter.receipt.base,
        "resize",
        {"rank": rank, "tolerance": tolerance, "dtype": dtype, "of": adapter.id},
        members=members,
        evaluation={"compression": compression_facts(errors)},
        versions=library_versions(),
    ).for_people(adapter.receipt.people)
    (identity,) = identities_of(ledger, [adapter.id])
    weights = {**adapter.zeros, **stored}
    return _write(out, weights, receipt, errors, dtype, ledger, identity, force=force)


def extract_adapter(
    base: str | Path,
    dense: str | Path,
    out: str | Path,
    *,
    rank: int = 0,
    tolerance: float = 0.0,
    dtype: Precision = "fp16",
    ignore_rest: bool = False,
    force: bool = False,
    ledger: Ledger | None = None,
    identity: str | Path = "",
) -> Reshaped:
    """Make an adapter of the difference between a retrained UNet and its base, so that results of the
    official code become adapters.

    Args:
        base: what was retrained, by name.
        dense: the retrained UNet: a diffusers folder, a .safetensors file, or a pickle of plain tensors.
        rank, tolerance: as for ``resize_adapter``.
        ignore_rest: leave out differences in weights that are no linear layers, however large.
        ledger, identity: where the adapter is entered, and for whom, if that is known.

    Raises:
        BadInput: nothing differs, or weights differ that a LoRA on linear layers cannot hold.
        Incompatible: the checkpoint has other weights than the base.
    """
    _require_size(rank, tolerance)
    state = read_checkpoint(Path(dense))
    pipe = load_base(base, device="cpu")
    extracted = extract_change(pipe.unet, state, ignore_rest=ignore_rest)
    stored, errors = compress_change(
        extracted.change, rank=rank or None, tolerance=tolerance, dtype=DTYPES[dtype]
    )
    receipt = Receipt(
        base_reference(pipe),
        "extract",
        {"rank": rank, "tolerance": tolerance, "dtype": dtype},
        evaluation={"compression": compression_facts(errors), "left_out": extracted.left_out},
        versions=library_versions(),
    )
    return replace(
        _write(out, stored, receipt, errors, dtype, ledger, identity, force=force), extracted=extracted
    )


def _require_size(rank: int, tolerance: float) -> None:
    if rank < 0 or not 0 <= tolerance < 1 or (not rank and not tolerance):
        raise BadInput(
            f"rank = {rank!r}, tolerance = {tolerance!r}: pass rank=N of 1 or more, "
            "or tolerance=SHARE between 0 and 1"
        )


def _write(
    out: str | Path,
    change: Change,
    receipt: Receipt,
    errors: dict[str, LayerError],
    dtype: str,
    ledger: Ledger | None,
    identity: str | Path,
    *,
    force: bool,
) -> Reshaped:
    output = OutputFolder(out, force=force)
    with (
        output.claimed(),
        registered(ledger, receipt, output.path, identity) as confirm,
        output.staged() as folder,
    ):
        written = write_adapter(folder, change, receipt, DTYPES[dtype])
        confirm(written)
    return Reshaped(output.path, written, errors)
