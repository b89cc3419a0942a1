"""Every setting of a forget run: frozen, typed, validated; TOML in, TOML out.

The defaults are the paper's (PIU, arXiv 2605.22311, section 4.1) where the paper states one. What was
measured to work on a family of bases stands with the family, in ``piu_lora/model/families/``.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

from piu_lora.settings import Settings, require

__all__ = [
    "METHOD_PRESETS",
    "AnchorConfig",
    "ClosedConfig",
    "DecoyConfig",
    "DistilConfig",
    "EvaluationConfig",
    "FacesConfig",
    "ForgetConfig",
    "HasPresets",
    "LoraConfig",
    "ObjectiveConfig",
    "ReportConfig",
    "RetainConfig",
    "SplitConfig",
    "TrainConfig",
]


@dataclass(frozen=True)
class SplitConfig:
    """How much is kept back for evaluation."""

    forget_held_out: float = (
        0.35  # share of the forgotten person's embeddings; 0 evaluates on training embeddings
    )
    retain_held_out: float = 0.10  # share of the other identities
    same_person: float = (
        0.7  # someone of the bank this close to a person from outside it is taken for them, and left out
    )

    def __post_init__(self) -> None:
        require(
            0 <= self.forget_held_out < 1, "split.forget_held_out", self.forget_held_out, "0 <= share < 1"
        )
        require(0 < self.retain_held_out < 1, "split.retain_held_out", self.retain_held_out, "0 < share < 1")
        require(0 < self.same_person <= 1, "split.same_person", self.same_person, "0 < cosine <= 1")


@dataclass(frozen=True)
class FacesConfig:
    """How photographs are read."""

    several: Literal["largest", "only", "all"] = (
        "largest"  # of several faces: the largest; refuse the photograph; take all
    )
    linked: float = 0.3  # two faces this close are linked, and the largest linked group of a person's photographs is the person

    def __post_init__(self) -> None:
        require(-1 < self.linked < 1, "faces.linked", self.linked, "-1 < cosine < 1")


@dataclass(frozen=True)
class AnchorConfig:
    """Whose face replaces the forgotten one."""

    rule: str = "proximity"
    tau: float = 0.2  # wanted cosine between the centroids
    tolerance: float = 0.01
    on_empty: Literal["error", "widen"] = "error"  # widen: the candidate closest to tau within max_tolerance
    max_tolerance: float = 0.05
    identity: str = ""  # rule "fixed": the bank id to use
    far: float = 1e-3  # rules "far-safe" and "synthetic": the anchor fails verification as the forgotten person at this false-accept rate
    margin: float = 0.05  # by this much of a cosine: generated faces scatter about the anchor

    def __post_init__(self) -> None:
        require(-1 <= self.tau <= 1, "anchor.tau", self.tau, "a cosine in [-1, 1]")
        require(0 < self.tolerance <= 2, "anchor.tolerance", self.tolerance, "0 < tolerance <= 2")
        require(0 < self.far < 1, "anchor.far", self.far, "0 < rate < 1")
        require(0 <= self.margin < 1, "anchor.margin", self.margin, "0 <= cosine < 1")
        if self.on_empty == "widen":
            floor = f"at least anchor.tolerance ({self.tolerance})"
            require(self.max_tolerance >= self.tolerance, "anchor.max_tolerance", self.max_tolerance, floor)


@dataclass(frozen=True)
class LoraConfig:
    """Where the adapter sits and how large it is. Its scale is baked in: alpha equals rank."""

    rank: int = 16
    blocks: tuple[str, ...] = ("down_blocks.2", "mid_block", "up_blocks.1", "up_blocks.2")
    projections: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    def __post_init__(self) -> None:
        require(self.rank >= 1, "lora.rank", self.rank, "a rank of 1 or more")
        require(len(self.blocks) > 0, "lora.blocks", self.blocks, "at least one block of the UNet")
        known = {"to_q", "to_k", "to_v", "to_out.0"}
        require(
            len(self.projections) > 0 and set(self.projections) <= known,
            "lora.projections",
            self.projections,
            f"some of {sorted(known)}",
        )


@dataclass(frozen=True)
class ObjectiveConfig:
    """The terms of the replacement objective."""

    eta: float = 1.0  # how far beyond the anchor, away from the forgotten person
    retain_weight: float = 10.0  # lambda

    def __post_init__(self) -> None:
        require(self.eta >= 0, "objective.eta", self.eta, "0 or more")
        require(self.retain_weight >= 0, "objective.retain_weight", self.retain_weight, "0 or more")


@dataclass(frozen=True)
class DecoyConfig:
    """People of the bank to hide the forgotten one among: the adapter changes them as well, and its weights
    single out nobody.

    It harms them: each becomes somebody at ``cosine`` with themselves. Who they are follows from a seed of
    their own, which no receipt
    holds: whoever has the bank could draw them again.
    """

    count: int = 0
    cosine: float = 0.5
    seed: int = 0  # a large number that nobody else knows; needed where there are decoys

    def __post_init__(self) -> None:
        require(self.count >= 0, "decoys.count", self.count, "0 or more")
        require(0 <= self.seed < 2**63, "decoys.seed", self.seed, "0 <= seed < 2**63")
        require(-1 < self.cosine < 1, "decoys.cosine", self.cosine, "-1 < cosine < 1")


@dataclass(frozen=True)
class RetainConfig:
    """What the preservation term sees."""

    neighbours: float = 0.0  # share of synthetic neighbours of the forgotten person in the retain batch
    neighbour_low: float = 0.3  # their cosine with the forgotten centroid
    neighbour_high: float = 0.7
    near: float = 0.0  # share of real people's embeddings among those closest to the forgotten person, in the batch of a trained method
    near_pool: int = 64  # of which these are drawn, for each forgotten person

    def __post_init__(self) -> None:
        for name in ("neighbours", "near"):
            require(0 <= getattr(self, name) <= 1, f"retain.{name}", getattr(self, name), "a share in [0, 1]")
        share = self.neighbours + self.near
        require(share <= 1, "retain.neighbours + retain.near", share, "1 at most")
        require(self.near_pool >= 1, "retain.near_pool", self.near_pool, "1 or more")
        span = (self.neighbour_low, self.neighbour_high)
        require(-1 <= span[0] < span[1] < 1, "retain.neighbour_low/high", span, "-1 <= low < high < 1")


@dataclass(frozen=True)
class ClosedConfig:
    """The ridge regressions of the closed forms; they weigh means over token positions."""

    eta: float = 0.25  # how far beyond the anchor; less than in noise space does
    retain_weight: float = 30.0  # of everybody else's conditions
    empty_weight: float = 0.05  # of the empty prompt, beside the retained conditions' 1
    anchor_weight: float = 0.2  # of the anchor's own condition, who would suffer most
    ridge: float = 1e-5  # as a share of the mean diagonal
    neighbours: float = 0.4  # share of synthetic neighbours among the retained conditions
    mixtures: int = 32  # conditions of each forgotten person
    retained: int = 4096  # embeddings of the bank that the cached statistics rest on
    near: int = 2048  # synthetic neighbours of the forgotten people, together
    positions: int = 16  # token positions of a retained condition that are looked at
    layers: int = 0  # of the text encoder, from the last; 0 edits all
    tolerance: float = 1e-4  # share of a layer's energy that its rank may lose
    rank: int = 64  # the highest allowed

    def __post_init__(self) -> None:
        for name in ("eta", "empty_weight", "anchor_weight", "layers"):
            require(getattr(self, name) >= 0, f"closed.{name}", getattr(self, name), "0 or more")
        for name in ("retain_weight", "ridge"):
            require(getattr(self, name) > 0, f"closed.{name}", getattr(self, name), "more than 0")
        for name in ("mixtures", "retained", "near", "positions", "rank"):
            require(getattr(self, name) >= 1, f"closed.{name}", getattr(self, name), "1 or more")
        require(0 <= self.neighbours < 1, "closed.neighbours", self.neighbours, "a share in [0, 1)")
        require(0 <= self.tolerance < 1, "closed.tolerance", self.tolerance, "a share in [0, 1)")


@dataclass(frozen=True)
class DistilConfig:
    """The replacement objective in condition space."""

    rank: int = 0  # 0: 32, or 64 for more than 32 people
    eta: float = 0.25  # how far beyond the anchor
    retain_weight: float = 10.0  # of the retained conditions, the anchors' among them
    empty_weight: float = 1.0  # of the empty prompt's condition
    neighbour_low: float = 0.2  # cosine of synthetic neighbours (retain.neighbours) with a forgotten centroid
    neighbour_high: float = 0.7
    anchors: float = (
        0.05  # share of the anchors themselves in the retain batch, as far as neighbours leave room
    )
    unseen: float = 0.5  # share of forget samples turned away from the known photographs, as unseen ones of the person would be
    unseen_low: float = 0.85  # by a cosine from here to 1

    def __post_init__(self) -> None:
        for name in ("rank", "eta", "retain_weight", "empty_weight"):
            require(getattr(self, name) >= 0, f"distil.{name}", getattr(self, name), "0 or more")
        require(0 <= self.unseen <= 1, "distil.unseen", self.unseen, "a share in [0, 1]")
        require(-1 <= self.unseen_low < 1, "distil.unseen_low", self.unseen_low, "a cosine in [-1, 1)")
        require(0 <= self.anchors <= 1, "distil.anchors", self.anchors, "a share in [0, 1]")
        span = (self.neighbour_low, self.neighbour_high)
        require(-1 <= span[0] < span[1] < 1, "distil.neighbour_low/high", span, "-1 <= low < high < 1")

    def rank_for(self, people: int) -> int:
        """The rank of an adapter for so many people."""
        return self.rank or (32 if people <= 32 else 64)


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation."""

    steps: int = 400
    batch: int = 16  # forget and retain conditions each
    accumulation: int = 2  # batches in an optimiser step
    lr: float = 1e-4
    weight_decay: float = 0.01
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    clip: float = 0.0  # gradient norm; 0 leaves it alone
    precision: Literal["fp32", "bf16", "fp16"] = (
        "fp32"  # of the frozen weights and the products; adapters stay in fp32
    )
    micro_batch: int | Literal["auto"] = (
        "auto"  # samples passed at once; auto: a batch, halved when memory runs out
    )
    gradient_checkpointing: bool = False  # activations are computed again instead of being kept
    compile: bool = False  # torch.compile of the UNet's blocks; pays off in long runs on a GPU
    checkpoint_every: int = 50
    start: str = ""  # a closed form whose change training starts from; empty: from nothing
    stop_at: float = 0.0  # end when the forgotten person's prediction has gone this share of its way (1: at the target); 0: never early
    check_every: int = 5  # steps between two looks at that share
    check_samples: int = 16  # that it is measured on, always the same ones
    patience: int = 4  # looks without a rise after which training ends too
    cooldown: int = 8  # steps that follow the stop, while the learning rate falls to zero

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch",
            "accumulation",
            "checkpoint_every",
            "check_every",
            "check_samples",
            "patience",
        ):
            require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "1 or more")
        if self.micro_batch != "auto":
            require(self.micro_batch >= 1, "train.micro_batch", self.micro_batch, "auto, or 1 or more")
        require(self.lr > 0, "train.lr", self.lr, "more than 0")
        require(self.weight_decay >= 0, "train.weight_decay", self.weight_decay, "0 or more")
        require(self.warmup >= 0, "train.warmup", self.warmup, "0 or more")
        require(self.clip >= 0, "train.clip", self.clip, "0 or more")
        require(self.stop_at >= 0, "train.stop_at", self.stop_at, "0 or more")
        require(self.cooldown >= 0, "train.cooldown", self.cooldown, "0 or more")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is generated to score the adapter; the same conditions and seeds before and after."""

    forget_images: int = 25
    retain_images: int = 25
    nearest: int = 10  # nearest neighbours of the forgotten person, two images each
    anchor_images: int = 5
    steps: int = 25  # DPM-Solver++ steps
    guidance: float = 3.0
    batch: int = 16

    def __post_init__(self) -> None:
        for name in ("forget_images", "retain_images", "nearest", "anchor_images", "steps", "batch"):
            require(getattr(self, name) >= 1, f"evaluation.{name}", getattr(self, name), "1 or more")
        require(self.guidance >= 1, "evaluation.guidance", self.guidance, "1 or more")


@dataclass(frozen=True)
class ReportConfig(Settings):
    """What ``evaluate`` generates beyond the evaluation of the receipt."""

    leak_images: int = 64  # of the forgotten people in all, for Leak@k and the rates of verification
    sweep_images: int = (
        8  # of forgotten and of retained people each, at every point of a sweep; 0 leaves the sweeps out
    )
    guidance: tuple[float, ...] = (1.5, 2.0, 4.5, 6.0)  # beside evaluation.guidance
    steps: tuple[int, ...] = (5, 10, 30)  # beside evaluation.steps
    weights: tuple[float, ...] = (0.25, 0.5, 0.75, 1.25, 1.5)  # of the adapter, beside 0 and 1
    precision: bool = True  # half precision beside the base's own
    mixtures: bool = True  # Dirichlet mixtures beside held-out embeddings

    def __post_init__(self) -> None:
        for name in ("leak_images", "sweep_images"):
            require(getattr(self, name) >= 0, f"report.{name}", getattr(self, name), "0 or more")
        require(
            all(value >= 1 for value in self.guidance),
            "report.guidance",
            self.guidance,
            "scales of 1 or more",
        )
        require(all(value >= 1 for value in self.steps), "report.steps", self.steps, "1 or more each")
        require(
            all(0 <= value <= 4 for value in self.weights),
            "report.weights",
            self.weights,
            "weights from 0 to 4",
        )


@dataclass(frozen=True)
class ForgetConfig(Settings):
    """All of it."""

    method: str = "piu"
    seed: int = 42
    faces: FacesConfig = field(default_factory=FacesConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    anchor: AnchorConfig = field(default_factory=AnchorConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    retain: RetainConfig = field(default_factory=RetainConfig)
    decoys: DecoyConfig = field(default_factory=DecoyConfig)
    closed: ClosedConfig = field(default_factory=ClosedConfig)
    distil: DistilConfig = field(default_factory=DistilConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**31, "seed", self.seed, "0 <= seed < 2**31")

    @classmethod
    def preset(cls, family: "HasPresets", method: str = "piu") -> Self:
        """The measured defaults of a family of bases and a method; the paper's where there are none."""
        presets = family.presets
        layers = (presets.get("", {}), METHOD_PRESETS.get(method, {}), presets.get(method, {}))
        return functools.reduce(cls.updated, layers, cls(method=method))


class HasPresets(Protocol):
    """A family of bases, as far as its settings go."""

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """Nested settings by method; under the empty name what holds for every method."""


# In condition space no UNet takes part, so what holds for one base holds for another. A synthetic anchor
# makes nobody the replacement.
_CLOSED: dict[str, Any] = {"anchor": {"rule": "synthetic"}}
_DISTIL: dict[str, Any] = {
    "anchor": {"rule": "synthetic"},
    "retain": {"neighbours": 0.5},
    "train": {
        "start": "closed-encoder", "steps": 800, "batch": 64, "accumulation": 1, "lr": 2e-3, "weight_decay": 0.0, "schedule": "cosine",
        "warmup": 20, "clip": 1.0,
    },
}  # fmt: skip
METHOD_PRESETS: dict[str, dict[str, Any]] = {
    "closed-kv": _CLOSED, "closed-encoder": _CLOSED, "closed-both": _CLOSED, "distil-encoder": _DISTIL, "distil-both": _DISTIL,
    "piu-warm": {"train": {"start": "closed-kv", "steps": 100}},
}  # fmt: skip
