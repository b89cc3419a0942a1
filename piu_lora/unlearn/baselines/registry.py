"""The baseline methods: each edits the dense weights of a UNet in place and is found by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.errors import BadInput
from piu_lora.model import BaseFamily, training_attention
from piu_lora.plugins import registered_as
from piu_lora.settings import Settings

__all__ = ["BASELINES", "Baseline", "BaselineProblem", "baseline", "find_baseline"]


@dataclass(frozen=True)
class BaselineProblem:
    """Who is forgotten, who replaces them, who stays: float32 unit embeddings, on the CPU."""

    forget: torch.Tensor  # (n, d) training embeddings of the forgotten person
    anchor: torch.Tensor  # (d,)
    retain: torch.Tensor  # (m, d) training embeddings of everybody else
    centroids: torch.Tensor  # (k, d) of the retained identities trained on
    # (b, 3, h, w) RGB in [0, 1] on the pipeline's device -> (b, d) unit rows, differentiable; only WID asks
    # for it
    recognise: Callable[[torch.Tensor], torch.Tensor] | None = None


S = TypeVar("S", bound=Settings)
Edit = Callable[[StableDiffusionPipeline, BaselineProblem, S, int], None]


@dataclass(frozen=True)
class Baseline:
    """A registered baseline; ``settings()`` are the ones of the official comparison."""

    name: str
    label: str
    paper: str
    settings: type[Settings]
    edit: Edit[Any]
    needs_recognizer: bool = False  # a differentiable one, as ``BaselineProblem.recognise``

    def settings_for(self, family: BaseFamily) -> Settings:
        """The settings on a family of bases: the official comparison's, and over them the family's own."""
        return self.settings().updated(family.baselines.get(self.name, {}))

    def run(self, pipe: StableDiffusionPipeline, problem: BaselineProblem, settings: Any, seed: int) -> None:
        """Edit ``pipe.unet`` in place, on the pipeline's own device; it ends frozen and in eval mode.

        Every baseline trains with the attention kernel that suits the device, which changes seconds and no
        formula.

        Args:
            pipe: a base in float32 without adapters; only its UNet changes.
            settings: an instance of ``self.settings``.
            seed: of every random draw.

        Raises:
            BadInput: settings of another baseline, weights that are not float32, or no recognizer where one
                is needed.
        """
        if not isinstance(settings, self.settings):
            raise BadInput(f"{self.name} takes {self.settings.__name__}, not {type(settings).__name__}")
        if pipe.unet.dtype != torch.float32:
            raise BadInput(
                f"{self.name} edits float32 weights, and this UNet holds {pipe.unet.dtype}; load the base "
                "with precision fp32"
            )
        pipe.unet.eval()
        try:
            with training_attention(pipe.unet):
                self.edit(pipe, problem, settings, seed)
        finally:
            pipe.unet.requires_grad_(False)


BASELINES: dict[str, Baseline] = {}


def baseline(
    name: str, label: str, paper: str, settings: type[S], *, needs_recognizer: bool = False
) -> Callable[[Edit[S]], Edit[S]]:
    """Add a baseline to the registry.

    Args:
        settings: a class whose defaults are the settings of the official comparison.
    """

    def decorate(edit: Edit[S]) -> Edit[S]:
        BASELINES[name] = Baseline(name, label, paper, settings, edit, needs_recognizer)
        return edit

    return decorate


def find_baseline(name: str) -> Baseline:
    """The baseline of that name, or ``BadInput`` with the known ones."""
    return registered_as(name, BASELINES, "baseline")
