"""What every attack is given: the bare base, the adapter's change, who is forgotten, who is the control, who
judges.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Change, mounted
from piu_lora.attacks.config import AuditConfig
from piu_lora.attacks.control import random_change
from piu_lora.attacks.dense import rest_added
from piu_lora.errors import BadInput
from piu_lora.evidence import Gallery
from piu_lora.identity import IdentityBank, centroid
from piu_lora.model import generate, without_bars

__all__ = ["AttackContext", "Others", "ProbedIdentity", "drawn"]


@dataclass(frozen=True)
class ProbedIdentity:
    """A person whom an attack is about.

    Attributes:
        label: what tables call them: "forgotten", "control".
        row: in every gallery.
        embeddings: (n, d) unit rows that nothing was trained on.
        photos: (m, 3, h, w) RGB in [0, 1], in the base's size, none of which is among the galleries'
            references.
        source: where the photographs come from, for the report.
        anchor: (d,) of who replaces them; None for those whom the adapter does not forget.
    """

    label: str
    row: int
    embeddings: torch.Tensor
    photos: torch.Tensor
    source: str
    anchor: torch.Tensor | None = None

    @property
    def centre(self) -> torch.Tensor:
        """(d,) unit centroid of the embeddings."""
        return centroid(self.embeddings)

    def conditions(self, count: int) -> torch.Tensor:
        """(count, d) of the embeddings, in turn."""
        return self.embeddings[torch.arange(count) % len(self.embeddings)]


@dataclass(frozen=True)
class Others:
    """Retained people for benign fine-tuning: embeddings (n, d) and one photograph each, (n, 3, h, w) RGB in
    [0, 1].
    """

    embeddings: torch.Tensor
    photos: torch.Tensor


@dataclass(frozen=True)
class AttackContext:
    """Everything that attacks need. The pipeline is bare, and bare again after every attack.

    Attributes:
        galleries: who judges; the last one decides.
        recognise: the conditioning recognizer with gradients, (n, 3, h, w) RGB in [0, 1] -> (n, d), where
            there is one.
    """

    pipe: StableDiffusionPipeline
    change: Change
    people: tuple[ProbedIdentity, ...]
    control: ProbedIdentity
    others: Others
    bank: IdentityBank
    galleries: tuple[Gallery, ...]
    recognise: Callable[[torch.Tensor], torch.Tensor] | None
    seed: int
    _drawn: dict[str, torch.Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.change or not self.people or not self.galleries:
            raise BadInput(
                "an audit needs an adapter that changes something, a forgotten person, and a recognizer "
                "that judges"
            )

    @cached_property
    def random(self) -> Change:
        """A random change of the same ranks and norms."""
        return random_change(self.change, self.generator("random weights"))

    def generator(self, purpose: str) -> torch.Generator:
        """A generator on the CPU that depends on the seed and the purpose alone."""
        digest = hashlib.sha256(f"{self.seed} {purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def seeds(self, count: int) -> list[int]:
        """Of the initial noise; none of an evaluation's."""
        return [self.seed * 100_003 + 70_000 + index for index in range(count)]

    @contextmanager
    def changed(self, change: Change) -> Iterator[None]:
        """While open, this change is active in the pipeline; an empty one leaves the base untouched."""
        if not change:
            yield
            return
        with without_bars(), rest_added(self.pipe, change), mounted(self.pipe, change):
            yield

    def draw(
        self,
        embeddings: torch.Tensor,
        config: AuditConfig,
        change: Change | None = None,
        seeds: Sequence[int] = (),
    ) -> torch.Tensor:
        """Images (n, 3, h, w) in [0, 1] of conditions (n, d): by the pipeline as it is, or with ``change``
        active alone.

        What the untouched base draws (an empty change) is kept for whoever asks for it again.
        """
        seeds = list(seeds) or self.seeds(len(embeddings))
        if change is None:
            return drawn(self.pipe, embeddings, config, seeds)
        if change:
            with self.changed(change):
                return drawn(self.pipe, embeddings, config, seeds)
        key = hashlib.sha256(
            embeddings.contiguous().numpy().tobytes() + repr((seeds, config.steps, config.guidance)).encode()
        ).hexdigest()
        if key not in self._drawn:
            self._drawn[key] = drawn(self.pipe, embeddings, config, seeds)
        return self._drawn[key]


def drawn(
    pipe: StableDiffusionPipeline, embeddings: torch.Tensor, config: AuditConfig, seeds: Sequence[int]
) -> torch.Tensor:
    """Images (n, 3, h, w) in [0, 1] of conditions (n, d), by a pipeline as it is with the audit's sampler."""
    images: torch.Tensor = generate(
        pipe, embeddings, seeds, steps=config.steps, guidance=config.guidance, batch=config.batch
    )
    return images
