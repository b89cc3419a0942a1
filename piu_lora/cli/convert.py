"""``piu-lora convert``, ``resize`` and ``extract``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from piu_lora.cli.options import AdapterArgument, Base, Force, Json, LedgerFile
from piu_lora.cli.terminal import opened_ledger, print_result

__all__ = ["convert", "extract", "resize"]

Format = Annotated[
    Literal["kohya", "peft", "diffusers"], typer.Option("--to", help="kohya: A1111, ComfyUI, sd-scripts")
]
Rank = Annotated[int, typer.Option(min=0, help="highest rank of a layer")]
Tolerance = Annotated[
    float, typer.Option(min=0, help="drop what is below this share of a layer's largest singular value")
]
Stored = Annotated[
    Literal["fp32", "bf16", "fp16"], typer.Option("--dtype", help="precision of the stored factors")
]
Folder = Annotated[Path, typer.Option("--out", help="adapter folder to create")]


def convert(
    adapter: AdapterArgument,
    to: Format,
    out: Annotated[Path, typer.Option(help="file to write, or folder for peft")],
    dtype: Annotated[
        Literal["fp32", "bf16", "fp16"] | None,
        typer.Option(help="precision of the factors; as they are by default"),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write an adapter, or any LoRA file, for other programs."""
    from piu_lora.jobs.adapters.convert import convert_adapter

    found = convert_adapter(adapter, to, out, dtype=dtype, force=force)
    loss = (
        "exact" if found.error == 0 else f"largest error of a factor {found.error:.1e} of its largest value"
    )
    print_result({**vars(found), "path": str(out)}, f"{found.layers} layers in {out} ({to}), {loss}", as_json)


def resize(
    adapter: AdapterArgument, out: Folder, rank: Rank = 0, tolerance: Tolerance = 0.0, dtype: Stored = "fp16", ledger: LedgerFile = None,
    force: Force = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Write an adapter of lower rank, with what that loses in every layer."""
    from piu_lora.jobs.adapters.convert import resize_adapter

    with opened_ledger(ledger) as entries:
        _print(
            resize_adapter(
                adapter, out, rank=rank, tolerance=tolerance, dtype=dtype, force=force, ledger=entries
            ),
            as_json,
        )


def extract(
    out: Folder,
    dense: Annotated[
        Path, typer.Option(help="the retrained UNet: diffusers folder, .safetensors, or pickled state dict")
    ],
    base: Base = "mini",
    rank: Rank = 0,
    tolerance: Tolerance = 0.0,
    dtype: Stored = "fp16",
    ignore_rest: Annotated[
        bool, typer.Option("--ignore-rest", help="leave out what a LoRA cannot hold, however much it is")
    ] = False,
    identity: Annotated[str, typer.Option(help="whom it forgets, for the ledger")] = "",
    ledger: LedgerFile = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Turn a UNet retrained by the official code into an adapter."""
    from piu_lora.jobs.adapters.convert import extract_adapter

    with opened_ledger(ledger) as entries:
        result = extract_adapter(
            base, dense, out, rank=rank, tolerance=tolerance, dtype=dtype, ignore_rest=ignore_rest, force=force, ledger=entries,
            identity=identity,
        )  # fmt: skip
    _print(result, as_json)


def _print(result: Any, as_json: bool) -> None:
    from piu_lora.adapter.receipt import people_text
    from piu_lora.evidence import aligned

    layers = {module: vars(error) for module, error in result.errors.items()}
    facts = {
        "adapter_id": result.receipt.adapter_id,
        "path": str(result.path),
        "people": result.receipt.people,
        "layers": layers,
    }
    rows = [("layer", "rank", "error", "of the layer's change")]
    rows += [
        (module, str(each.rank), f"{each.absolute:.2e}", f"{each.relative:.2e}")
        for module, each in result.errors.items()
    ]
    people = people_text(result.receipt.people)
    lines = [f"adapter {result.receipt.adapter_id} for {people} in {result.path}", "", *aligned(rows)]
    if (rest := result.extracted) is not None and rest.left_out:
        facts["left_out"] = rest.left_out
        lines.append(
            f"left out: {len(rest.left_out)} weights that are no linear layers, {rest.share_left_out:.2e} of the whole change"
        )
    print_result(facts, "\n".join(lines), as_json)
