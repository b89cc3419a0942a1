"""A copy of the base with a change in its weights: what somebody has who trains on top of an adapter."""

import copy

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from piu_lora.adapter import Change
from piu_lora.attacks.dense import add_rest
from piu_lora.model import layer_weight

__all__ = ["attention_blocks", "fused_copy"]


@torch.no_grad()
def fused_copy(pipe: StableDiffusionPipeline, change: Change) -> StableDiffusionPipeline:
    """A pipeline of its own with ``W + dW`` in every layer that changes, in float32: in half precision a sum
    rounds the change away.
    """
    parts = {name: copy.deepcopy(getattr(pipe, name)).float() for name in ("unet", "text_encoder", "vae")}
    twin = StableDiffusionPipeline(**{**pipe.components, **parts}, requires_safety_checker=False)
    twin.set_progress_bar_config(disable=True)
    for module, factors in change.items():
        weight = layer_weight(twin, module)
        weight += factors.dense().to(weight)
    add_rest(twin, change)
    for part in parts.values():
        part.requires_grad_(False)
    return twin


def attention_blocks(unet: UNet2DConditionModel) -> tuple[str, ...]:
    """The blocks that have cross-attention, as ``LoraConfig.blocks`` names them."""
    names = [name for name, _ in unet.named_modules() if name.endswith("attn2.to_q")]
    parts = [name.split(".") for name in names]
    return tuple(dict.fromkeys(path[0] if path[0] == "mid_block" else ".".join(path[:2]) for path in parts))
