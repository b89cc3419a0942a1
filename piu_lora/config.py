"""The settings of a forget run that all methods share: frozen, typed, validated; TOML in, JSON out. A
method's own settings stand beside the method and are registered with it.

The defaults are the paper's (PIU, arXiv 2605.22311, section 4.1) where the paper states one. What was
measured to work on a family of bases stands with the family, in ``piu_lora/model/families/``.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import Field, Strict, model_validator

from piu_lora.settings import (
    Amount,
    Auto,
    Cosine,
    Count,
    ManyStrings,
    Positive,
    SectionedSettings,
    Settings,
    Share,
    out_of_range,
)

__all__ = [
    "DEFAULT_METHOD",
    "AnchorConfig",
    "DecoyConfig",
    "EvaluationConfig",
    "FacesConfig",
    "ForgetConfig",
    "HasPresets",
    "LoraConfig",
    "ReportConfig",
    "RetainConfig",
    "SplitConfig",
    "TrainConfig",
    "require_band",
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
    same_person: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        "auto",
        description="an identity of the bank at least this close (cosine) to the person is taken for that "
        "person under another id, and left out; auto: by the bank's geometry",
    )


class FacesConfig(Settings, section="faces"):
    """How photographs are read."""

    several: Literal["largest", "only", "all"] = Field(
        "largest", description="of several faces: the largest; refuse the photograph; take all"
    )
    linked: Annotated[float, Field(gt=-1, lt=1)] | Auto = Field(
        "auto",
        description="two faces at this cosine are linked, and the largest linked group of a person's "
        "photographs is the person; auto: by the bank's geometry",
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
        description='of rules "far-safe" and "synthetic": the anchor fails verification as the forgotten '
        "person at this false-accept rate",
    )
    margin: Annotated[float, Field(ge=0, lt=1)] | Auto = Field(
        "auto",
        description="by this much of a cosine, since generated faces scatter about the anchor; auto: by the "
        "bank's geometry",
    )
    band: Annotated[float, Field(ge=0, lt=1)] | Auto = Field(
        "auto",
        description='of rule "far-safe": how far below that an anchor is preferred; auto: by the bank\'s '
        "geometry",
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


class DecoyConfig(Settings, section="decoys"):
    """People of the bank to hide the forgotten one among: the adapter changes them as well, and its weights
    single out nobody.

    It harms them: each becomes somebody at ``cosine`` with themselves. Who they are follows from a seed of
    their own, which no receipt holds: whoever has the bank could draw them again.
    """

    count: int = Field(0, ge=0, description="how many")
    cosine: Annotated[float, Field(gt=-1, lt=1)] | Auto = Field(
        "auto", description="of a decoy with whoever replaces them; auto: by the bank's geometry"
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="a large number that nobody else knows; needed where there are decoys"
    )


class RetainConfig(Settings, section="retain"):
    """What the preservation term sees."""

    neighbours: Share = Field(
        0.0, description="share of synthetic neighbours of the forgotten person in the retain batch"
    )
    neighbour_low: Cosine | Auto = Field(
        "auto", description="their lowest cosine with the forgotten centroid; auto: by the bank's geometry"
    )
    neighbour_high: Annotated[float, Field(ge=-1, lt=1)] | Auto = Field(
        "auto", description="their highest; auto: outside the person's own photographs' reach"
    )
    near: Share = Field(
        0.0,
        description="share of real people's embeddings among those closest to the forgotten person, in the "
        "batch of a trained method",
    )
    near_pool: Count = Field(64, description="of which these are drawn, for each forgotten person")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.neighbours + self.near > 1:
            raise out_of_range("retain.neighbours + retain.near", self.neighbours + self.near, "1 at most")
        require_band("retain", self.neighbour_low, self.neighbour_high)
        return self


def require_band(section: str, low: float | str, high: float | str) -> None:
    """Refuse an empty band of cosines; one that is still to follow from the geometry is none.

    Raises:
        BadInput: low is not below high.
    """
    if not isinstance(low, str) and not isinstance(high, str) and low >= high:
        raise out_of_range(f"{section}.neighbour_low/high", (low, high), "-1 <= low < high < 1")


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
        description="of forgotten and of retained people each, at every point of a sweep; 0: no sweeps",
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


class HasPresets(Protocol):
    """A family of bases, as far as its settings go."""

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """Nested settings by method; under the empty name what holds for every method."""


@dataclass(frozen=True)
class _MethodSettings:
    """What a method registers of its settings."""

    section: type[Settings] | None
    defaults: Mapping[str, Any]


DEFAULT_METHOD = "gate-encoder"  # what measures best: docs/results.md


class ForgetConfig(SectionedSettings, package="piu_lora.unlearn"):
    """All settings of a forget run: the common ones here, and a section of each method beside the method."""

    _methods: ClassVar[dict[str, _MethodSettings]] = {}

    method: str = Field("piu", description="of forgetting, by name")
    seed: int = Field(42, ge=0, lt=2**31, description="of every random draw")
    faces: FacesConfig = FacesConfig()
    split: SplitConfig = SplitConfig()
    anchor: AnchorConfig = AnchorConfig()
    lora: LoraConfig = LoraConfig()
    retain: RetainConfig = RetainConfig()
    decoys: DecoyConfig = DecoyConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @classmethod
    def register_method(
        cls, name: str, section: type[Settings] | None = None, defaults: Mapping[str, Any] | None = None
    ) -> None:
        """Make a method's settings known; ``piu_lora.unlearn.registry`` calls it.

        Args:
            section: the settings that are the method's own, or shared with methods like it.
            defaults: nested settings that the method prefers to the common defaults.
        """
        if section is not None:
            cls.register_section(section)
        cls._methods[name] = _MethodSettings(section, defaults or {})

    @classmethod
    def preset(cls, family: HasPresets, method: str = DEFAULT_METHOD) -> Self:
        """The measured defaults of a family of bases and a method; the paper's where there are none.
        Without a method, of the one that measures best; ``ForgetConfig()`` is the paper's recipe.
        """
        cls.sections()  # registers the methods
        settings = cls._methods.get(method)
        defaults = settings.defaults if settings else {}
        layers = (family.presets.get("", {}), defaults, family.presets.get(method, {}))
        return functools.reduce(cls.updated, layers, cls(method=method))

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON: the common settings, the method's own, and what was set."""
        sections, method = self.sections(), self._methods.get(self.method)
        stored = {name: sections[name] for name in _IN_EVERY_RECEIPT}
        if method is not None and method.section is not None:
            stored[method.section.key()] = method.section
        return self.model_dump() | {name: self.section_of(kind).to_dict() for name, kind in stored.items()}


# Receipts, checkpoints and cells have held these sections from the start, whatever the method was.
_IN_EVERY_RECEIPT = ("objective", "closed", "distil")
