"""Text encoder, tokenizer and UNet of the embedded base, trained together on the latents."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from piu_lora.model.condition import encode_embeddings, encode_empty
from piu_lora.model.mini.dataset import open_training_set, to_unit
from piu_lora.model.mini.recognizers import load_recognizer
from piu_lora.model.mini.training import FitSettings, fit, rank_and_world
from piu_lora.model.mini.untrained import LENGTH, SCHEDULER, text_encoder_of, unet_of

__all__ = [
    "SCHEDULER",
    "build_text_encoder",
    "build_tokenizer",
    "build_unet",
    "embed_training_set",
    "load_generator",
    "train_generator",
]

SEED = 53
_MERGES = (
    "p h",
    "ph o",
    "pho t",
    "phot o</w>",
    "o f</w>",
    "i d</w>",
    "p e",
    "pe r",
    "per s",
    "pers o",
    "perso n</w>",
)


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP byte-pair tokenizer that knows the letters and the five words of the prompt."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = letters + [f"{letter}</w>" for letter in letters] + [merge.replace(" ", "") for merge in _MERGES]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    merges: Any = [
        tuple(merge.split()) for merge in _MERGES
    ]  # annotated as list[str] upstream, taken as pairs
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained CLIPTextModel, three layers of width 160."""
    return text_encoder_of(tokenizer, 160, 3, 4, intermediate_size=384, projection_dim=160)


def build_unet() -> UNet2DConditionModel:
    """An untrained UNet with the block topology of Stable Diffusion 1.5, one layer a block."""
    unet = unet_of(
        (64, 96, 128, 128),
        160,
        sample_size=12,
        in_channels=8,
        out_channels=8,
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=4,
    )
    nn.init.zeros_(unet.conv_out.weight)
    return unet


class _Denoiser(nn.Module):
    """Noise prediction on latents, conditioned on an embedding of another photograph of the same person."""

    def __init__(
        self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
    ) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        self.tokenizer = [tokenizer]
        self.scheduler = DDPMScheduler(**SCHEDULER)

    def forward(
        self, latents: torch.Tensor, embeddings: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        count = len(latents)
        tokenizer = self.tokenizer[0]
        condition = encode_embeddings(self.text_encoder, tokenizer, embeddings)
        empty = encode_empty(self.text_encoder, tokenizer).expand_as(condition)
        dropped = torch.rand(count, generator=generator) < 0.1
        condition = torch.where(dropped[:, None, None], empty, condition)
        quantile = (torch.arange(count) + torch.rand(count, generator=generator)) / count  # stratified
        timesteps = (quantile * 1000).long().clamp_max(999)
        noise = torch.randn(latents.shape, generator=generator)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.unet(noisy, timesteps, condition).sample
        return nn.functional.mse_loss(predicted.float(), noise)


@torch.no_grad()
def embed_training_set(folder: Path) -> Path:
    """Cache the conditioning recognizer's embeddings of the training set as ``embeddings.pt``, (ids, shots,
    d) fp16.
    """
    path = folder / "embeddings.pt"
    if path.exists():
        return path
    recognizer, faces = load_recognizer("conditioning", folder), open_training_set(folder)
    blocks = [
        recognizer(recognizer.fit_size(to_unit(faces[s : s + 16].reshape(-1, *faces.shape[2:]))))
        for s in range(0, len(faces), 16)
    ]
    torch.save(torch.cat(blocks).half().unflatten(0, faces.shape[:2]), path)
    return path


def train_generator(folder: Path, steps: int, batch: int = 120) -> None:
    """Train UNet and text encoder together on the cached latents and embeddings."""
    torch.manual_seed(SEED)
    tokenizer = build_tokenizer()
    model = _Denoiser(build_unet(), build_text_encoder(tokenizer), tokenizer)
    model.unet.set_attn_processor(
        AttnProcessor()
    )  # on CPU, at this size, plain attention trains 1.5x faster than SDPA
    latents = torch.load(folder / "latents.pt", weights_only=True, mmap=True)["latents"]
    embeddings = torch.load(folder / "embeddings.pt", weights_only=True, mmap=True)
    people, shots = latents.shape[:2]
    share = batch // rank_and_world()[1]

    def step(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        who = torch.randint(people, (share,), generator=generator)
        shot = torch.randint(shots, (2, share), generator=generator)
        loss = model(latents[who, shot[0]].float(), embeddings[who, shot[1]].float(), generator)
        return loss, {"mse": float(loss.detach())}

    settings = FitSettings(steps=steps, lr=1.5e-3, seed=SEED, ema=0.9985, ema_every=10)
    fit("generator", model, step, folder, settings)


def load_generator(folder: Path) -> tuple[UNet2DConditionModel, CLIPTextModel, CLIPTokenizer]:
    """The trained UNet, text encoder and tokenizer of ``folder``."""
    tokenizer = build_tokenizer()
    model = _Denoiser(build_unet(), build_text_encoder(tokenizer), tokenizer)
    model.load_state_dict(torch.load(folder / "generator.pt", weights_only=True)["average"])
    return model.unet.eval(), model.text_encoder.eval(), tokenizer
