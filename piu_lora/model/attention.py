"""Which attention kernel to train with."""

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

__all__ = ["has_fused_projections", "training_attention"]

_SMALL = 32  # edge of the latents


@contextmanager
def training_attention(unet: UNet2DConditionModel) -> Iterator[None]:
    """While open, a small UNet on the CPU computes attention as plain products; elsewhere it keeps its own
    kernel.

    The backward pass of scaled_dot_product_attention is slow on CPUs: on the embedded base a step takes 1.4x
    as long with it. The products of a large latent would take gigabytes: 0.5 GB a layer and sample at 64 x
    64.
    """
    if unet.device.type != "cpu" or unet.config.sample_size > _SMALL:
        yield
        return
    processors = unet.attn_processors
    unet.set_attn_processor(AttnProcessor())
    try:
        yield
    finally:
        unet.set_attn_processor(processors)


def has_fused_projections(unet: UNet2DConditionModel) -> bool:
    """Whether pipe.fuse_qkv_projections is in force: then copies of to_k and to_v are used, not these."""
    return any(type(processor).__name__.startswith("Fused") for processor in unet.attn_processors.values())
