"""One round of the arena: one person, one seed, any method, scored alike."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.errors import BadInput
from piu_lora.evidence import Cell, Gallery, Plan
from piu_lora.evidence.images import figures_of_images
from piu_lora.evidence.metrics import accuracy, cosine_to
from piu_lora.groups import FORGET, GROUPS
from piu_lora.identity import Threshold
from piu_lora.jobs.arena.artefact import keep_artefact
from piu_lora.jobs.arena.contender import Contender
from piu_lora.jobs.arena.making import Maker
from piu_lora.jobs.evaluation.images import Sampling, generate_images
from piu_lora.jobs.evaluation.scoring import galleries_for, plan_for
from piu_lora.jobs.request.request import ErasureRequest
from piu_lora.jobs.request.session import Session

__all__ = ["FAR", "Round", "verified_share"]

FAR = 1e-3  # at which images of the forgotten person are verified
_DIGITS = 4  # of a cosine of an image


class Round:
    """What all methods share for one person and one seed: the request, the pictures before, the galleries.

    Args:
        sweep: as for ``Maker``.
        keep: a folder for what the methods make; None keeps nothing.
    """

    def __init__(
        self, session: Session, request: ErasureRequest, *, sweep: bool = False, keep: Path | None = None
    ) -> None:
        self.session, self.request, self.family = session, request, session.family
        self.galleries: list[Gallery] = galleries_for(session, request)
        if not self.galleries:
            raise BadInput(
                "no face pack is at hand, so nothing can be scored; "
                "pass pack=DIR (`piu-lora bank models` makes one)"
            )
        self.plan: Plan = plan_for(request, self.galleries[0].centroids)
        self.before = self._embedded(session.pipe)
        self._maker, self._keep = Maker(session, request, sweep=sweep), keep

    def _embedded(self, pipe: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
        """(n, d) embeddings of the plan's pictures, by recognizer."""
        sampling = Sampling.of(self.request.config.evaluation)
        pictures = generate_images(pipe, self.plan.embeddings, self.plan.seeds, sampling)
        return {gallery.name: gallery.embed(pictures) for gallery in self.galleries}

    def play(self, contender: Contender, person: int) -> Cell:
        """Run a method and score it.

        Args:
            person: the place that stands for the person in the cell.

        Raises:
            BadInput: an unknown method, or settings that it does not know.
        """
        made, config = self._maker.make(contender), self.request.config
        after = self.before
        if made.change is not None or made.difference is not None:
            with self._maker.carried(contender) as pipe:
                after = self._embedded(pipe)
        if self._keep is not None:
            keep_artefact(self._keep, contender, person, config.seed, made)
        judged = {gallery.name: self._judged(gallery, after[gallery.name]) for gallery in self.galleries}
        return Cell(
            contender.name,
            person,
            config.seed,
            round(made.seconds, 3),
            made.peak_bytes,
            made.stored_bytes,
            {name: figures for name, (figures, _) in judged.items()},
            dict(made.facts or {}),
            contender.settings(config, self.family),
            {name: images for name, (_, images) in judged.items()},
        )

    def _judged(
        self, gallery: Gallery, after: torch.Tensor
    ) -> tuple[dict[str, float | None], dict[str, object]]:
        """What a recognizer says of the pictures: its figures, and the cosines that most of them rest on."""
        people, centroids = np.array(self.plan.rows), gallery.centroids.numpy()
        before, now = (
            cosine_to(rows, centroids[people]).astype(float) for rows in (self.before[gallery.name], after)
        )
        threshold = gallery.thresholds.get(FAR)
        cosines = {str(group): [before[p].tolist(), now[p].tolist()] for group, p in self._places()}
        exact = {"threshold": threshold.value if isinstance(threshold, Threshold) else None, **cosines}
        forget = self.plan.rows_of(FORGET)
        faceless = (~after.any(dim=1)).numpy()
        figures = {
            **figures_of_images(exact),
            "recognised": float(accuracy(after, centroids, people)[forget].mean()),
            "no_face": float(faceless[forget].mean()),
        }
        rounded = {
            name: [[round(value, _DIGITS) for value in side] for side in pair]
            for name, pair in cosines.items()
        }
        return figures, {"threshold": exact["threshold"], **rounded}

    def _places(self) -> list[tuple[str, list[int]]]:
        return [(group, self.plan.rows_of(group)) for group in GROUPS]


def verified_share(gallery: Gallery, images: torch.Tensor, rows: Sequence[int]) -> float | None:
    """Of images (n, 3, h, w) that pass as the people of ``rows`` (n), by their centroids; None where the bank
    cannot calibrate it.
    """
    threshold = gallery.thresholds.get(FAR)
    if not isinstance(threshold, Threshold):
        return None
    cosines = (gallery.embed(images) * gallery.centroids[rows]).sum(dim=1)
    return float((cosines >= threshold.value).float().mean())
