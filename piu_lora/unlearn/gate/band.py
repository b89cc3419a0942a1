"""Between which cosines a gate opens: above everybody else's reach, below that of the person's own
photographs.
"""

from dataclasses import dataclass

import torch

from piu_lora.identity.geometry import Geometry
from piu_lora.unlearn.gate.settings import GateConfig

__all__ = ["Band", "Outlook", "chosen_band"]

_NARROWEST = 0.06  # of a ramp; steeper ones cost precision
_SPARE = 0.15  # between the band and the person's reach; half of what is beyond it goes to the others
_SAME_PERSON = 0.05  # above the cosine that one impostor in 100,000 reaches, an embedding is the person's own
_MOST_GIVEN_UP = 0.1  # share of the person's photographs, for the sake of a look-alike


@dataclass(frozen=True)
class Band:
    """Where the gate opens: nothing below the cosine ``low`` with the known centroid, everything from
    ``high`` on.
    """

    low: float
    high: float

    @property
    def width(self) -> float:
        """Of the ramp."""
        return self.high - self.low


@dataclass(frozen=True)
class Outlook:
    """The band, and what the bank's geometry says of it.

    Attributes:
        missed: share of the person's unseen photographs that are expected below the band's middle.
        look_alikes: embeddings of other people of the bank above the band's lower end: what forgetting costs
            others.
        inside: embeddings so near that they are the person's own, under another id or by mistake; they are
            forgotten, too.
    """

    band: Band
    missed: float
    look_alikes: int
    inside: int


def chosen_band(photographs: int, near: torch.Tensor, geometry: Geometry, config: GateConfig) -> Outlook:
    """``low`` stands ``config.clearance`` above the nearest real person. ``high`` stands a ramp above it, or
    where all but ``config.missed`` of the person's own photographs reach, if that leaves a ramp. Where people
    lie far apart, the band stands in the middle of the gap.

    Retained people come first, until a tenth of the person's photographs would be given up for them; then the
    person does, and whoever lies above ``low`` is counted as a look-alike. An embedding nearer than impostors
    come, and than most of the person's own photographs lie, is taken for the person's.

    Args:
        photographs: how many are known of the person.
        near: (n,) cosines of the nearest real people with their centroid.
    """
    reach, width = geometry.reach(photographs), max(config.width, _NARROWEST)
    strictest = min(geometry.far.items())[1] + _SAME_PERSON if geometry.far else 0.0
    others = near[near < max(strictest, reach.quantile(config.missed))]
    nearest = float(others.max()) if len(others) else -1.0
    ceiling = reach.quantile(_MOST_GIVEN_UP) - _NARROWEST
    floor = max(nearest, geometry.far.get(1e-3, 0.0)) + config.clearance
    room = reach.quantile(config.missed) - width - floor - _SPARE
    low = config.low or min(floor + max(room, 0.0) / 2, ceiling)
    high = config.high or max(min(low + width, reach.quantile(config.missed)), low + _NARROWEST)
    look_alikes, inside = int((others > low).sum()), len(near) - len(others)
    return Outlook(Band(low, high), reach.share_below((low + high) / 2), look_alikes, inside)
