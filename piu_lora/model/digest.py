"""Digests by which a base is known, whatever else has been put into it."""

import hashlib
from collections.abc import Iterator

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel

from piu_lora.model.lora import base_parameters

__all__ = ["attention_digest", "encoder_digest"]

# What IP-Adapters and other attention processors bring, and what fuse_qkv_projections adds.
_FOREIGN = (".processor.", ".to_qkv.", ".to_kv.", ".to_added_qkv.")


def attention_digest(unet: UNet2DConditionModel) -> str:
    """SHA-256 of all cross-attention weights of the base, in fp16, by name: the same for fp32 and fp16
    copies.

    Adapters that are attached are looked through, IP-Adapters left out; offloaded weights are fetched one by
    one.
    """
    return _digest((name, value) for name, value in _own(unet) if ".attn2." in name)


def encoder_digest(text_encoder: CLIPTextModel) -> str:
    """The same for all weights of the text encoder, by their names in the flat layout of transformers 5.6 and
    later.
    """
    return _digest((name.removeprefix("text_model."), value) for name, value in _own(text_encoder))


def _own(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return (
        (name, value)
        for name, value in base_parameters(model)
        if not any(mark in f".{name}" for mark in _FOREIGN)
    )


@torch.no_grad()
def _digest(weights: Iterator[tuple[str, torch.Tensor]]) -> str:
    # Cast one by one: offloaded weights need not fit into memory together.
    halves = {
        name: value.detach().to("cpu", torch.float16).contiguous().numpy().tobytes()
        for name, value in weights
    }
    digest = hashlib.sha256()
    for name in sorted(halves):
        digest.update(name.encode())
        digest.update(halves[name])
    return digest.hexdigest()
