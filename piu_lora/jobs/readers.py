"""Which recognizer reads photographs and generated faces for a base."""

import os
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.config import FacesConfig
from piu_lora.identity import FaceReader, PhotoReader
from piu_lora.model import family_of

__all__ = ["default_pack", "providers_for", "reader_for"]


def default_pack() -> Path:
    """Where ``piu-lora bank models`` puts the face pack: ``$PIU_LORA_PACK``, or beside insightface's own."""
    stated = os.environ.get("PIU_LORA_PACK")
    return Path(stated) if stated else Path.home() / ".insightface" / "models" / "arc2face"


def providers_for(device: str) -> tuple[str, ...]:
    """The execution providers of onnxruntime for a device; ``auto`` takes CUDA where both torch and onnxruntime have it."""
    import onnxruntime

    offered = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    wanted = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    return ("CUDAExecutionProvider", "CPUExecutionProvider") if wanted and offered else ("CPUExecutionProvider",)


def reader_for(
    base: str | Path | StableDiffusionPipeline, pack: str | Path | None, faces: FacesConfig, device: str = "auto"
) -> PhotoReader | None:
    """The conditioning recognizer of the embedded base, or the face pack for every other one; None where there is no pack.

    Raises:
        BadInput, EnvironmentProblem: a pack was named, or lies in its usual place, and is none.
    """
    if pack is None and family_of(base) == "mini":
        from piu_lora.model import mini

        return mini.conditioning_recognizer()
    if pack is None and not default_pack().is_dir():
        return None
    return FaceReader(pack or default_pack(), providers=providers_for(device), several=faces.several)
