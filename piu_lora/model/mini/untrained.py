"""Untrained parts with the topology of Stable Diffusion 1.5, in any size, and the pipeline made of them."""

from typing import Any

from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

__all__ = ["LENGTH", "SCHEDULER", "assembled", "autoencoder_of", "text_encoder_of", "unet_of"]

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
LENGTH = 8  # tokens of a prompt


def text_encoder_of(
    tokenizer: CLIPTokenizer, width: int, layers: int, heads: int, **config: Any
) -> CLIPTextModel:
    """A text encoder for the tokenizer's vocabulary and special tokens.

    Args:
        width: of the conditions, and of the layers.
        config: further settings of ``CLIPTextConfig``.
    """
    defaults = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return CLIPTextModel(CLIPTextConfig(**{**defaults, **sizes, **config}))


def unet_of(channels: tuple[int, ...], width: int, **config: Any) -> UNet2DConditionModel:
    """A UNet with cross-attention on every level but the lowest.

    Args:
        channels: of the levels, from the top down.
        width: of the conditions.
        config: further settings of ``UNet2DConditionModel``.
    """
    upper = len(channels) - 1
    return UNet2DConditionModel(
        block_out_channels=channels,
        cross_attention_dim=width,
        down_block_types=("CrossAttnDownBlock2D",) * upper + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * upper,
        **config,
    )


def autoencoder_of(channels: tuple[int, ...], **config: Any) -> AutoencoderKL:
    """A VAE with one layer on each level.

    Args:
        channels: of the levels, from the picture down.
        config: further settings of ``AutoencoderKL``.
    """
    return AutoencoderKL(
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        **config,
    )


def assembled(
    vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """The pipeline of these parts, with the sampler of the embedded base and without a safety checker."""
    return StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=DPMSolverMultistepScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
