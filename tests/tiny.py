"""Tiny models and banks, built from config in milliseconds; no weights, no network."""

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from piu_lora.identity import IdentityBank, RecognizerId, normalize
from piu_lora.model.family import BaseFamily, register
from piu_lora.model.mini.generator import SCHEDULER, build_tokenizer

WIDTH = 16
FAMILY = register(BaseFamily("tiny", "tiny", WIDTH))
RECOGNIZER = RecognizerId("tiny", "00" * 32)
# Settings that make a run of a second.
FAST = (
    "train.steps=2",
    "train.batch=2",
    "train.accumulation=2",
    "train.checkpoint_every=1",
    "lora.rank=2",
    "anchor.rule=nearest",
    "train.lr=1e-3",
)


def tiny_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """The topology of Stable Diffusion 1.5 with a few thousand weights, 8 px latents."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=8,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    text_encoder.config.piu_lora = {
        "base": "tiny",
        "family": "tiny",
        "embedding_width": WIDTH,
        "recognizer": RECOGNIZER.name,
        "recognizer_sha256": RECOGNIZER.sha256,
    }
    vae = AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        sample_size=64,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        unet=tiny_unet(seed),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=DPMSolverMultistepScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_unet(seed: int = 0) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        cross_attention_dim=32,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    ).eval()


def tiny_bank(identities: int = 40, shots: int = 6, seed: int = 0) -> IdentityBank:
    """Random people with close embeddings."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(identities, 1, WIDTH, generator=generator)
    rows = centres + 0.3 * torch.randn(identities, shots, WIDTH, generator=generator)
    labels = torch.arange(identities, dtype=torch.int32).repeat_interleave(shots)
    return IdentityBank(
        normalize(rows.flatten(0, 1)), labels, [f"person-{i:03d}" for i in range(identities)], RECOGNIZER
    )
