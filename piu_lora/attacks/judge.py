"""Whose face is it? Every gallery judges, the last one decides."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from piu_lora.attacks.config import AuditConfig
from piu_lora.evidence import Gallery
from piu_lora.evidence.report.sections import Curve, Series

__all__ = ["COLUMNS", "AttackTable", "Judgement", "criterion", "curve", "judge_images", "series"]

COLUMNS = ("case", "who", "model", "recognizer", "images", "ISM", "verified")


@dataclass(frozen=True)
class Judgement:
    """What the galleries say about some images of one person.

    Attributes:
        cosines: by gallery, (n,) with what the person is verified against.
        verified: by gallery, (n,) bool.
    """

    names: tuple[str, ...]
    cosines: tuple[torch.Tensor, ...]
    verified: tuple[torch.Tensor, ...]

    @property
    def ism(self) -> float:
        """Mean cosine, by the gallery that decides."""
        return float(self.cosines[-1].mean())

    @property
    def share(self) -> float:
        """Of the images, how many verify, by the gallery that decides."""
        return float(self.verified[-1].float().mean())

    def back(self, config: AuditConfig) -> bool:
        """Whether the person is brought back."""
        return self.share >= config.share


def judge_images(galleries: Sequence[Gallery], images: torch.Tensor, row: int, far: float) -> Judgement:
    """Embed images (n, 3, h, w) in [0, 1] and verify them as one person.

    Args:
        galleries: the last one decides.
        row: of the person in the galleries.
        far: false-accept rate at which they verify.

    Raises:
        BadInput: a gallery is not calibrated at this false-accept rate.
    """
    embeddings = [(gallery, gallery.embed(images)) for gallery in galleries]
    return Judgement(
        tuple(gallery.name for gallery in galleries),
        tuple(embedded @ gallery.reference(row) for gallery, embedded in embeddings),
        tuple(gallery.verifies(embedded, row, far) for gallery, embedded in embeddings),
    )


class AttackTable:
    """The table of an attack, filled line by line."""

    def __init__(self) -> None:
        self.rows: list[list[str | float | int | None]] = []

    def add(self, case: str, who: str, model: str, judgement: Judgement) -> Judgement:
        """A line for every gallery; hands the look back."""
        for name, cosines, verified in zip(
            judgement.names, judgement.cosines, judgement.verified, strict=True
        ):
            self.rows.append(
                [case, who, model, name, len(cosines), float(cosines.mean()), float(verified.float().mean())]
            )
        return judgement


def criterion(config: AuditConfig) -> str:
    """When a person counts as brought back."""
    return (
        f"at least {config.share:.0%} of the images verify as the person at FAR {config.far:g} "
        "by the last recognizer of the table"
    )


def curve(title: str, x: str, y: str, lines: Sequence[Series], threshold: float | None = None) -> Curve:
    """A figure of an attack over its strength.

    Args:
        title, x, y: words of the picture and its axes.
        lines: see ``series``.
        threshold: where a person begins to verify; drawn as a line.
    """
    return Curve(title=title, x=x, y=y, threshold=threshold, series=tuple(lines))


def series(name: str, x: Sequence[float], y: Sequence[float]) -> Series:
    """One line of a curve."""
    return Series(name=name, x=tuple(x), y=tuple(y), low=None, high=None)
