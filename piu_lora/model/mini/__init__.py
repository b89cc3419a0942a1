"""arc2face-mini: an identity-conditioned latent-diffusion model small enough to ship inside the package.

The same classes as Arc2Face (StableDiffusionPipeline, UNet2DConditionModel, AutoencoderKL, CLIPTextModel),
truly trained, on rendered portraits of people who do not exist. ``python -m piu_lora.model.mini`` makes every
part of it from nothing.
"""

from functools import cache
from pathlib import Path

from piu_lora.errors import EnvironmentProblem
from piu_lora.identity import IdentityBank, Recognizer

__all__ = [
    "TUNED_ON",
    "conditioning_bank",
    "conditioning_recognizer",
    "evaluating_bank",
    "evaluating_recognizer",
    "folder",
    "hosts_folder",
]

# Rows of the bank whose people were used to choose defaults; the arena and the benchmarks that draw people
# leave them out.
# benchmarks/forgetting.py is older than the choices made on the last hundred, and none of these concerns what
# it measures.
TUNED_ON = frozenset({100, 300, 150, 410, *((11 + 97 * index) % 1024 for index in range(100))})
_WEIGHTS = Path(__file__).parent / "weights"


def folder() -> Path:
    """The embedded base in diffusers layout; stock diffusers loads it.

    Raises:
        EnvironmentProblem: the package was installed without its weights.
    """
    base = _WEIGHTS / "base"
    if not (base / "model_index.json").exists():
        raise EnvironmentProblem(
            f"the embedded base is missing from {str(_WEIGHTS)!r}; install piu-lora again"
        )
    return base


def hosts_folder() -> Path:
    """The LCM-LoRA, ControlNet and expression IP-Adapter that were trained for the embedded base."""
    return _WEIGHTS / "hosts"


@cache
def conditioning_bank() -> IdentityBank:
    """The embedded bank: people unseen in training, embedded by the recognizer that conditions the base."""
    return IdentityBank.load(_WEIGHTS / "bank.safetensors")


@cache
def evaluating_bank() -> IdentityBank:
    """The same people, same ids, embedded by the recognizer that only evaluates."""
    return IdentityBank.load(_WEIGHTS / "bank_evaluating.safetensors")


def conditioning_recognizer() -> Recognizer:
    """The recognizer whose embeddings condition the base."""
    return Recognizer(_WEIGHTS / "conditioning.onnx", "mini-conditioning")


def evaluating_recognizer() -> Recognizer:
    """Another architecture, another seed, never seen by the generator."""
    return Recognizer(_WEIGHTS / "evaluating.onnx", "mini-evaluating")
