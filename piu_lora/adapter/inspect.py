"""Facts about a LoRA, ours or anybody's."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from piu_lora.adapter.folder import DIFFUSERS_FILE, RECEIPT_FILE, Adapter, read_adapter, read_header
from piu_lora.adapter.formats import Lora, read_lora
from piu_lora.adapter.older_loaders import without_zeros
from piu_lora.errors import BadInput
from piu_lora.model.factors import Change

__all__ = ["describe_lora"]

_BLOCK = re.compile(
    r"^(unet\.(?:down_blocks\.\d+|mid_block|up_blocks\.\d+)|text_encoder\.encoder\.layers\.\d+)"
)


def describe_lora(source: Path) -> dict[str, Any]:
    """Facts about an adapter folder or a foreign LoRA, ready for JSON.

    Raises:
        BadInput: nothing there that can be read as a LoRA.
    """
    adapter, problem = _adapter(source)
    # Not both: each of them holds all tensors.
    lora = (
        read_lora(source)
        if adapter is None
        else Lora(source, adapter.change, "diffusers", read_header(source / DIFFUSERS_FILE))
    )
    facts = {
        "path": str(source),
        "format": lora.format,
        "layers": len(without_zeros(lora.change)),
        **_weights(without_zeros(lora.change)),
        "bytes": _sizes(source),
    }
    facts["header"] = {str(key)[:60]: str(value)[:200] for key, value in sorted(lora.header.items())[:40]}
    facts["receipt"] = None if adapter is None else _receipt(adapter)
    facts["lacks"] = _lacks(lora, adapter, problem)
    return facts


def _adapter(source: Path) -> tuple[Adapter | None, str]:
    """The adapter, or why it is none."""
    if not (source / RECEIPT_FILE).is_file():
        return None, ""
    try:
        return read_adapter(source), ""
    except BadInput as error:
        return None, str(error)


def _weights(change: Change) -> dict[str, Any]:
    norms = {module: factors.norm() for module, factors in change.items()}
    blocks: dict[str, float] = {}
    for module, norm in norms.items():
        match = _BLOCK.match(module)
        block = match.group(1) if match else module.split(".", 1)[0]
        blocks[block] = float(np.hypot(blocks.get(block, 0.0), norm))
    return {
        "ranks": dict(sorted(Counter(factors.rank for factors in change.values()).items())),
        "projections": dict(sorted(Counter(_projection(module) for module in change).items())),
        "dtypes": sorted({str(factors.up.dtype).removeprefix("torch.") for factors in change.values()}),
        "parameters": sum(factors.up.numel() + factors.down.numel() for factors in change.values()),
        "norms": blocks,
    }


def _projection(module: str) -> str:
    return ".".join(module.split(".")[-3:]) if module.endswith(".0") else ".".join(module.split(".")[-2:])


def _sizes(source: Path) -> dict[str, int]:
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    return {
        path.name if path == source else path.relative_to(source).as_posix(): path.stat().st_size
        for path in files[:40]
    }


def _receipt(adapter: Adapter) -> dict[str, Any]:
    receipt = adapter.receipt
    return {
        "adapter_id": receipt.adapter_id,
        "base": vars(receipt.base),
        "method": receipt.method,
        "anchor": receipt.anchor,
        "people": receipt.people,
        "members": receipt.members,
        "figures": [figure._asdict() for figure in receipt.figures()],
        "files": receipt.files,
        "versions": receipt.versions,
        "seed": receipt.settings.get("seed"),
        "probe": bool(receipt.probe),
    }


def _lacks(lora: Lora, adapter: Adapter | None, problem: str) -> list[str]:
    """What is missing for trusting it, in the order of weight."""
    if problem:
        return [problem]
    lines = []
    if adapter is None:
        lines.append("no receipt: base, method, figures and digests are not stated")
    elif not adapter.receipt.figures():
        lines.append("no figures: it was not evaluated")
    if adapter is not None and not adapter.receipt.probe:
        lines.append("no probe: `verify` can check files and base, not the effect")
    if lora.format == "diffusers" and "lora_adapter_metadata" not in lora.header:
        lines.append("no lora_adapter_metadata in the header: loaders take alpha for the rank")
    if lora.scaled:
        lines.append(
            f"{len(lora.scaled)} layers have an alpha other than their rank: "
            "loaders that ignore alpha scale them wrongly"
        )
    return lines
