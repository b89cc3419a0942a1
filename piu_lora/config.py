"""Every setting of a forget run: frozen, typed, validated; TOML in, JSON out.

The defaults are the paper's (PIU, arXiv 2605.22311, section 4.1) where the paper states one. What was
measured to work on a family of bases stands with the family, in ``piu_lora/model/families/``.
"""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, Strict, model_validator

from piu_lora.settings import Amount, Cosine, Count, ManyStrings, Positive, Settings, Share, out_of_range

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


class SplitConfig(Settings, section="split"):
    """How much is kept back for evaluation."""

    forget_held_out: float = Field(
        0.35,
        ge=0,
        lt=1,
        description="share of the forgotten person's embeddings; 0 evaluates on training embeddings",
    )
    retain_held_out: float = Field(0.10, gt=0, lt=1, description="share of the other identities")
    same_person: float = Field(
        0.7,
        gt=0,
        le=1,
        description="an identity of the bank at least this close (cosine) to a person from outside it is taken "
        "for that person, and left out",
    )


class FacesConfig(Settings, section="faces"):
    """How photographs are read."""

    several: Literal["largest", "only", "all"] = Field(
        "largest", description="of several faces: the largest; refuse the photograph; take all"
    )
    linked: float = Field(
        0.3,
        gt=-1,
        lt=1,
        description="two faces at this cosine are linked, and the largest linked group of a person's photographs "
        "is the person",
    )


class AnchorConfig(Settings, section="anchor"):
    """Whose face replaces the forgotten one."""

    rule: str = Field("proximity", description="how the anchor is chosen")
    tau: Cosine = Field(0.2, description="wanted cosine between the centroids")
    tolerance: float = Field(0.01, gt=0, le=2, description="allowed distance from tau")
    on_empty: Literal["error", "widen"] = Field(
        "error", description="widen: take the candidate closest to tau within max_tolerance"
    )
    max_tolerance: float = Field(0.05, description="of on_empty = widen")
    identity: str = Field("", description='of rule = "fixed": the id in the bank')
    far: float = Field(
        1e-3,
        gt=0,
        lt=1,
        description='of rules "far-safe" and "synthetic": the anchor fails verification as the forgotten person '
        "at this false-accept rate",
    )
    margin: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="by this much of a cosine, since generated faces scatter about the anchor",
    )

    @model_validator(mode="after")
    def _widens(self) -> Self:
        if self.on_empty == "widen" and self.max_tolerance < self.tolerance:
            floor = f"at least anchor.tolerance ({self.tolerance})"
            raise out_of_range("anchor.max_tolerance", self.max_tolerance, floor)
        return self


class LoraConfig(Settings, section="lora"):
    """Where the adapter sits and how large it is. Its scale is baked in: alpha equals rank."""

    rank: Count = 16
    blocks: ManyStrings = Field(
        ("down_blocks.2", "mid_block", "up_blocks.1", "up_blocks.2"),
        min_length=1,
        description="blocks of the UNet",
    )
    projections: Annotated[tuple[Literal["to_k", "to_out.0", "to_q", "to_v"], ...], Strict(False)] = Field(
        ("to_q", "to_k", "to_v", "to_out.0"), min_length=1, description="of the cross-attention"
    )


class ObjectiveConfig(Settings, section="objective"):
    """The terms of the replacement objective."""

    eta: Amount = Field(1.0, description="how far beyond the anchor, away from the forgotten person")
    retain_weight: Amount = Field(10.0, description="lambda, the weight of the preservation term")


class DecoyConfig(Settings, section="decoys"):
    """People of the bank to hide the forgotten one among: the adapter changes them as well, and its weights
    single out nobody.

    It harms them: each becomes somebody at ``cosine`` with themselves. Who they are follows from a seed of
    their own, which no receipt holds: whoever has the bank could draw them again.
    """

    count: int = Field(0, ge=0, description="how many")
    cosine: float = Field(0.5, gt=-1, lt=1, description="of a decoy with whoever replaces them")
    seed: int = Field(
        0, ge=0, lt=2**63, description="a large number that nobody else knows; needed where there are decoys"
    )


