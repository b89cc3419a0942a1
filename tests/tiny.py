"""Tiny models and banks, built from config in milliseconds; no weights, no network."""

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

from piu_lora.identity import IdentityBank, RecognizerId, normalize
from piu_lora.model.family import BaseFamily, register
from piu_lora.model.mini.generator import build_tokenizer
from piu_lora.model.mini.untrained import assembled, autoencoder_of, text_encoder_of, unet_of

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


def tiny_pipeline(seed: int = 0, levels: int = 4) -> StableDiffusionPipeline:
    """The topology of Stable Diffusion 1.5 with a few thousand weights, 8 px latents; with fewer levels it is
    quicker still.
    """
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    text_encoder = text_encoder_of(tokenizer, 32, 2, 2, intermediate_size=32)
    text_encoder.config.piu_lora = {
        "base": "tiny",
        "family": "tiny",
        "embedding_width": WIDTH,
        "recognizer": RECOGNIZER.name,
        "recognizer_sha256": RECOGNIZER.sha256,
    }
    pipe = assembled(tiny_autoencoder(levels), tiny_unet(seed, levels), text_encoder, tokenizer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_autoencoder(levels: int = 4) -> AutoencoderKL:
    return autoencoder_of((8,) * levels, norm_num_groups=4, sample_size=8 * 2 ** (levels - 1))


def tiny_unet(seed: int = 0, levels: int = 4) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    sizes = {"sample_size": 8, "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2}
    return unet_of((8, 8, 16, 16)[:levels], 32, **sizes).eval()


@torch.no_grad()
def predicted_noise(unet: UNet2DConditionModel, seed: int, steps: tuple[int, int]) -> torch.Tensor:
    """What a tiny UNet says of random latents under random conditions, at two time steps."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    condition = torch.randn(2, 8, 32, generator=generator)
    return unet(latents, torch.tensor(steps), condition).sample


def tiny_bank(identities: int = 40, shots: int = 6, seed: int = 0) -> IdentityBank:
    """Random people with close embeddings."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(identities, 1, WIDTH, generator=generator)
    rows = centres + 0.3 * torch.randn(identities, shots, WIDTH, generator=generator)
    labels = torch.arange(identities, dtype=torch.int32).repeat_interleave(shots)
    return IdentityBank(
        normalize(rows.flatten(0, 1)), labels, [f"person-{i:03d}" for i in range(identities)], RECOGNIZER
    )
