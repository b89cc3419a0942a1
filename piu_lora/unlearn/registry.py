"""The methods of forgetting: each owns its objective and is found by name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeVar, Unpack, runtime_checkable

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from piu_lora.config import ForgetConfig
from piu_lora.identity import centroid, dirichlet_mixtures
from piu_lora.identity.geometry import Geometry
from piu_lora.identity.profiles import GENERIC
from piu_lora.model.factors import Factors
from piu_lora.plugins import registered_as
from piu_lora.settings import Settings
from piu_lora.unlearn.dial import ADAPTER_WEIGHT, LEARNING_RATE, Dial, Range, Tuning
from piu_lora.unlearn.shares import shares

__all__ = [
    "METHODS",
    "Measurement",
    "Method",
    "Objective",
    "Problem",
    "Rows",
    "Solution",
    "SolveContext",
    "StepInputs",
    "TargetIdentity",
    "TracksProgress",
    "TrainedModel",
    "closed_form",
    "find_method",
    "register",
    "shares",
    "unread_settings",
]


class StepInputs(Protocol):
    """The random inputs of one optimiser step; slices are micro-batches."""

    def __getitem__(self, rows: slice) -> Self: ...


D = TypeVar("D", bound=StepInputs)


class Objective(Protocol[D]):
    """What the training loop minimises."""

    def draw(self, count: int, generator: torch.Generator) -> D:
        """The inputs of a step with ``count`` samples."""

    def loss(self, draw: D) -> tuple[torch.Tensor, dict[str, float]]:
        """The mean loss over a draw, and its terms for the log."""


@runtime_checkable
class TracksProgress(Protocol[D]):
    """An objective that can say how far the forgotten people have come, so that training may end early."""

    def check_draw(self, count: int, generator: torch.Generator) -> D:
        """``count`` samples of embeddings that were set apart from training; where there are none, as a step
        draws them.
        """

    def progress_terms(self, draw: D) -> tuple[float, float]:
        """``<now - before, target - before>`` and ``|target - before|^2`` over a draw; both add up over
        micro-batches.
        """


class Rows(Protocol):
    """Embeddings by index: a tensor (m, d), or a bank's rows that are read only where they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class TargetIdentity:
    """One person to forget, and who replaces them: unit embeddings, on the CPU."""

    forget: torch.Tensor  # (n, d) training embeddings
    anchor: torch.Tensor  # (d,)
    validation: torch.Tensor | None = None  # (k, d) set apart from training to measure its progress

    @classmethod
    def with_validation(cls, forget: torch.Tensor, anchor: torch.Tensor) -> Self:
        """Set a quarter apart, one at least; nothing of fewer than three."""
        train = len(forget) - max(len(forget) // 4, 1)
        return cls(forget[:train], anchor, forget[train:]) if len(forget) >= 3 else cls(forget, anchor)

    @property
    def centre(self) -> torch.Tensor:
        """(d,) unit centroid of the training embeddings."""
        return centroid(self.forget)


@dataclass(frozen=True)
class Problem:
    """Who is forgotten, and who stays."""

    targets: tuple[TargetIdentity, ...]
    retain: Rows  # (m, d) training embeddings of everybody else

    @classmethod
    def of_one(cls, forget: torch.Tensor, anchor: torch.Tensor, retain: Rows) -> Self:
        """One person: training embeddings (n, d), their anchor (d,)."""
        return cls((TargetIdentity(forget, anchor),), retain)

    @property
    def anchors(self) -> torch.Tensor:
        """(k, d), in the order of the targets."""
        return torch.stack([target.anchor for target in self.targets])

    @property
    def centres(self) -> torch.Tensor:
        """(k, d) unit centroids, in the order of the targets."""
        return torch.stack([target.centre for target in self.targets])

    @property
    def fewest_photographs(self) -> int:
        """Training embeddings of the target with the fewest."""
        return min(len(target.forget) for target in self.targets)

    def mixtures(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Dirichlet mixtures (count, d), the targets in equal shares, and the target of each, (count,)."""
        return self._mixed([target.forget for target in self.targets], count, generator)

    def validation(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of the embeddings that were set apart; of the training ones where none were."""
        return self._mixed(
            [target.forget if target.validation is None else target.validation for target in self.targets],
            count,
            generator,
        )

    def nearest(self, count: int, block: int = 65_536) -> torch.Tensor:
        """(k, count) places in ``retain`` of the embeddings closest to each target's centre; fewer where
        there are not so many.
        """
        best, places = torch.empty(len(self.targets), 0), torch.empty(len(self.targets), 0, dtype=torch.long)
        for rows in torch.arange(len(self.retain)).split(block):
            cosines = torch.cat([best, self.centres @ self.retain[rows].T], dim=1)
            best, chosen = cosines.topk(min(count, cosines.shape[1]), dim=1)
            places = torch.cat([places, rows.expand(len(self.targets), -1)], dim=1).gather(1, chosen)
        return places

    def _mixed(
        self, sources: list[torch.Tensor], count: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        whose = shares(len(sources), count, generator)
        mixed = torch.empty(count, sources[0].shape[1])
        for source in whose.unique().tolist():
            rows = whose == source
            mixed[rows] = dirichlet_mixtures(sources[source], int(rows.sum()), generator)
        return mixed, whose


@dataclass(frozen=True)
class TrainedModel:
    """The model under training, as plain parts; the adapter sits in the part that the method trains."""

    unet: UNet2DConditionModel
    encode: Callable[[torch.Tensor], torch.Tensor]  # (n, d) embeddings -> (n, length, hidden) conditions
    adapters_disabled: Callable[[], AbstractContextManager[None]]
    add_noise: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    timesteps: int  # of the noise schedule the base was trained with
    # For objectives in condition space:
    encode_empty: Callable[[], torch.Tensor] | None = (
        None  # the empty prompt's condition, (1, length, hidden)
    )
    first: int = 0  # the first token position that carries the identity


@dataclass(frozen=True)
class Measurement:
    """Figures of embeddings that add up over people, so that they can be cached for a whole bank.

    Attributes:
        name: tells this measurement, with all its settings, from every other on the same base.
        samples: how many embeddings it is taken on.
        sums: embeddings (n, d) to float64 sums over them, by name.
    """

    name: str
    samples: int
    sums: Callable[[torch.Tensor], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class SolveContext:
    """What a closed form stands on.

    Attributes:
        pipe: the bare base; given back as it was.
        retained: modules -> ``E[x x^T]`` by module, (in, in) float64, of what they see under everybody else's
            conditions; one layer that sees the condition stands for all that do. What it returns is the
            caller's own, to be changed in place.
        geometry: how photographs of one person scatter and how near other people come, measured on the bank
            without the people to forget; a shipped profile by default.
        averages: means over everybody else of what a measurement gives, computed once for a base and a bank;
            None where nothing is cached, and the method measures for itself.
    """

    pipe: StableDiffusionPipeline
    retained: Callable[[Sequence[str]], dict[str, torch.Tensor]]
    geometry: Callable[[], Geometry] = lambda: GENERIC
    averages: Callable[["Measurement"], dict[str, torch.Tensor]] | None = None


@dataclass(frozen=True)
class Solution:
    """A finished change, and what is worth knowing of the systems that gave it."""

    change: Mapping[str, Factors]
    facts: dict[str, Any] = field(default_factory=dict)


Build = Callable[[Problem, TrainedModel, ForgetConfig], Objective[Any]]
Solve = Callable[[Problem, SolveContext, ForgetConfig], Solution]
Rank = Callable[[ForgetConfig, int], int]
Complete = Callable[[Problem, SolveContext, ForgetConfig, Mapping[str, Factors]], Solution]


@dataclass(frozen=True)
class Method:
    """A registered method: an objective to train, or a closed form.

    Attributes:
        component: what an objective trains.
        complete: what is added, in closed form, to a trained change.
        additive: whether adapters that were made one by one add up, each doing what it does alone.
        encoder_rank: of a text-encoder adapter for so many people; ``lora.rank`` where there is none.
        dial: what makes it forget more or less.
        search: its decisive settings, for ``tune``.
    """

    name: str
    label: str
    paper: str
    build: Build | None = None
    solve: Solve | None = None
    component: Literal["unet", "text_encoder"] = "unet"
    complete: Complete | None = None
    additive: bool = False
    encoder_rank: Rank | None = None
    dial: Dial = ADAPTER_WEIGHT
    search: tuple[Range, ...] = ()


METHODS: dict[str, Method] = {}


class TrainedTuning(Tuning, total=False):
    """The same of a method that trains, and ``Method.encoder_rank``."""

    encoder_rank: Rank


def register(
    name: str,
    label: str,
    paper: str,
    *,
    component: Literal["unet", "text_encoder"] = "unet",
    complete: Complete | None = None,
    settings: type[Settings] | None = None,
    defaults: Mapping[str, Any] | None = None,
    **more: Unpack[TrainedTuning],
) -> Callable[[Build], Build]:
    """Add a trained method to the registry.

    Args:
        name: what ``--method`` and receipts call it.
        label: what tables call it.
        paper: where it comes from.
        component: what is trained.
        complete: what is added to the trained change in closed form.
        settings: its section of ``ForgetConfig``.
        defaults: nested settings that it prefers to the common defaults.
        more: ``dial``, ``search`` and ``encoder_rank``, as in ``Method``.
    """

    def decorate(build: Build) -> Build:
        ForgetConfig.register_method(name, settings, defaults)
        METHODS[name] = Method(
            name,
            label,
            paper,
            build,
            component=component,
            complete=complete,
            encoder_rank=more.get("encoder_rank"),
            dial=more.get("dial", ADAPTER_WEIGHT),
            search=tuple(more.get("search", (LEARNING_RATE,))),
        )
        return build

    return decorate


def closed_form(
    name: str,
    label: str,
    paper: str,
    *,
    settings: type[Settings] | None = None,
    defaults: Mapping[str, Any] | None = None,
    additive: bool = False,
    dial: Dial = ADAPTER_WEIGHT,
    search: Sequence[Range] = (),
) -> Callable[[Solve], Solve]:
    """Add a method that needs no training to the registry; the arguments are those of ``register``.

    Args:
        additive, dial, search: as in ``Method``.
    """

    def decorate(solve: Solve) -> Solve:
        ForgetConfig.register_method(name, settings, defaults)
        METHODS[name] = Method(
            name, label, paper, solve=solve, additive=additive, dial=dial, search=tuple(search)
        )
        return solve

    return decorate


def unread_settings(method: str, keys: Iterable[str]) -> list[str]:
    """Of settings (``section.key``), those of a training that a closed form leaves unread."""
    if find_method(method).solve is None:
        return []
    read = {"train.precision", "lora.blocks"}
    return [key for key in keys if key.partition(".")[0] in ("train", "lora") and key not in read]


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        BadInput: unknown; the message lists the known ones.
    """
    return registered_as(name, METHODS, "method")
