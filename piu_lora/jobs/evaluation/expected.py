"""What the geometry predicts for photographs that nobody gave, where one or two were known."""

from typing import Any

import torch

from piu_lora.evidence import Gallery
from piu_lora.evidence.report.sections import Expected
from piu_lora.evidence.statistics import share_interval
from piu_lora.identity.geometry import imagined_people
from piu_lora.identity.profiles import bank_geometry
from piu_lora.jobs.evaluation.images import Sampling, generate_images
from piu_lora.jobs.request.request import ErasureRequest

__all__ = ["expected_to_verify", "expected_words"]

FEW = 2  # photographs, up to which the prediction is made
_FAR = 1e-3
_IMAGINED = 48  # people whom the known photographs may show, one photograph each


def expected_to_verify(
    pipe: Any, request: ErasureRequest, gallery: Gallery, sampling: Sampling
) -> Expected | None:
    """Generate from imagined photographs with the pipeline as it is, and verify each against whoever it was
    imagined of; None where every person had more than ``FEW`` photographs, or nobody can verify.

    Args:
        gallery: of the conditioning recognizer: nobody else knows imagined people.
    """
    few = [person.target.forget for person in request.people if len(person.train) <= FEW]
    if not few or isinstance(gallery.thresholds.get(_FAR, ""), str):
        return None
    geometry = bank_geometry(request.bank)
    generator = torch.Generator().manual_seed(request.config.seed)
    share = max(_IMAGINED // len(few), 1)
    drawn = [imagined_people(known, geometry, share, 1, generator) for known in few]
    centres = torch.cat([centre for centre, _ in drawn])
    rows = torch.cat([photographs[:, 0] for _, photographs in drawn])
    seeds = [request.config.seed * 100_003 + 80_000 + index for index in range(len(rows))]
    embedded = gallery.embed(generate_images(pipe, rows, seeds, sampling))
    verified = int(((embedded * centres).sum(dim=1) >= gallery.threshold(_FAR)).sum())
    low, high = share_interval(verified, len(rows))
    return Expected(
        share=round(verified / len(rows), 4),
        low=round(low, 4),
        high=round(high, 4),
        photographs=min(len(known) for known in few),
        images=len(rows),
        far=_FAR,
        geometry=geometry.name,
    )


def expected_words(expected: Expected) -> str:
    """``1 photograph was given; of unseen ones are expected to verify: 8 % [3, 15]``."""
    count, low, high = expected.photographs, round(100 * expected.low), round(100 * expected.high)
    photographs = "1 photograph was given" if count == 1 else f"{count} photographs were given"
    geometry = "" if expected.geometry == "measured" else f" (by the profile {expected.geometry!r})"
    return (
        f"{photographs}; of unseen ones are expected to verify at FAR {expected.far:g}: "
        f"{100 * expected.share:.0f} % [{low}, {high}]{geometry}"
    )
