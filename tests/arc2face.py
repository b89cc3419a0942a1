"""Repositories with the layout, names, shapes and file formats of Arc2Face, and random weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from piu_lora.model.families.arc2face import ARC2FACE, SD15
from piu_lora.model.mini.generator import build_tokenizer
from tests.hub import LoopbackHub

ENCODER = "encoder/pytorch_model.bin"
UNET = "arc2face/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Shape:
    """Sizes of the parts; the encoder takes 512-d embeddings in either."""

    channels: tuple[int, ...]
    layers: int
    heads: int
    groups: int
    sample: int
    hidden: int
    intermediate: int
    encoder_layers: int
    vocabulary: int
    length: int
    vae_channels: tuple[int, ...]


FULL = Shape((320, 640, 1280, 1280), 2, 8, 32, 64, 768, 3072, 12, 49408, 77, (128, 256, 512, 512))
TINY = Shape((8, 8, 16, 16), 1, 2, 4, 8, 520, 64, 2, 400, 12, (8, 8, 8, 8))


def build_unet(shape: Shape) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=shape.sample,
        layers_per_block=shape.layers,
        block_out_channels=shape.channels,
        norm_num_groups=shape.groups,
        cross_attention_dim=shape.hidden,
        attention_head_dim=shape.heads,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )


def build_encoder(shape: Shape) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.encoder_layers,
            num_attention_heads=8,
            max_position_embeddings=shape.length,
            hidden_act="quick_gelu",
            projection_dim=shape.hidden,
        )
    )


def write_arc2face(
    folder: Path, shape: Shape = TINY, recognizer: bytes = b"a recognizer", seed: int = 0
) -> Path:
    """``arc2face/`` with safetensors, ``encoder/`` as a pickle with the keys of old transformers,
    ``arcface.onnx``.
    """
    torch.manual_seed(seed)
    build_unet(shape).save_pretrained(folder / "arc2face")
    encoder = build_encoder(shape)
    state = {f"text_model.{name}": value for name, value in encoder.state_dict().items()}
    state["text_model.embeddings.position_ids"] = torch.arange(shape.length)[None]
    (folder / "encoder").mkdir(parents=True)
    torch.save(state, folder / ENCODER)
    config = encoder.config.to_dict() | {
        "architectures": ["CLIPTextModelWrapper"],
        "model_type": "clip_text_model",
    }
    (folder / "encoder" / "config.json").write_text(
        json.dumps({**config, "torch_dtype": "float32", "transformers_version": "4.34.1"})
    )
    (folder / "arcface.onnx").write_bytes(recognizer)
    (folder / "README.md").write_text("not needed to load anything")
    return folder


def write_sd15(folder: Path, shape: Shape = TINY, seed: int = 1) -> Path:
    """Old tokenizer, VAE, PNDM scheduler; the rest of that repository is there to be left alone."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        latent_channels=4,
        block_out_channels=shape.vae_channels,
        norm_num_groups=min(32, shape.vae_channels[0]),
        sample_size=8 * shape.sample,
        layers_per_block=shape.layers,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    vae.save_pretrained(folder / "vae")
    _write(folder / "scheduler/scheduler_config.json", _PNDM)
    _write_tokenizer(folder / "tokenizer", shape)
    _write(
        folder / "model_index.json", {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0"}
    )
    _write(folder / "safety_checker/config.json", {"unwanted": True})
    (folder / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"unwanted")
    return folder


def serve_arc2face(hub: LoopbackHub, folder: Path, shape: Shape = TINY, **options: Any) -> None:
    """Both repositories at their pinned revisions."""
    hub.add_repository(
        ARC2FACE[0], write_arc2face(folder / "arc2face", shape), revision=ARC2FACE[1], **options
    )
    hub.add_repository(SD15[0], write_sd15(folder / "sd15", shape), revision=SD15[1])


_PNDM = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def _write_tokenizer(folder: Path, shape: Shape) -> None:
    tokenizer = build_tokenizer()
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    _write(folder / "vocab.json", model["vocab"])
    (folder / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]) + "\n"
    )
    end = {
        "content": "<|endoftext|>",
        "lstrip": False,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
    }
    start = end | {"content": "<|startoftext|>"}
    _write(
        folder / "special_tokens_map.json",
        {"bos_token": start, "eos_token": end, "pad_token": "<|endoftext|>", "unk_token": end},
    )
    _write(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": shape.length,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "CLIPTokenizer",
        },
    )


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
