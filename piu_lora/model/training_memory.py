"""Saving memory and time while an adapter is trained; each is undone when its block ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from diffusers import UNet2DConditionModel

__all__ = ["checkpointed", "compiled", "parked"]

_VARIANTS = 64


@contextmanager
def checkpointed(unet: UNet2DConditionModel, enabled: bool = True) -> Iterator[None]:
    """While open, activations inside the blocks are computed again for the backward pass instead of being
    kept.
    """
    if enabled:
        unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if enabled:
            unet.disable_gradient_checkpointing()


@contextmanager
def compiled(
    unet: UNet2DConditionModel, enabled: bool = True, backend: str | Callable[..., Any] = "inductor"
) -> Iterator[None]:
    """While open, each block of the UNet is compiled by itself: with the adapters on and off, and anew for
    other sizes.
    """
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks] if enabled else []
    for block in blocks:
        block.compile(backend=backend)
    try:
        # Blocks of one class count as one function: three blocks, adapters on and off, and two sizes of a
        # micro-batch are more variants than torch allows by default, and beyond that it leaves blocks
        # uncompiled.
        with torch._dynamo.config.patch(cache_size_limit=_VARIANTS) if enabled else nullcontext():
            yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None


@contextmanager
def parked(module: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """While open, a module that is not needed waits on the CPU, if ``device`` is not the CPU itself."""
    away = device.type != "cpu"
    if away:
        module.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()
    try:
        yield
    finally:
        if away:
            module.to(device)
