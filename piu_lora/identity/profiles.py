"""The geometry of a bank: kept in its file, measured, or a profile that stands in for a bank with too few
people: aggregate figures of a kind of recognizer.
"""

from dataclasses import replace
from weakref import WeakKeyDictionary

import torch

from piu_lora.identity.bank import IdentityBank
from piu_lora.identity.geometry import Geometry, Impostors, Spread
from piu_lora.identity.geometry_measurement import measure_geometry, measure_impostors

__all__ = ["ENOUGH", "GENERIC", "bank_geometry", "geometry_of"]

ENOUGH = 50  # people with two photographs or more, below which a bank says too little of its geometry
_ENOUGH_STRANGERS = 20  # people, below which a bank says too little of how near strangers come
_LOOKED_AT = 50_000  # photographs of a large bank
_PEOPLE = 2000
_MEASURED: WeakKeyDictionary[IdentityBank, Geometry] = WeakKeyDictionary()


def bank_geometry(bank: IdentityBank) -> Geometry:
    """What the bank's file says; else measured, once; else the profile ``GENERIC``, by its name."""
    if bank.geometry is not None:
        return bank.geometry
    if bank not in _MEASURED:
        rows = _looked_at(bank)
        geometry = geometry_of(bank.embeddings[rows], bank.labels[rows])
        if geometry.name == "measured":
            geometry = replace(geometry, people=len(bank), photographs=len(bank.embeddings))
        _MEASURED[bank] = geometry
    return _MEASURED[bank]


def geometry_of(
    embeddings: torch.Tensor, labels: torch.Tensor, *, enough: int = ENOUGH, seed: int = 0
) -> Geometry:
    """The bank's own geometry where ``enough`` people have two photographs or more, else the profile
    ``GENERIC``, with the bank's own strangers where there are some; its name says which.

    Args:
        embeddings: (n, d) unit rows.
        labels: (n,), the person of each.
        enough: people of several photographs by whom a geometry may be measured.
    """
    counts = torch.bincount(labels.long())
    if int((counts > 1).sum()) >= enough:
        return measure_geometry(embeddings, labels, seed=seed)
    if int((counts > 0).sum()) < _ENOUGH_STRANGERS:
        return GENERIC
    far, impostors = measure_impostors(embeddings, labels, seed=seed)
    scatter = _IMPOSTORS.scatter * impostors.sd / _IMPOSTORS.sd
    return replace(GENERIC, far=far, impostors=replace(impostors, scatter=scatter))


def _looked_at(bank: IdentityBank) -> torch.Tensor:
    """Rows of everybody, or of a seeded sample of people of a large bank: some with several photographs, and
    some whoever they are.
    """
    if len(bank.embeddings) <= _LOOKED_AT:
        return torch.arange(len(bank.embeddings))
    counts = torch.bincount(bank.labels.long())
    generator = torch.Generator().manual_seed(0)
    several = (counts > 1).nonzero()[:, 0]
    several = several[torch.randperm(len(several), generator=generator)[:_PEOPLE]]
    anybody = torch.randperm(len(bank), generator=generator)[:_PEOPLE]
    chosen = torch.zeros(len(bank), dtype=torch.bool)
    chosen[torch.cat([several, anybody])] = True
    return chosen[bank.labels.long()].nonzero()[:, 0]


# Measured on news photographs (half of the people of LFW, 542 of them with several photographs) with a
# MobileFaceNet trained by ArcFace on WebFace600K; other ArcFace-like recognizers of 512-d embeddings differ
# by a few hundredths.
# fmt: off
_COSINES = {
    1: Spread(
        0.602, 0.118, (0.080, 0.259, 0.285, 0.341, 0.403, 0.456, 0.525, 0.605, 0.683,
         0.751, 0.790, 0.828, 0.863, 0.889, 0.950),
        (0.594, 0.611), (0.295, 0.374), 542,
    ),
    2: Spread(
        0.665, 0.102, (0.157, 0.324, 0.385, 0.431, 0.495, 0.533, 0.602, 0.673, 0.735,
         0.790, 0.816, 0.846, 0.861, 0.868, 0.918),
        (0.657, 0.674), (0.391, 0.458), 287,
    ),
    3: Spread(
        0.698, 0.091, (0.213, 0.393, 0.429, 0.481, 0.535, 0.584, 0.647, 0.708, 0.760,
         0.805, 0.826, 0.849, 0.868, 0.877, 0.909),
        (0.689, 0.706), (0.449, 0.508), 204,
    ),
    5: Spread(
        0.714, 0.088, (0.311, 0.421, 0.448, 0.487, 0.550, 0.589, 0.666, 0.729, 0.772,
         0.813, 0.836, 0.857, 0.868, 0.877, 0.911),
        (0.702, 0.725), (0.448, 0.527), 111,
    ),
    10: Spread(
        0.740, 0.082, (0.377, 0.453, 0.490, 0.522, 0.577, 0.627, 0.699, 0.754, 0.796,
         0.831, 0.848, 0.863, 0.882, 0.890, 0.903),
        (0.729, 0.75), (0.489, 0.567), 64,
    ),
}
# fmt: on
_IMPOSTORS = Impostors(0.024, 0.071, 0.040)  # of 50 of these people, four photographs each
GENERIC = Geometry(
    "arcface-generic",
    _COSINES,
    {0.01: 0.179, 0.001: 0.242, 0.0001: 0.299, 1e-05: 0.372},
    impostors=_IMPOSTORS,
)
