"""The geometry of a bank that is being made, or shown."""

import logging

from piu_lora.identity import IdentityBank
from piu_lora.identity.geometry import Geometry
from piu_lora.identity.profiles import ENOUGH, bank_geometry

__all__ = ["geometry_in_words", "keep_geometry", "origin_of"]

_log = logging.getLogger("piu_lora")


def keep_geometry(bank: IdentityBank) -> None:
    """Measure a bank that is about to be saved; with too few people nothing is kept, and a remark says so."""
    geometry = bank_geometry(bank)
    if geometry.name == "measured":
        bank.geometry = geometry
    else:
        _log.warning("%s", origin_of(geometry))


def origin_of(geometry: Geometry) -> str:
    """Where the figures are from, in a sentence without a full stop."""
    if geometry.name == "measured":
        several = geometry.cosines[1].people
        return (
            f"geometry measured on {several} people with several of {geometry.photographs} photographs; "
            f"{geometry.doubtful:.1%} of them were doubtful and left out"
        )
    return (
        f"fewer than {ENOUGH} people have several photographs, too few to measure how these differ: "
        f"the profile {geometry.name!r} stands in"
    )


def geometry_in_words(geometry: Geometry) -> list[str]:
    """Lines for people."""
    head = "cosine of a photograph with the centroid of k others: mean [95 %], 2 % lie below [95 %]"
    lines = [origin_of(geometry), head]
    for k, spread in geometry.cosines.items():
        (mean_low, mean_high), (low, high) = spread.mean_interval, spread.low_interval
        lines.append(
            f"  k = {k:2d}  {spread.mean:.3f} [{mean_low:.3f}, {mean_high:.3f}], "
            f"{spread.quantile(0.02):.3f} [{low:.3f}, {high:.3f}]  ({spread.people} people)"
        )
    rates = ", ".join(f"{far:g} at {value:.3f}" for far, value in geometry.far.items())
    return [*lines, f"false-accept rates, photograph with centroid: {rates or 'too few pairs'}"]
