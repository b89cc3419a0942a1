"""distil-encoder: the replacement objective in condition space, for many people in one adapter."""

from dataclasses import dataclass, replace
from typing import Self

import torch

from piu_lora.config import ForgetConfig
from piu_lora.identity import synthetic_neighbours
from piu_lora.unlearn.closed.methods import with_keys_and_values
from piu_lora.unlearn.piu import replacement_target
from piu_lora.unlearn.registry import Nearby, Problem, TrainedModel, register, shares
from piu_lora.unlearn.stopping import progress_terms

__all__ = ["DistilDraw", "DistilObjective"]


@dataclass(frozen=True)
class DistilDraw:
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
        self.problem, self.model, self.settings = problem, model, config.distil
        self.encode_empty, self.neighbours = model.encode_empty, config.retain.neighbours
        self.nearby = Nearby(problem, config.retain.near, config.retain.near_pool)
        self.device = next(model.unet.parameters()).device
        self.centres, self.anchor_embeddings = problem.centres, problem.anchors
        with torch.no_grad(), model.adapters_disabled():
            self.anchors = self._carried(model.encode(self.anchor_embeddings.to(self.device)))
            self.empty = self.encode_empty().float()

    def draw(self, count: int, generator: torch.Generator) -> DistilDraw:
        """Forget: mixtures, the people in equal shares, some turned towards strangers. Retain: real people,
        synthetic neighbours, anchors.

        All drawn by the generator, on the CPU.
        """
        settings, parts = self.settings, len(self.problem.targets)
        forget, whose = self.problem.mixtures(count, generator)
        unseen = round(settings.unseen * count)
        others = self.problem.retain[torch.randint(len(self.problem.retain), (unseen,), generator=generator)]
        # Mixtures come shuffled by person: the first ones are anybody's.
        forget[:unseen] = synthetic_neighbours(forget[:unseen], others, settings.unseen_low, 1.0, generator)
        retain = self.problem.retain[torch.randint(len(self.problem.retain), (count,), generator=generator)]
        near = round(self.neighbours * count)
        real = min(self.nearby.count(count), count - near)
        anchors = min(round(settings.anchors * count), count - near - real)
        centres = self.centres[shares(parts, near, generator)]
        retain[:near] = synthetic_neighbours(
            centres, retain[:near], settings.neighbour_low, settings.neighbour_high, generator
        )
        retain[near : near + anchors] = self.anchor_embeddings[shares(parts, anchors, generator)]
        retain[near + anchors : near + anchors + real] = self.nearby.draw(real, generator)
        # Shuffled, so that every micro-batch holds its share.
        return DistilDraw(forget, whose, retain[torch.randperm(count, generator=generator)])

    def loss(self, draw: DistilDraw) -> tuple[torch.Tensor, dict[str, float]]:
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

    def check_draw(self, count: int, generator: torch.Generator) -> DistilDraw:
        """Embeddings of the people that were set apart, as they are."""
        forget, whose = self.problem.validation(count, generator)
        return replace(self.draw(count, generator), forget=forget, whose=whose)

    @torch.no_grad()
    def progress_terms(self, draw: DistilDraw) -> tuple[float, float]:
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


@register("distil-encoder", label="distilled text encoder (LoRA)", paper=_PAPER, component="text_encoder")
def build(problem: Problem, model: TrainedModel, config: ForgetConfig) -> DistilObjective:
    """The replacement objective on a LoRA in every linear layer of the text encoder."""
    return DistilObjective(problem, model, config)


@register(
    "distil-both", label="distilled text encoder, closed form on keys and values", paper=_PAPER, component="text_encoder",
    complete=with_keys_and_values,
)  # fmt: skip
def build_both(problem: Problem, model: TrainedModel, config: ForgetConfig) -> DistilObjective:
    """distil-encoder; then closed-kv, so that neither the edited encoder nor the edited UNet alone still
    generates the person.
    """
    return DistilObjective(problem, model, config)
