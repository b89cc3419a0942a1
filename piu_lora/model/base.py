"""Bases: the pipelines that adapters belong to, and what piu_lora needs to know about one."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.identity import RecognizerId

__all__ = ["ARC2FACE", "SD15", "BaseInfo", "attention_digest", "describe", "load_base", "resolve_device"]

# Repository and pinned revision of the published weights.
ARC2FACE = ("FoivosPar/Arc2Face", "321709b2e9697ea2a5bd06c8a51b340592333e1e")
SD15 = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14")
# Arc2Face states no digest for its recognizer inside the weights: bank and base are matched by this name alone.
_ARCFACE = RecognizerId("arcface.onnx", "")


@dataclass(frozen=True)
class BaseInfo:
    """What a pipeline does not say of itself: its id, its family, and the recognizer that conditions it."""

    id: str
    family: str
    embedding_width: int
    recognizer: RecognizerId


def load_base(
    base: str | Path, *, device: str | torch.device = "auto", dtype: torch.dtype = torch.float32, **options: Any
) -> StableDiffusionPipeline:
    """Load a base as a plain diffusers ``StableDiffusionPipeline`` with the DPM-Solver++ scheduler.

    Args:
        base: ``mini`` (embedded), ``arc2face`` (the Hub, pinned revisions), a folder or a Hub id in diffusers layout.
        device: ``auto`` takes CUDA where there is one.
        dtype: of all weights.
        options: passed to ``from_pretrained`` (cache_dir, local_files_only, revision, token).

    Raises:
        BadInput: no such base.
        EnvironmentProblem: the weights cannot be had.
    """
    name = str(base)
    try:
        if name == "arc2face":
            pipe = _load_arc2face(dtype, options)
        else:
            source = str(_mini_folder()) if name == "mini" else name
            pipe = StableDiffusionPipeline.from_pretrained(
                source, dtype=dtype, safety_checker=None, requires_safety_checker=False, **options
            )
    except (OSError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        if name == "arc2face" or ("/" in name and not Path(name).exists() and not name.startswith((".", "/", "~"))):
            raise EnvironmentProblem(
                f"cannot load the base {name!r} from the Hub: {first} "
                "Check the network and your access to it, or pass a folder in diffusers layout"
            ) from error
        raise BadInput(f"cannot load the base {name!r}: {first}; pass mini, arc2face, a folder in diffusers layout or a Hub id") from error
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    loaded: StableDiffusionPipeline = pipe.to(resolve_device(device))
    return loaded


def _load_arc2face(dtype: torch.dtype, options: dict[str, Any]) -> StableDiffusionPipeline:
    """The published parts: UNet and encoder of Arc2Face in the Stable Diffusion 1.5 pipeline, no safety checker."""
    shared = {key: value for key, value in options.items() if key != "revision"}
    repository, revision = ARC2FACE[0], options.get("revision", ARC2FACE[1])
    unet = UNet2DConditionModel.from_pretrained(repository, subfolder="arc2face", revision=revision, dtype=dtype, **shared)
    encoder = CLIPTextModel.from_pretrained(repository, subfolder="encoder", revision=revision, dtype=dtype, **shared)
    pipe: StableDiffusionPipeline = StableDiffusionPipeline.from_pretrained(
        SD15[0],
        revision=SD15[1],
        unet=unet,
        text_encoder=encoder,
        safety_checker=None,
        requires_safety_checker=False,
        dtype=dtype,
        **shared,
    )
    pipe.register_to_config(_name_or_path=ARC2FACE[0])
    return pipe


def _mini_folder() -> Path:
    from piu_lora.model.mini import folder

    return folder()


def resolve_device(device: str | torch.device) -> torch.device:
    """``auto`` is CUDA where there is one, else CPU.

    Raises:
        BadInput: no such device here.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if str(device) == "auto" else str(device)
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"device {name!r} is not available here: {str(error).splitlines()[0]}; pass --device auto") from error
    return torch.device(name)


def describe(pipe: StableDiffusionPipeline) -> BaseInfo:
    """What is known of a base. A text encoder states it under ``piu_lora`` in its config; Arc2Face's own does not."""
    stated = getattr(pipe.text_encoder.config, "piu_lora", None)
    if stated:
        return BaseInfo(
            stated["base"],
            stated["family"],
            int(stated["embedding_width"]),
            RecognizerId(stated["recognizer"], stated["recognizer_sha256"]),
        )
    source = str(pipe.config.get("_name_or_path", ""))
    # A local path would carry a machine's name into the receipt.
    name = source if source.count("/") == 1 and not Path(source).exists() else "local"
    return BaseInfo(name, "arc2face", 512, _ARCFACE)


@torch.no_grad()
def attention_digest(unet: UNet2DConditionModel) -> str:
    """SHA-256 of all cross-attention weights of the base, in fp16, by name: the same for fp32 and fp16 copies.

    Adapters that are attached are looked through.
    """
    digest = hashlib.sha256()
    weights = {_plain(name): value for name, value in unet.named_parameters() if ".attn2." in name and ".lora_" not in name}
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()


def _plain(name: str) -> str:
    return name.replace(".base_layer", "")