class RetainConfig(Settings, section="retain"):
    """What the preservation term sees."""

    neighbours: Share = Field(
        0.0, description="share of synthetic neighbours of the forgotten person in the retain batch"
    )
    neighbour_low: Cosine = Field(0.3, description="their lowest cosine with the forgotten centroid")
    neighbour_high: float = Field(0.7, ge=-1, lt=1, description="their highest")
    near: Share = Field(
        0.0,
        description="share of real people's embeddings among those closest to the forgotten person, in the batch "
        "of a trained method",
    )
    near_pool: Count = Field(64, description="of which these are drawn, for each forgotten person")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.neighbours + self.near > 1:
            raise out_of_range("retain.neighbours + retain.near", self.neighbours + self.near, "1 at most")
        require_band("retain", self.neighbour_low, self.neighbour_high)
        return self


def require_band(section: str, low: float, high: float) -> None:
    """Refuse an empty band of cosines.

    Raises:
        BadInput: low is not below high.
    """
    if low >= high:
        raise out_of_range(f"{section}.neighbour_low/high", (low, high), "-1 <= low < high < 1")


class ClosedConfig(Settings, section="closed"):
    """The ridge regressions of the closed forms; they weigh means over token positions."""

    eta: Amount = Field(0.25, description="how far beyond the anchor; less than in noise space does")
    retain_weight: Positive = Field(30.0, description="of everybody else's conditions")
    empty_weight: Amount = Field(0.05, description="of the empty prompt, beside the retained conditions' 1")
    anchor_weight: Amount = Field(0.2, description="of the anchor's own condition, which would suffer most")
    ridge: Positive = Field(1e-5, description="as a share of the mean diagonal")
    neighbours: float = Field(
        0.4, ge=0, lt=1, description="share of synthetic neighbours among the retained conditions"
    )
    mixtures: Count = Field(32, description="conditions of each forgotten person")
    retained: Count = Field(4096, description="embeddings of the bank that the cached statistics rest on")
    near: Count = Field(2048, description="synthetic neighbours of the forgotten people, together")
    positions: Count = Field(16, description="token positions of a retained condition that are looked at")
    layers: int = Field(0, ge=0, description="of the text encoder, from the last; 0 edits all")
    tolerance: float = Field(1e-4, ge=0, lt=1, description="share of a layer's energy that its rank may lose")
    rank: Count = Field(64, description="the highest allowed")


class DistilConfig(Settings, section="distil"):
    """The replacement objective in condition space."""

    rank: int = Field(0, ge=0, description="0: 32, or 64 for more than 32 people")
    eta: Amount = Field(0.25, description="how far beyond the anchor")
    retain_weight: Amount = Field(10.0, description="of the retained conditions, the anchors' among them")
    empty_weight: Amount = Field(1.0, description="of the empty prompt's condition")
    neighbour_low: Cosine = Field(
        0.2, description="lowest cosine of synthetic neighbours (retain.neighbours) with a forgotten centroid"
    )
    neighbour_high: float = Field(0.7, ge=-1, lt=1, description="their highest")
    anchors: Share = Field(
        0.05,
        description="share of the anchors themselves in the retain batch, as far as neighbours leave room",
    )
    unseen: Share = Field(
        0.5,
        description="share of forget samples turned away from the known photographs, as unseen ones of the "
        "person would be",
    )
    unseen_low: float = Field(0.85, ge=-1, lt=1, description="by a cosine from here to 1")

    @model_validator(mode="after")
    def _has_a_band(self) -> Self:
        require_band("distil", self.neighbour_low, self.neighbour_high)
        return self

    def rank_for(self, people: int) -> int:
        """The rank of an adapter for so many people."""
        return self.rank or (32 if people <= 32 else 64)


