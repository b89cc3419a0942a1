"""One recognizer's figures: likeness, accuracy, verification, leaks, and on whom the forgotten person's
images land.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from piu_lora.evidence.gallery import FARS, Gallery
from piu_lora.evidence.metrics import Array, accuracy, cosine_to, srk
from piu_lora.evidence.plan import Plan
from piu_lora.evidence.statistics import difference, estimate, leak_at_k, paired
from piu_lora.groups import ANCHOR, FORGET, MORE, NEAREST, RANDOM, UNSEEN

__all__ = ["LEAKS", "far_name", "figures_of"]

LEAKS = (1, 8, 64)  # seeds of which any may verify
_SHOWN = 10  # neighbours in the heat map
_WHEN = ("before", "after")


def far_name(far: float) -> str:
    """How a false-accept rate is written as a key: ``0.001``."""
    return f"{far:.10f}".rstrip("0")


def figures_of(plan: Plan, gallery: Gallery, before: torch.Tensor, after: torch.Tensor) -> dict[str, Any]:
    """Everything that one recognizer says, before against after.

    Args:
        before, after: (n, d) embeddings of the plan's pictures, zeros where there is no face.

    Returns:
        The entry of a recognizer in the report (docs/reference/report.md).
    """
    images = _Seen(plan, gallery, {"before": before, "after": after})
    return {
        "role": gallery.role,
        "thresholds": {far_name(far): _threshold(gallery, far) for far in FARS},
        "references": {"refused": gallery.refused},
        **images.likeness(),
        "verified": {far_name(far): images.verified(far) for far in FARS},
        "leak": {far_name(far): images.leak(far) for far in FARS},
        "strangers": {far_name(far): images.strangers(far) for far in FARS},
        "bystanders": {far_name(far): images.bystanders(far) for far in FARS},
        "scores": images.scores(),
        "neighbours": images.neighbours(),
    }


def _threshold(gallery: Gallery, far: float) -> dict[str, Any]:
    threshold = gallery.thresholds.get(far, "not calibrated")
    if isinstance(threshold, str):
        return {"cosine": None, "pairs": None, "refused": threshold}
    return {"cosine": threshold.value, "pairs": threshold.pairs, "refused": ""}


class _Seen:
    """The embeddings of a plan's pictures, as one recognizer sees them."""

    def __init__(self, plan: Plan, gallery: Gallery, embedded: dict[str, torch.Tensor]) -> None:
        self.plan, self.gallery, self.embedded = plan, gallery, embedded
        self.people = np.array(plan.rows)
        self.known = {far for far in FARS if not isinstance(gallery.thresholds.get(far, ""), str)}

    def places(self, group: str) -> list[int]:
        """Of a group's pictures; of the forgotten people's, the further ones as well."""
        return self.plan.rows_of(FORGET, MORE) if group == FORGET else self.plan.rows_of(group)

    def likeness(self) -> dict[str, Any]:
        """ISM, nearest-centroid accuracy and pictures without a face, by group; AccU, AccR and SRK."""
        centroids, people = self.gallery.centroids.numpy(), self.people
        cosine = {
            when: cosine_to(embeddings, centroids[people]) for when, embeddings in self.embedded.items()
        }
        hit = {when: accuracy(embeddings, centroids, people) for when, embeddings in self.embedded.items()}
        faceless = {when: (~embeddings.any(dim=1)).numpy() for when, embeddings in self.embedded.items()}
        figures: dict[str, Any] = {"ism": {}, "recognised": {}, "no_face": {}}
        for group in self.plan.groups:
            places = self.plan.rows_of(group)
            figures["ism"][group] = paired(cosine["before"][places], cosine["after"][places], people[places])
            figures["recognised"][group] = {
                when: estimate(hit[when][places], people[places]) for when in _WHEN
            }
            every = self.places(group)
            figures["no_face"][group] = {
                **{when: int(faceless[when][every].sum()) for when in _WHEN},
                "n": len(every),
            }
        for when in _WHEN:
            unlearned, retained = (
                float(hit[when][self.plan.rows_of(group)].mean()) for group in (FORGET, RANDOM)
            )
            figures[when] = {"acc_u": unlearned, "acc_r": retained, "srk": srk(retained, unlearned)}
        return figures

    def passed(self, group: str, far: float) -> dict[str, npt.NDArray[np.bool_]]:
        """Which of a group's pictures verify as the person they were made for."""
        places, threshold = self.places(group), self.gallery.threshold(far)
        faces = {when: embeddings[places].any(dim=1).numpy() for when, embeddings in self.embedded.items()}
        return {when: (self._own(when, places) >= threshold) & faces[when] for when in self.embedded}

    def verified(self, far: float) -> dict[str, Any] | None:
        """1:1 verification of every group against the references; None for what was refused."""
        if far not in self.known:
            return None
        return {
            group: None if group in (FORGET, UNSEEN) and self.gallery.refused else self._verified(group, far)
            for group in self.plan.groups
        }

    def _verified(self, group: str, far: float) -> dict[str, Any]:
        people = self.people[self.places(group)]
        passed = {when: hits.astype(float) for when, hits in self.passed(group, far).items()}
        return {
            **{when: estimate(passed[when], people) for when in _WHEN},
            "difference": difference(passed["before"], passed["after"], people),
            # A person counts when at least half of the images made for them verify.
            "people": {
                when: float(np.mean([hits.mean() >= 0.5 for hits in _by(passed[when], people)]))
                for when in _WHEN
            },
        }

    def leak(self, far: float) -> dict[str, Any] | None:
        """Leak@k of the forgotten people, the mean over them; None where there are too few images."""
        if far not in self.known or self.gallery.refused:
            return None
        people, passed = self.people[self.places(FORGET)], self.passed(FORGET, far)
        return {
            str(k): {
                when: _mean_or_none([leak_at_k(hits, k) for hits in _by(passed[when], people)])
                for when in _WHEN
            }
            for k in LEAKS
        }

    def strangers(self, far: float) -> dict[str, Any] | None:
        """Images of other people by the untouched base that verify as a forgotten person: what the rate
        promises to be rare.
        """
        if far not in self.known or self.gallery.refused:
            return None
        places = self.plan.rows_of(RANDOM)
        forgotten = sorted(set(self.people[self.places(FORGET)].tolist()))
        passed = [
            self.gallery.verifies(self.embedded["before"][places], row, far).numpy().astype(float)
            for row in forgotten
        ]
        return estimate(np.concatenate(passed), np.tile(self.people[places], len(forgotten)))

    def bystanders(self, far: float) -> dict[str, Any] | None:
        """As how many other real people an image of the forgotten ones verifies, and the share that lands on
        one and the same.
        """
        if far not in self.known:
            return None
        places, threshold = self.places(FORGET), self.gallery.threshold(far)
        anchors = set(self.people[self.plan.rows_of(ANCHOR)].tolist())
        counts, landing = {}, {}
        for when, cosines in self._with_others.items():
            matched = (cosines >= threshold).numpy()
            counts[when] = estimate(matched.sum(axis=1).astype(float), self.people[places])
            shares = matched.mean(axis=0)
            landing[when], most = float(shares.max()), int(shares.argmax())
        others = len(self.gallery.centroids) - len(self._not_others)
        return {"expected": far * others, **counts, "landing": {**landing, "is_anchor": most in anchors}}

    @cached_property
    def _not_others(self) -> list[int]:
        """Rows of the forgotten people, and of those who are nobody."""
        return sorted(set(self.people[self.places(FORGET)].tolist()) | self.gallery.nobody)

    @cached_property
    def _with_others(self) -> dict[str, torch.Tensor]:
        """Cosines of the forgotten people's images with everybody's centroid; below any cosine where they are
        no others.
        """
        places = self.places(FORGET)
        by_time = {
            when: embeddings[places] @ self.gallery.centroids.T for when, embeddings in self.embedded.items()
        }
        for cosines in by_time.values():
            cosines[:, self._not_others] = -2
        return by_time

    def scores(self) -> dict[str, Any]:
        """Densities of the cosines with the reference: strangers, the forgotten people before and after,
        those who stay.
        """
        edges = np.linspace(-0.6, 1.0, 65)
        retained = self.plan.rows_of(RANDOM, NEAREST)
        strangers = (self.embedded["before"][retained] @ self.gallery.centroids.T).numpy()
        strangers = strangers[self.people[retained][:, None] != np.arange(len(self.gallery.centroids))]
        forgotten = self.places(FORGET)
        likeness = {
            "forget_before": self._own("before", forgotten),
            "forget_after": self._own("after", forgotten),
            "retained_after": self._own("after", retained),
        }
        densities = {
            name: _density(values, edges) for name, values in {"impostor": strangers, **likeness}.items()
        }
        return {"bins": edges.round(6).tolist(), **densities}

    def _own(self, when: str, places: Sequence[int]) -> Array:
        """Cosine of each picture with the reference of the person it was made for."""
        references = torch.stack([self.gallery.reference(self.plan.shots[index].row) for index in places])
        result: Array = (self.embedded[when][list(places)] * references).sum(dim=1).double().numpy()
        return result

    def neighbours(self) -> dict[str, Any]:
        """Mean cosine of the images made for one person (a line) with the reference of another (a column)."""
        groups = {
            group: list(dict.fromkeys(self.people[self.plan.rows_of(group)].tolist()))
            for group in (FORGET, ANCHOR, NEAREST)
        }
        rows = [groups[FORGET][0], groups[ANCHOR][0], *groups[NEAREST][:_SHOWN]]
        references = torch.stack([self.gallery.reference(row) for row in rows])
        tables = {}
        for when, embeddings in self.embedded.items():
            lines = [
                (embeddings[np.flatnonzero(self.people == row)] @ references.T).mean(dim=0) for row in rows
            ]
            tables[when] = [[round(float(value), 4) for value in line] for line in lines]
        return {
            "labels": ["forgotten", "anchor", *(f"near {index + 1}" for index in range(len(rows) - 2))],
            **tables,
        }


def _by(values: npt.NDArray[Any], people: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
    return [values[people == person] for person in np.unique(people)]


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _density(values: npt.NDArray[Any], edges: Array) -> list[float]:
    counts, _ = np.histogram(values, bins=edges)
    return [
        round(float(count) / max(len(values.ravel()) * float(edges[1] - edges[0]), 1e-12), 5)
        for count in counts
    ]
