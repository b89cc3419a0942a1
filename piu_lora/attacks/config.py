"""The budget of an audit."""

from typing import Annotated, Any, Self

from pydantic import Field, Strict, model_validator

from piu_lora.errors import BadInput
from piu_lora.model import BaseFamily
from piu_lora.settings import Amount, Cosine, Count, Positive, Settings, out_of_range

__all__ = ["BUDGETS", "AuditConfig"]

_Rate = Annotated[float, Field(gt=0, le=1)]
_Between = Annotated[float, Field(gt=0, lt=1)]


class AuditConfig(Settings, section="audit"):
    """What an audit may spend, and from when on it counts a person as brought back."""

    budget: str = "default"  # names the preset in the report
    far: _Rate = 1e-3  # false-accept rate at which images are verified
    share: _Rate = 0.5  # of the images that have to verify
    people: Count = 2  # forgotten people who are attacked, the first ones; reidentification looks for all
    images: Count = 8  # judged at every point
    steps: Count = 10  # denoising steps
    guidance: float = Field(3.0, ge=1)
    batch: Count = 64  # images at once
    cone_cosines: Annotated[tuple[Cosine, ...], Strict(False)] = Field(
        (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3), min_length=1
    )
    cone_shares: Annotated[tuple[_Between, ...], Strict(False)] = (
        0.75,
        0.5,
        0.25,
    )  # of the forgotten person in interpolations with others
    cone_images: Count = 6  # directions at every cosine and share
    inversion_steps: int = Field(80, ge=0)
    inversion_batch: Count = 8
    inversion_lr: Positive = 0.02
    inversion_every: Count = 20  # steps between two judgements
    inversion_guidance: Amount = 1.0  # weight of the recognizer's loss, in the variant that has it
    relearn_photos: Annotated[tuple[Count, ...], Strict(False)] = Field((1, 5, 10), min_length=1)
    relearn_steps: Annotated[tuple[Count, ...], Strict(False)] = Field(
        (5, 10, 20, 30, 40, 60, 80), min_length=1
    )  # after which images are judged
    relearn_rank: Count = 8
    relearn_lr: Positive = 1e-3
    relearn_batch: Count = 8
    bypass_strengths: Annotated[tuple[_Rate, ...], Strict(False)] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    bypass_photos: Count = 6
    reidentify_people: int = Field(1024, ge=2)  # of the bank, at most
    reidentify_random: Count = 4  # random adapters that the ranks are compared with
    reidentify_top: _Rate = 0.01  # the person is found among this share of the bank

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        for name in ("relearn_photos", "relearn_steps"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)):
                raise out_of_range(f"audit.{name}", values, "ascending numbers of 1 or more")
        if list(self.cone_cosines) != sorted(set(self.cone_cosines), reverse=True):
            raise out_of_range("audit.cone_cosines", self.cone_cosines, "falling cosines")
        return self

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
