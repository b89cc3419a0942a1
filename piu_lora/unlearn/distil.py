"""distil-encoder: the replacement objective in condition space, for many people in one adapter."""

from dataclasses import dataclass, replace
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator

from piu_lora.config import ForgetConfig, require_band
from piu_lora.identity import synthetic_neighbours
from piu_lora.identity.constants import Counts, value_of
from piu_lora.settings import Amount, Auto, Cosine, Settings, Share
from piu_lora.unlearn.closed.methods import with_keys_and_values
from piu_lora.unlearn.dial import LEARNING_RATE, Range
from piu_lora.unlearn.nearest_people import NearestPeople
from piu_lora.unlearn.piu import replacement_target
from piu_lora.unlearn.registry import Problem, TrainedModel, register, shares
from piu_lora.unlearn.stopping import progress_terms

__all__ = ["DistilConfig", "DistilInputs", "DistilObjective"]


class DistilConfig(Settings, section="distil"):
    """The replacement objective in condition space."""

    rank: int = Field(0, ge=0, description="0: 32, or 64 for more than 32 people")
    eta: Amount = Field(0.25, description="how far beyond the anchor")
    retain_weight: Amount = Field(10.0, description="of the retained conditions, the anchors' among them")
    empty_weight: Amount = Field(1.0, description="of the empty prompt's condition")
    neighbour_low: Cosine | Auto = Field(
        "auto",
        description="lowest cosine of synthetic neighbours (retain.neighbours) with a forgotten centroid; "
        "auto: by the bank's geometry",
    )
    neighbour_high: Annotated[float, Field(ge=-1, lt=1)] | Auto = Field(
        "auto", description="their highest; auto: outside the person's own photographs' reach"
    )
    anchors: Share = Field(
        0.05,
        description="share of the anchors themselves in the retain batch, as far as neighbours leave room",
    )
    unseen: Share = Field(
        0.5,
        description="share of forget samples turned away from the known photographs, as unseen ones of the "
        "person would be",
    )
    unseen_low: Annotated[float, Field(ge=-1, lt=1)] | Auto = Field(
        "auto", description="by a cosine from here to 1; auto: by the bank's geometry"
    )

    @model_validator(mode="after")
    def _has_a_band(self) -> Self:
        require_band("distil", self.neighbour_low, self.neighbour_high)
        return self

    def rank_for(self, people: int) -> int:
        """The rank of an adapter for so many people."""
        return self.rank or (32 if people <= 32 else 64)


@dataclass(frozen=True)
class DistilInputs:
    """Embeddings (n, d) of n forget and n retain samples, and the target of each forget sample, (n,); on the
    CPU.
    """

    forget: torch.Tensor
    whose: torch.Tensor
    retain: torch.Tensor

    def __getitem__(self, rows: slice) -> Self:
        return type(self)(self.forget[rows], self.whose[rows], self.retain[rows])


