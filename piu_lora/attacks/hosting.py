"""Ways in which programs run a base: each draws somebody through an edited copy as such a host would."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Change
from piu_lora.attacks.config import AuditConfig
from piu_lora.attacks.context import AttackContext, ProbedIdentity
from piu_lora.attacks.copies import fused_copy
from piu_lora.model import encode_embeddings, encode_empty
from piu_lora.model.family import stated_family
from piu_lora.model.sample import sampling

__all__ = ["WAYS", "Host", "Way", "way"]


@dataclass
class Host:
    """A host that runs an edited base, and whom it draws; the change is in the weights, but where a way loads
    it as an adapter.
    """

    context: AttackContext
    config: AuditConfig
    change: Change
    who: ProbedIdentity
    _pipes: dict[str, StableDiffusionPipeline] = field(default_factory=dict, repr=False)

    @property
    def pipe(self) -> StableDiffusionPipeline:
        """The edited base; ways that alter the pipeline take a copy of their own."""
        if "shared" not in self._pipes:
            self._pipes["shared"] = self.copied()
        return self._pipes["shared"]

    def copied(self) -> StableDiffusionPipeline:
        """A copy that nobody else uses."""
        return fused_copy(self.context.pipe, self.change)

    def of(self, who: ProbedIdentity) -> "Host":
        """The same host, drawing somebody else."""
        return Host(self.context, self.config, self.change, who, self._pipes)

    @property
    def embeddings(self) -> torch.Tensor:
        """(n, d) of the person."""
        return self.who.conditions(self.config.images)

    @property
    def seeds(self) -> list[int]:
        """(n,) of the initial noise."""
        return self.context.seeds(self.config.images)

    @property
    def others(self) -> torch.Tensor:
        """(n, d) embeddings of other people, in turn."""
        rows = self.context.others.embeddings
        return rows[torch.arange(self.config.images) % len(rows)]

    @property
    def other_photographs(self) -> torch.Tensor:
        """(n, 3, h, w) of other people, in turn."""
        photos = self.context.others.photos
        return photos[torch.arange(self.config.images) % len(photos)]

    @cached_property
    def trained(self) -> Path | None:
        """The folder of hosts that were trained for this base; None where there is none."""
        return trained_hosts(self.context.pipe)

    @torch.no_grad()
    def encode(self, embeddings: torch.Tensor, pipe: StableDiffusionPipeline | None = None) -> torch.Tensor:
        """Conditions by the edited encoder."""
        pipe = pipe or self.pipe
        return encode_embeddings(pipe.text_encoder, pipe.tokenizer, embeddings.to(pipe.device))

    @torch.no_grad()
    def empty(self, count: int, pipe: StableDiffusionPipeline | None = None) -> torch.Tensor:
        """The condition of the empty prompt by the edited encoder, ``count`` times."""
        pipe = pipe or self.pipe
        return encode_empty(pipe.text_encoder, pipe.tokenizer).expand(count, -1, -1)

    @torch.no_grad()
    def sample(self, pipe: Any, conditions: torch.Tensor, **options: Any) -> torch.Tensor:
        """Images (n, 3, h, w) in [0, 1] by any pipeline of diffusers with the audit's sampler."""
        pipe.set_progress_bar_config(disable=True)
        defaults = {
            "negative_prompt_embeds": self.empty(len(conditions), pipe),
            "num_inference_steps": self.config.steps,
            "guidance_scale": self.config.guidance,
            "generator": [torch.Generator().manual_seed(seed) for seed in self.seeds],
            "output_type": "pt",
        }
        with sampling(self.context.pipe):
            result = pipe(prompt_embeds=conditions, **{**defaults, **options})
        images: torch.Tensor = result.images.float().cpu()
        return images


def trained_hosts(pipe: StableDiffusionPipeline) -> Path | None:
    """The folder of hosts that were trained for a base; None where there is none."""
    family = stated_family(pipe.text_encoder)
    companions = family.companions if family else None
    folder = companions.hosts() if companions and companions.hosts else None
    return folder if folder is not None and folder.is_dir() else None


Draw = Callable[[Host], torch.Tensor]


@dataclass(frozen=True)
class Way:
    """A way to draw.

    Attributes:
        name: what settings, figures and tables call it.
        needs: a file or folder among the trained hosts of a base.
        counted: whether a success is one of the attack; False for what is known to switch an adapter off.
        photograph: whether a photograph of the person takes part, so that its own share has to be known.
    """

    name: str
    draw: Draw
    needs: str = ""
    counted: bool = True
    photograph: bool = False


WAYS: dict[str, Way] = {}


def way(
    name: str, *, needs: str = "", counted: bool = True, photograph: bool = False
) -> Callable[[Draw], Draw]:
    """Register a way to run a host; the arguments are those of ``Way``."""

    def decorate(draw: Draw) -> Draw:
        WAYS[name] = Way(name, draw, needs, counted, photograph)
        return draw

    return decorate