class TrainConfig(Settings, section="train"):
    """The optimisation."""

    steps: Count = Field(400, description="of the optimiser")
    batch: Count = Field(16, description="forget and retain conditions each")
    accumulation: Count = Field(2, description="batches in an optimiser step")
    lr: Positive = Field(1e-4, description="learning rate")
    weight_decay: Amount = 0.01
    schedule: Literal["constant", "cosine"] = Field("constant", description="of the learning rate")
    warmup: int = Field(0, ge=0, description="steps in which the learning rate rises")
    clip: Amount = Field(0.0, description="gradient norm; 0 leaves it alone")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="of the frozen weights and the products; adapters stay in fp32"
    )
    micro_batch: Count | Literal["auto"] = Field(
        "auto", description="samples passed at once; auto: a batch, halved when memory runs out"
    )
    gradient_checkpointing: bool = Field(
        False, description="activations are computed again instead of being kept"
    )
    compile: bool = Field(
        False, description="torch.compile of the UNet's blocks; pays off in long runs on a GPU"
    )
    checkpoint_every: Count = Field(50, description="steps between two checkpoints")
    start: str = Field("", description="a closed form whose change training starts from; empty: from nothing")
    stop_at: Amount = Field(
        0.0,
        description="end when the forgotten person's prediction has gone this share of the distance to its "
        "target; 0: never early",
    )
    check_every: Count = Field(5, description="steps between two measurements of that share")
    check_samples: Count = Field(16, description="that it is measured on, always the same ones")
    patience: Count = Field(4, description="measurements without a rise after which training ends too")
    cooldown: int = Field(
        8, ge=0, description="steps that follow the stop, while the learning rate falls to zero"
    )


class EvaluationConfig(Settings, section="evaluation"):
    """What is generated to score the adapter; the same conditions and seeds before and after."""

    forget_images: Count = 25
    retain_images: Count = 25
    nearest: Count = Field(10, description="nearest neighbours of the forgotten person, two images each")
    anchor_images: Count = 5
    steps: Count = Field(25, description="of DPM-Solver++")
    guidance: float = Field(3.0, ge=1, description="scale of classifier-free guidance")
    batch: Count = Field(16, description="images at once")


class ReportConfig(Settings, section="report"):
    """What ``evaluate`` generates beyond the evaluation of the receipt."""

    leak_images: int = Field(
        64, ge=0, description="of the forgotten people in all, for Leak@k and the rates of verification"
    )
    sweep_images: int = Field(
        8,
        ge=0,
        description="of forgotten and of retained people each, at every point of a sweep; 0 leaves the sweeps out",
    )
    guidance: Annotated[tuple[Annotated[float, Field(ge=1)], ...], Strict(False)] = Field(
        (1.5, 2.0, 4.5, 6.0), description="swept beside evaluation.guidance"
    )
    steps: Annotated[tuple[Count, ...], Strict(False)] = Field(
        (5, 10, 30), description="swept beside evaluation.steps"
    )
    weights: Annotated[tuple[Annotated[float, Field(ge=0, le=4)], ...], Strict(False)] = Field(
        (0.25, 0.5, 0.75, 1.25, 1.5), description="of the adapter, swept beside 0 and 1"
    )
    precision: bool = Field(True, description="half precision beside the base's own")
    mixtures: bool = Field(True, description="Dirichlet mixtures beside held-out embeddings")


class ForgetConfig(Settings):
    """All of it."""

    method: str = Field("piu", description="of forgetting, by name")
    seed: int = Field(42, ge=0, lt=2**31, description="of every random draw")
    faces: FacesConfig = FacesConfig()
    split: SplitConfig = SplitConfig()
    anchor: AnchorConfig = AnchorConfig()
    lora: LoraConfig = LoraConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    retain: RetainConfig = RetainConfig()
    decoys: DecoyConfig = DecoyConfig()
    closed: ClosedConfig = ClosedConfig()
    distil: DistilConfig = DistilConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

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
