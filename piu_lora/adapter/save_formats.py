"""A change as one file for other programs: diffusers, or A1111, ComfyUI and sd-scripts.

The scale is baked into ``up``, so alpha equals rank and nothing can be scaled twice.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch

from piu_lora.adapter.folder import diffusers_header, diffusers_state, nested_name
from piu_lora.adapter.older_loaders import evened
from piu_lora.model.factors import Change, Factors, component, padded, state_of
from piu_lora.tensors import save_tensors

__all__ = ["save_diffusers", "save_kohya"]


def save_diffusers(change: Change, path: Path) -> None:
    """A file for ``pipe.load_lora_weights``."""
    even = evened(change)
    save_tensors(diffusers_state(even), path, diffusers_header(even))


def save_kohya(change: Change, path: Path, *, title: str, resolution: int = 512) -> None:
    """A file for A1111, ComfyUI and sd-scripts: one rank everywhere, ``.alpha`` equal to it, their usual
    header.

    Args:
        title: shown by those programs; an opaque id, never a name.
        resolution: edge in pixels of the base's images.
    """
    change, rank = _with_output_projection(change), max(factors.rank for factors in change.values())
    state: dict[str, torch.Tensor] = {}
    for module, factors in change.items():
        wide, name = padded(factors, rank), _kohya_name(module)
        down, up = state_of({name: wide}).values()
        state |= {f"{name}.lora_down.weight": down.contiguous(), f"{name}.lora_up.weight": up.contiguous()}
        state[f"{name}.alpha"] = torch.tensor(float(rank), dtype=factors.up.dtype)
    save_tensors(state, path, _kohya_header(state, rank, title, resolution))


def _with_output_projection(change: Change) -> Change:
    """Text encoders whose attention is changed without its output projection get a zero one, or diffusers
    overlooks the rest.
    """
    attention = [
        module
        for module in change
        if module.startswith("text_encoder.") and module.endswith(("q_proj", "k_proj", "v_proj"))
    ]
    if not attention or any(
        module.endswith("out_proj") for module in change if component(module) == "text_encoder"
    ):
        return change
    first = change[attention[0]]
    return {
        **change,
        attention[0].rpartition(".")[0] + ".out_proj": Factors(
            torch.zeros_like(first.down), torch.zeros_like(first.up)
        ),
    }


def _kohya_name(module: str) -> str:
    return (
        nested_name(module)
        .replace("unet.", "lora_unet_", 1)
        .replace("text_encoder.", "lora_te_", 1)
        .replace(".", "_")
    )


def _kohya_header(
    state: Mapping[str, torch.Tensor], rank: int, title: str, resolution: int
) -> dict[str, str]:
    """The keys that those programs look for; ``sshs_model_hash`` is sd-scripts' digest of the tensors."""
    content = hashlib.sha256()
    for key in sorted(state):
        content.update(key.encode())
        content.update(state[key].reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(rank)),
        "ss_base_model_version": "sd_v1",
        "ss_output_name": title,
        "sshs_model_hash": content.hexdigest(),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.prediction_type": "epsilon",
        "modelspec.resolution": f"{resolution}x{resolution}",
    }
