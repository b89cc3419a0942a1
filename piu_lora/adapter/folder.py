"""The adapter folder: stock diffusers and PEFT read the weights, people and auditors the rest.

The scale is baked into B, so alpha equals rank everywhere, and a loader that ignores alpha is right as well.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter.card import model_card
from piu_lora.adapter.receipt import FORMAT, Receipt, settings_digest
from piu_lora.errors import BadInput, Incompatible
from piu_lora.model import attention_digest, describe
from piu_lora.tensors import save_tensors

__all__ = ["DIFFUSERS_FILE", "Adapter", "load_adapter", "read_adapter", "write_adapter"]

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
RECEIPT_FILE = "forget.json"
CARD_FILE = "README.md"
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Adapter:
    """An adapter folder, read and checked: factors by module, ``<module>.lora_A.weight`` (r, in), ``.lora_B.weight`` (out, r)."""

    path: Path
    receipt: Receipt
    weights: dict[str, torch.Tensor]


def write_adapter(folder: Path, weights: Weights, receipt: Receipt) -> Receipt:
    """Fill ``folder`` with weights, receipt and card; files already in it are part of the adapter.

    Args:
        folder: an existing folder, usually a staging one.
        weights: UNet factors by module; written in fp16.

    Returns:
        The receipt as written, with the digest of every file.
    """
    half = {key: value.to(torch.float16).contiguous() for key, value in weights.items()}
    _require_finite(half, "the trained weights")
    config = _peft_config(half)
    header = {
        "format": "pt",
        "lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in config.items()}, sort_keys=True),
        "piu_lora": json.dumps({"format": FORMAT, "settings_sha256": settings_digest(receipt.base, receipt.method, receipt.settings)}),
    }
    save_tensors({f"unet.{key}": value for key, value in half.items()}, folder / DIFFUSERS_FILE, header)
    save_tensors({f"base_model.model.{key}": value for key, value in half.items()}, folder / PEFT_FILE, {"format": "pt"})
    peft = {"peft_type": "LORA", "base_model_name_or_path": receipt.base.id, "inference_mode": True, **config}
    (folder / PEFT_CONFIG).write_text(json.dumps(peft, indent=2, sort_keys=True) + "\n")
    (folder / CARD_FILE).write_text(model_card(receipt))
    written = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECEIPT_FILE)
    receipt = replace(receipt, files={str(path.relative_to(folder)): _sha256(path) for path in written})
    (folder / RECEIPT_FILE).write_text(receipt.to_json())
    return receipt


def _peft_config(weights: Weights) -> dict[str, Any]:
    """The PEFT settings that older and newer versions read alike."""
    ranks = {key.removesuffix(".lora_A.weight"): len(value) for key, value in weights.items() if key.endswith(".lora_A.weight")}
    common = max(ranks.values())
    other = {module: rank for module, rank in sorted(ranks.items()) if rank != common}
    return {
        "r": common, "lora_alpha": common, "rank_pattern": other, "alpha_pattern": other, "target_modules": sorted(ranks),
        "use_dora": False, "use_rslora": False, "lora_bias": False,
    }  # fmt: skip


def read_adapter(folder: Path | str) -> Adapter:
    """Read an adapter folder and check it before anything is touched.

    Raises:
        BadInput: not an adapter folder; a file is missing, truncated or not what the receipt says; NaN; foreign keys.
    """
    folder = Path(folder)
    try:
        text = (folder / RECEIPT_FILE).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{str(folder)!r} is not an adapter folder: {RECEIPT_FILE} cannot be read; pass a folder that `piu-lora forget` made"
        ) from error
    receipt = Receipt.from_json(text, str(folder / RECEIPT_FILE))
    if DIFFUSERS_FILE not in receipt.files:
        raise BadInput(f"{str(folder / RECEIPT_FILE)!r} gives no digest for {DIFFUSERS_FILE}; make or download the adapter again")
    for name, digest in receipt.files.items():
        # The report may stay behind when an adapter is published; the rest may not.
        if name.startswith("report/") and not (folder / name).exists():
            continue
        if not _inside(folder, name) or not (folder / name).is_file():
            raise BadInput(f"{str(folder)!r} lacks {name!r}, which its receipt lists; download the adapter again")
        if _sha256(folder / name) != digest:
            raise BadInput(
                f"{str(folder / name)!r} is not what the receipt says (SHA-256 differs): truncated or changed; download the adapter again"
            )
    return Adapter(folder, receipt, _read_weights(folder / DIFFUSERS_FILE))


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, safetensors.SafetensorError) as error:
        raise BadInput(f"cannot read {str(path)!r}: {error}; download the adapter again") from error
    foreign = [key for key in stored if not key.startswith("unet.") or not key.endswith((".lora_A.weight", ".lora_B.weight"))]
    if foreign or not stored:
        raise BadInput(f"{str(path)!r} holds foreign keys {foreign[:3]}; expected unet.<module>.lora_A.weight and .lora_B.weight")
    weights = {key.removeprefix("unet."): value for key, value in stored.items()}
    _require_finite(weights, str(path))
    for key, value in weights.items():
        pair = weights.get(key.replace(".lora_A.", ".lora_B.") if ".lora_A." in key else key.replace(".lora_B.", ".lora_A."))
        if pair is None or value.ndim != 2:
            raise BadInput(f"{str(path)!r}: {key!r} has no partner or is not a matrix; download the adapter again")
    return weights


def load_adapter(pipe: StableDiffusionPipeline, folder: Path | str, *, name: str | None = None) -> str:
    """Load an adapter into a pipeline with diffusers' own loader, after checking that the two belong together.

    Args:
        pipe: a plain pipeline; adapters already loaded stay active beside the new one.
        name: name in the pipeline; the adapter's opaque id by default.

    Returns:
        The name.

    Raises:
        BadInput: the folder is damaged, or the name is taken.
        Incompatible: it was made for another base.
    """
    adapter = read_adapter(folder)
    _require_base(pipe, adapter)
    name = name or adapter.receipt.adapter_id
    loaded = [other for names in pipe.get_list_adapters().values() for other in names]
    if name in loaded or "." in name:
        raise BadInput(f"adapter name {name!r} is {'taken' if name in loaded else 'not allowed: it holds a dot'}; pass another name")
    pipe.load_lora_weights(str(adapter.path), weight_name=DIFFUSERS_FILE, adapter_name=name)
    if name not in pipe.get_list_adapters().get("unet", []):
        raise Incompatible(f"{str(folder)!r} changed nothing in this pipeline; it belongs to the base {adapter.receipt.base.id!r}")
    pipe.set_adapters([*loaded, name])
    # Loaded adapters come out trainable.
    pipe.unet.requires_grad_(False)
    return name


def _require_base(pipe: StableDiffusionPipeline, adapter: Adapter) -> None:
    ref, base = adapter.receipt.base, describe(pipe)
    modules = dict(pipe.unet.named_modules())
    for key, value in adapter.weights.items():
        module = modules.get(key.rsplit(".lora_", 1)[0])
        side = getattr(module, "in_features" if ".lora_A." in key else "out_features", None)
        if side != (value.shape[1] if ".lora_A." in key else value.shape[0]):
            raise Incompatible(f"the adapter was made for the base {ref.id!r}; its {key!r} does not fit this base, {base.id!r}")
    # Weights loaded in bfloat16 have lost the digits that the digest is made of.
    if pipe.unet.dtype != torch.bfloat16 and attention_digest(pipe.unet) != ref.attn2_sha256:
        raise Incompatible(
            f"the adapter was made for the base {ref.id!r} ({ref.attn2_sha256[:12]}); "
            f"this base is {base.id!r}, with other cross-attention weights; load the adapter's base"
        )


def _require_finite(weights: Weights, where: str) -> None:
    for key, value in weights.items():
        if not torch.isfinite(value).all():
            raise BadInput(f"{where}: {key!r} holds NaN or infinity; make or download the adapter again")


def _inside(folder: Path, name: str) -> bool:
    return (folder / name).resolve().is_relative_to(folder.resolve())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
