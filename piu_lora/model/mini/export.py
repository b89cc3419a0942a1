"""From training checkpoints to what ships: a diffusers folder in fp16, two ONNX recognizers, two banks."""

import shutil
from pathlib import Path

import torch

from piu_lora.identity import IdentityBank, RecognizerId, normalize
from piu_lora.identity import Recognizer as OnnxRecognizer
from piu_lora.model.mini.autoencoder import load_autoencoder
from piu_lora.model.mini.dataset import BANK_SEED, people, portraits
from piu_lora.model.mini.generator import load_generator
from piu_lora.model.mini.recognizers import RECOGNIZERS, export_onnx, load_recognizer
from piu_lora.model.mini.untrained import assembled
from piu_lora.model.older_versions import nest_encoder, write_vocabulary

__all__ = [
    "BANK_IDENTITIES",
    "BANK_SHOTS",
    "bank_portraits",
    "export_banks",
    "export_base",
    "export_recognizers",
    "fresh_portraits",
]

BANK_IDENTITIES, BANK_SHOTS, EVALUATING_SHOTS = 1024, 9, 3
_FRESH_SEED = 3  # of photographs that no bank holds


def export_recognizers(work: Path, weights: Path) -> None:
    """Write ``conditioning.onnx`` and ``evaluating.onnx``."""
    weights.mkdir(parents=True, exist_ok=True)
    for name in RECOGNIZERS:
        export_onnx(load_recognizer(name, work), weights / f"{name}.onnx")


def export_base(work: Path, weights: Path) -> None:
    """Write the pipeline in diffusers layout, fp16, to ``weights/base``."""
    unet, text_encoder, tokenizer = load_generator(work)
    recognizer = OnnxRecognizer(weights / "conditioning.onnx", "mini-conditioning")
    text_encoder.config.piu_lora = {
        "base": "arc2face-mini",
        "family": "mini",
        "embedding_width": RECOGNIZERS["conditioning"][0]().width,
        "recognizer": recognizer.id.name,
        "recognizer_sha256": recognizer.id.sha256,
    }
    vae = load_autoencoder(work, "decoder" if (work / "decoder.pt").exists() else "vae")
    vae.register_to_config(
        scaling_factor=torch.load(work / "latents.pt", weights_only=True, mmap=True)["scale"]
    )
    pipe = assembled(vae.half(), unet.half(), text_encoder.half(), tokenizer)
    staging = weights / ".base.tmp"
    shutil.rmtree(staging, ignore_errors=True)
    pipe.save_pretrained(staging)
    nest_encoder(staging / "text_encoder")
    write_vocabulary(staging / "tokenizer")
    # Stored in fp16 to be small, loaded in fp32 to be exact: transformers takes the dtype from here,
    # diffusers its own default.
    config = staging / "text_encoder" / "config.json"
    config.write_text(config.read_text().replace('"float16"', '"float32"'))
    shutil.rmtree(weights / "base", ignore_errors=True)
    staging.rename(weights / "base")


def bank_portraits(row: int, count: int = BANK_SHOTS) -> torch.Tensor:
    """Photographs of one person of the embedded bank, (count, 3, 96, 96) uint8: what their embeddings were
    made from.
    """
    return portraits(people(BANK_IDENTITIES, BANK_SEED)[row], count, BANK_SEED * 10_000_019 + row)


def fresh_portraits(row: int, count: int) -> torch.Tensor:
    """Other photographs of that person, which are in no bank: (count, 3, 96, 96) uint8."""
    return portraits(people(BANK_IDENTITIES, BANK_SEED)[row], count, _FRESH_SEED * 10_000_019 + row)


def export_banks(weights: Path) -> None:
    """Embed people unseen in training with both recognizers; same ids in both banks."""
    ids = [f"mini-{row:04d}" for row in range(BANK_IDENTITIES)]
    faces = torch.stack([bank_portraits(row) for row in range(BANK_IDENTITIES)]).float() / 255
    for name, shots, file in (
        ("conditioning", BANK_SHOTS, "bank"),
        ("evaluating", EVALUATING_SHOTS, "bank_evaluating"),
    ):
        recognizer = OnnxRecognizer(weights / f"{name}.onnx", f"mini-{name}")
        embeddings = recognizer.embed(faces[:, :shots].flatten(0, 1))
        labels = torch.arange(BANK_IDENTITIES, dtype=torch.int32).repeat_interleave(shots)
        identity = RecognizerId(recognizer.id.name, recognizer.id.sha256)
        settings = {"renderer_seed": BANK_SEED, "shots": shots, "size": faces.shape[-1]}
        IdentityBank(normalize(embeddings).half(), labels, ids, identity, settings).save(
            weights / f"{file}.safetensors"
        )
