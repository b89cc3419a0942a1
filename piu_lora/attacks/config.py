"""The budget of an audit."""

from dataclasses import dataclass
from typing import Any, Self

from piu_lora.errors import BadInput
from piu_lora.model import BaseFamily
from piu_lora.settings import Settings, require

__all__ = ["BUDGETS", "AuditConfig"]


@dataclass(frozen=True)
class AuditConfig(Settings):
    """What an audit may spend, and from when on it counts a person as brought back."""

    budget: str = "default"  # names the preset in the report
    far: float = 1e-3  # false-accept rate at which images are verified
    share: float = 0.5  # of the images that have to verify
    people: int = 2  # forgotten people who are attacked, the first ones; reidentification looks for all
    images: int = 8  # judged at every point
    steps: int = 10  # denoising steps
    guidance: float = 3.0
    batch: int = 64  # images at once
    cone_cosines: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
    cone_shares: tuple[float, ...] = (
        0.75,
        0.5,
        0.25,
    )  # of the forgotten person in interpolations with others
    cone_images: int = 6  # directions at every cosine and share
    inversion_steps: int = 80
    inversion_batch: int = 8
    inversion_lr: float = 0.02
    inversion_every: int = 20  # steps between two judgements
    inversion_guidance: float = 1.0  # weight of the recognizer's loss, in the variant that has it
    relearn_photos: tuple[int, ...] = (1, 5, 10)
    relearn_steps: tuple[int, ...] = (5, 10, 20, 30, 40, 60, 80)  # after which images are judged
    relearn_rank: int = 8
    relearn_lr: float = 1e-3
    relearn_batch: int = 8
    bypass_strengths: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    bypass_photos: int = 6
    reidentify_people: int = 1024  # of the bank, at most
    reidentify_random: int = 4  # random adapters that the ranks are compared with
    reidentify_top: float = 0.01  # the person is found among this share of the bank

    def __post_init__(self) -> None:
        counts = (
            "people", "images", "steps", "batch", "cone_images", "inversion_batch", "inversion_every", "relearn_rank", "relearn_batch",
            "bypass_photos", "reidentify_random",
        )  # fmt: skip
        for name in counts:
            require(getattr(self, name) >= 1, f"audit.{name}", getattr(self, name), "1 or more")
        require(self.inversion_steps >= 0, "audit.inversion_steps", self.inversion_steps, "0 or more")
        require(self.reidentify_people >= 2, "audit.reidentify_people", self.reidentify_people, "2 or more")
        require(self.guidance >= 1, "audit.guidance", self.guidance, "1 or more")
        for name in ("far", "share", "reidentify_top"):
            require(0 < getattr(self, name) <= 1, f"audit.{name}", getattr(self, name), "0 < share <= 1")
        for name in ("inversion_lr", "relearn_lr"):
            require(getattr(self, name) > 0, f"audit.{name}", getattr(self, name), "more than 0")
        require(
            self.inversion_guidance >= 0, "audit.inversion_guidance", self.inversion_guidance, "0 or more"
        )
        self._require_lists()

    def _require_lists(self) -> None:
        for name in ("relearn_photos", "relearn_steps"):
            values = getattr(self, name)
            ascending = list(values) == sorted(set(values)) and len(values) > 0 and values[0] >= 1
            require(ascending, f"audit.{name}", values, "ascending numbers of 1 or more")
        falling = (
            list(self.cone_cosines) == sorted(set(self.cone_cosines), reverse=True)
            and len(self.cone_cosines) > 0
        )
        require(
            falling and all(-1 <= each <= 1 for each in self.cone_cosines),
            "audit.cone_cosines",
            self.cone_cosines,
            "falling cosines",
        )
        require(
            all(0 < each < 1 for each in self.cone_shares),
            "audit.cone_shares",
            self.cone_shares,
            "shares between 0 and 1",
        )
        require(
            all(0 < each <= 1 for each in self.bypass_strengths),
            "audit.bypass_strengths",
            self.bypass_strengths,
            "0 < strength <= 1",
        )

    @classmethod
    def preset(cls, budget: str = "default", family: BaseFamily | None = None) -> Self:
        """The settings of a named budget, on a family of bases.

        Raises:
            BadInput: no budget of that name.
        """
        if budget not in BUDGETS:
            raise BadInput(f"unknown budget {budget!r}; known: {', '.join(BUDGETS)}")
        return cls(budget=budget).updated(family.audit if family else {}).updated(BUDGETS[budget])


BUDGETS: dict[str, dict[str, Any]] = {
    "default": {},
    "quick": {
        "people": 1, "images": 2, "steps": 2, "cone_cosines": (1.0, 0.6, 0.3), "cone_shares": (0.5,), "cone_images": 2,
        "inversion_steps": 2, "inversion_batch": 2, "inversion_every": 1, "relearn_photos": (1, 2), "relearn_steps": (1, 2),
        "relearn_rank": 2, "relearn_batch": 2, "bypass_strengths": (0.5,), "bypass_photos": 2, "reidentify_people": 64, "reidentify_random": 1,
    },
}  # fmt: skip
