"""``piu-lora convert``, ``resize`` and ``extract``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from piu_lora.cli.groups import Compressing, Making, grouped
from piu_lora.cli.options import AdapterArgument, Base, Force, Json, Stored
from piu_lora.cli.output import Part, Table, print_result

__all__ = ["convert", "extract", "resize"]


def convert(
    adapter: AdapterArgument,
    to: Annotated[
        Literal["kohya", "peft", "diffusers"],
        typer.Option("--to", help="Format to write; kohya is that of A1111, ComfyUI and sd-scripts."),
    ],
    out: Annotated[Path, typer.Option(help="File to write, or folder to create for peft.")],
    dtype: Annotated[
        Literal["fp32", "bf16", "fp16"] | None,
        typer.Option(help="Precision of the stored factors. By default as it is."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Convert an adapter, or any LoRA file, to the format of another program."""
    from piu_lora.jobs.adapters.convert import convert_adapter

    converted = convert_adapter(adapter, to, out, dtype=dtype, force=force)
    loss = f"largest error of a factor {converted.error:.1e} of its largest value"
    text = f"{converted.layers} layers in {out} ({to}), {'exact' if converted.error == 0 else loss}"
    print_result({**vars(converted), "path": str(out)}, text, as_json)


@grouped
def resize(
    *,
    adapter: AdapterArgument,
    making: Making,
    compressing: Compressing,
    dtype: Stored = "fp16",
    as_json: Json = False,
) -> None:
    """Write an adapter of lower rank, and show what that loses in every layer."""
    from piu_lora.jobs.adapters.convert import resize_adapter

    with making.recorded() as recorded:
        result = resize_adapter(adapter, making.out, dtype=dtype, **compressing.keywords, **recorded)
    _print(result, as_json)


@grouped
def extract(
    *,
    making: Making,
    dense: Annotated[
        Path,
        typer.Option(
            help="The retrained UNet: a diffusers folder, a .safetensors file, or a pickled state dict."
        ),
    ],
    base: Base = "mini",
    compressing: Compressing,
    dtype: Stored = "fp16",
    ignore_rest: Annotated[
        bool, typer.Option("--ignore-rest", help="Leave out the weights that a LoRA cannot hold.")
    ] = False,
    identity: Annotated[str, typer.Option(help="Whom the UNet forgets, for the ledger.")] = "",
    as_json: Json = False,
) -> None:
    """Extract an adapter from a UNet that the official code has retrained."""
    from piu_lora.jobs.adapters.convert import extract_adapter

    with making.recorded() as recorded:
        result = extract_adapter(
            base,
            dense,
            making.out,
            dtype=dtype,
            ignore_rest=ignore_rest,
            identity=identity,
            **compressing.keywords,
            **recorded,
        )
    _print(result, as_json)


def _print(result: Any, as_json: bool) -> None:
    from piu_lora.adapter.receipt import people_text

    receipt = result.receipt
    facts = {
        "adapter_id": receipt.adapter_id,
        "path": str(result.path),
        "people": receipt.people,
        "layers": {module: vars(error) for module, error in result.errors.items()},
    }
    rows = [
        (module, str(error.rank), f"{error.absolute:.2e}", f"{error.relative:.2e}")
        for module, error in result.errors.items()
    ]
    parts: list[Part] = [
        f"adapter {receipt.adapter_id} for {people_text(receipt.people)} in {result.path}",
        "",
        Table(("layer", "rank", "error", "of the layer's change"), rows),
    ]
    if (rest := result.extracted) is not None and rest.left_out:
        facts["left_out"] = rest.left_out
        share = f"{rest.share_left_out:.2e} of the whole change"
        parts.append(f"left out: {len(rest.left_out)} weights that are no linear layers, {share}")
    print_result(facts, parts, as_json)