class DistilObjective:
    """``|c(f) - [c*(a) - eta (c*(f) - c*(a))]|^2 + w |c(r) - c*(r)|^2 + w0 |c() - c*()|^2``, means over
    elements.

    c is the condition that the encoder under training makes, c* the frozen one's: the objective of PIU (arXiv
    2605.22311, equation 5) with conditions in the place of noise predictions. No UNet and no image take part.
    Retained are real people, synthetic and real neighbours of the forgotten ones, the anchors, and the empty
    prompt.
    """

    def __init__(self, problem: Problem, model: TrainedModel, config: ForgetConfig) -> None:
        if model.encode_empty is None:
            raise ValueError("an objective in condition space needs the empty prompt")
        self.problem, self.model, self.settings = problem, model, config.section_of(DistilConfig)
        self.encode_empty, self.neighbours = model.encode_empty, config.retain.neighbours
        counts = Counts(problem.fewest_photographs)
        self.low, self.high, self.unseen_low = (
            value_of(f"distil.{name}", getattr(self.settings, name), counts=counts)
            for name in ("neighbour_low", "neighbour_high", "unseen_low")
        )
        self.nearby = NearestPeople(problem, config.retain.near, config.retain.near_pool)
        self.device = next(model.unet.parameters()).device
        self.centres, self.anchor_embeddings = problem.centres, problem.anchors
        with torch.no_grad(), model.adapters_disabled():
            self.anchors = self._carried(model.encode(self.anchor_embeddings.to(self.device)))
            self.empty = self.encode_empty().float()

    def draw(self, count: int, generator: torch.Generator) -> DistilInputs:
        """Forget: mixtures, the people in equal shares, some turned towards strangers. Retain: real people,
        synthetic neighbours, anchors.

        All drawn by the generator, on the CPU.
        """
        settings, parts = self.settings, len(self.problem.targets)
        forget, whose = self.problem.mixtures(count, generator)
        unseen = round(settings.unseen * count)
        others = self.problem.retain[torch.randint(len(self.problem.retain), (unseen,), generator=generator)]
        # Mixtures come shuffled by person: the first ones are anybody's.
        forget[:unseen] = synthetic_neighbours(forget[:unseen], others, self.unseen_low, 1.0, generator)
        retain = self.problem.retain[torch.randint(len(self.problem.retain), (count,), generator=generator)]
        near = round(self.neighbours * count)
        real = min(self.nearby.count(count), count - near)
        anchors = min(round(settings.anchors * count), count - near - real)
        centres = self.centres[shares(parts, near, generator)]
        retain[:near] = synthetic_neighbours(centres, retain[:near], self.low, self.high, generator)
        retain[near : near + anchors] = self.anchor_embeddings[shares(parts, anchors, generator)]
        retain[near + anchors : near + anchors + real] = self.nearby.draw(real, generator)
        # Shuffled, so that every micro-batch holds its share.
        return DistilInputs(forget, whose, retain[torch.randperm(count, generator=generator)])

    def loss(self, draw: DistilInputs) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean loss over a draw and its terms."""
        embeddings, count = torch.cat([draw.forget, draw.retain]).to(self.device), len(draw.forget)
        with torch.no_grad(), self.model.adapters_disabled():
            before = self._carried(self.model.encode(embeddings))
        after = self._carried(self.model.encode(embeddings))
        target = replacement_target(
            self.anchors[draw.whose.to(self.device)], before[:count], self.settings.eta
        )
        forget = torch.nn.functional.mse_loss(after[:count], target)
        retain = torch.nn.functional.mse_loss(after[count:], before[count:])
        empty = torch.nn.functional.mse_loss(self.encode_empty().float(), self.empty)
        total = forget + self.settings.retain_weight * retain + self.settings.empty_weight * empty
        terms = {"loss": total, "forget": forget, "retain": retain, "empty": empty}
        return total, {name: float(term.detach()) for name, term in terms.items()}

    def check_draw(self, count: int, generator: torch.Generator) -> DistilInputs:
        """Embeddings of the people that were set apart, as they are."""
        forget, whose = self.problem.validation(count, generator)
        return replace(self.draw(count, generator), forget=forget, whose=whose)

    @torch.no_grad()
    def progress_terms(self, draw: DistilInputs) -> tuple[float, float]:
        """How far the forgotten condition has gone from the frozen encoder's own to the target, and how far
        it is.
        """
        embeddings = draw.forget.to(self.device)
        with self.model.adapters_disabled():
            before = self._carried(self.model.encode(embeddings))
        target = replacement_target(self.anchors[draw.whose.to(self.device)], before, self.settings.eta)
        return progress_terms(self._carried(self.model.encode(embeddings)), before, target)

    def _carried(self, conditions: torch.Tensor) -> torch.Tensor:
        """The positions that carry the identity; what comes before them never changes."""
        return conditions[:, self.model.first :].float()


_PAPER = "after PIU, arXiv 2605.22311, in condition space"
# No UNet takes part, so what holds for one base holds for another. A synthetic anchor makes nobody the
# replacement.
_DEFAULTS = {
    "anchor": {"rule": "synthetic"},
    "retain": {"neighbours": 0.5},
    "train": {
        "start": "closed-encoder",
        "steps": 800,
        "batch": 64,
        "accumulation": 1,
        "lr": 2e-3,
        "weight_decay": 0.0,
        "schedule": "cosine",
        "warmup": 20,
        "clip": 1.0,
    },
}


def _rank(config: ForgetConfig, people: int) -> int:
    return config.section_of(DistilConfig).rank_for(people)


_SEARCH = (
    LEARNING_RATE,
    Range("distil.eta", 0.0, 1.0, relative=False, log=False),
    Range("distil.retain_weight", 0.25, 4),
)


@register(
    "distil-encoder",
    "distilled text encoder (LoRA)",
    _PAPER,
    component="text_encoder",
    encoder_rank=_rank,
    settings=DistilConfig,
    defaults=_DEFAULTS,
    search=_SEARCH,
)
def build(problem: Problem, model: TrainedModel, config: ForgetConfig) -> DistilObjective:
    """The replacement objective on a LoRA in every linear layer of the text encoder."""
    return DistilObjective(problem, model, config)


@register(
    "distil-both",
    "distilled text encoder, closed form on keys and values",
    _PAPER,
    component="text_encoder",
    encoder_rank=_rank,
    complete=with_keys_and_values,
    settings=DistilConfig,
    defaults=_DEFAULTS,
    search=_SEARCH,
)
def build_both(problem: Problem, model: TrainedModel, config: ForgetConfig) -> DistilObjective:
    """distil-encoder; then closed-kv, so that neither the edited encoder nor the edited UNet alone still
    generates the person.
    """
    return DistilObjective(problem, model, config)
