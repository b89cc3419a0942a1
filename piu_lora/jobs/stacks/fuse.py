"""A base with adapters baked into its weights: for those who hand weights to others."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import OutputFolder, concatenated, library_versions, require_base, weights_digest
from piu_lora.jobs.stacks.members import StackMember, require_distinct, require_one_base
from piu_lora.model import (
    DTYPES,
    Precision,
    attention_digest,
    describe,
    encoder_digest,
    find_family,
    layer_weight,
    load_base,
    without_bars,
)
from piu_lora.model.layout import PARTS
from piu_lora.model.older_versions import nest_encoder, write_vocabulary

__all__ = ["FUSED_FILE", "FusedLayout", "fuse_adapters"]

FUSED_FILE = "fused.json"
FusedLayout = Literal["diffusers", "arc2face"]
PUBLISHED: FusedLayout = "arc2face"  # two folders, as Arc2Face publishes itself


@torch.no_grad()
def fuse_adapters(
    members: Sequence[StackMember],
    base: str | Path,
    out: str | Path,
    *,
    dtype: Precision = "fp32",
    shard: str = "2GB",
    layout: FusedLayout = "diffusers",
    pickled_encoder: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Write a base with the change in its weights, as releases of diffusers since 2023 read it.

    The sum is made in float64 and cast once: loaded again, it predicts the same noise as the stacked adapters
    within 1e-6 in fp32, 5e-3 in fp16 and 5e-2 in bf16 (noise of order 1; tests/jobs/test_fuse.py). It cannot
    be taken out again without loss in half precision, and never needs to be: the base and the adapters are
    still there.

    Args:
        base: loaded anew, in float32, on the CPU.
        out: the folder to create.
        dtype: of all stored weights.
        shard: largest weights file.
        layout: ``diffusers`` for a complete pipeline, which ``load_base(out)`` and stock diffusers load;
            ``arc2face`` for the two folders ``arc2face`` and ``encoder`` that the demos of Arc2Face,
            ComfyUI's nodes and other hosts keep under ``models``.
        pickled_encoder: write the text encoder as pytorch_model.bin instead of model.safetensors, for hosts
            that look for that name.

    Returns:
        The receipt, as written to ``fused.json``.

    Raises:
        BadInput: no adapters; ``base`` is a loaded pipeline.
        Incompatible: an adapter belongs to another base.
    """
    require_distinct(members)
    require_one_base(members)
    with OutputFolder(out, force=force, mark=FUSED_FILE).claimed() as output:
        pipe = load_base(base, device="cpu", dtype=torch.float32)
        for member in members:
            require_base(pipe, member.adapter)
        info = describe(pipe)
        _add(pipe, members)
        receipt = _receipt(pipe, members, info.to_dict(), dtype)
        stated = pipe.text_encoder.config
        stated.piu_lora = {
            **stated.piu_lora,
            "base": f"{info.id}+{receipt['digest'][:12]}",
            "fused": receipt["members"],
        }
        pipe.to(dtype=DTYPES[dtype])
        with output.staged() as folder, without_bars():
            pipe.save_pretrained(folder, safe_serialization=True, max_shard_size=shard)
            nest_encoder(folder / "text_encoder", pickled=pickled_encoder)
            if (folder / "tokenizer" / "tokenizer.json").is_file():
                write_vocabulary(folder / "tokenizer")
            if layout == PUBLISHED:
                _as_published(folder)
            (folder / FUSED_FILE).write_text(json.dumps(receipt, indent=2, sort_keys=True) + "\n")
    return receipt


def _as_published(folder: Path) -> None:
    """Turn a pipeline in the layout of diffusers into the two folders that Arc2Face publishes."""
    source = find_family("arc2face").source
    for part in PARTS:
        if source is not None and part in source.folders:
            (folder / part).rename(folder / source.folders[part])
        else:
            shutil.rmtree(folder / part)
    (folder / "model_index.json").unlink()


def _add(pipe: StableDiffusionPipeline, members: Sequence[StackMember]) -> None:
    total = concatenated([member.adapter.change for member in members], [member.weight for member in members])
    for module, factors in total.items():
        weight = layer_weight(pipe, module)
        weight.copy_(weight.double() + factors.up.double() @ factors.down.double())


def _receipt(
    pipe: StableDiffusionPipeline, members: Sequence[StackMember], base: dict[str, Any], dtype: str
) -> dict[str, Any]:
    digest = attention_digest(pipe.unet)
    return {
        "format": "piu_lora.fused/1",
        "base": base,
        "dtype": dtype,
        "digest": digest,
        "attn2_sha256": digest,
        "text_encoder_sha256": encoder_digest(pipe.text_encoder),
        "members": [
            {"adapter_id": m.adapter.id, "weight": m.weight, "weights_sha256": weights_digest(m.adapter)}
            for m in members
        ],
        "versions": library_versions(),
    }
