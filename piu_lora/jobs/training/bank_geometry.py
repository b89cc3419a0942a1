"""The geometry that a request rests on: the bank's, without the people whom it may not see."""

import logging
from weakref import WeakKeyDictionary

import torch

from piu_lora.identity import IdentityBank
from piu_lora.identity.geometry import Geometry
from piu_lora.identity.profiles import geometry_of
from piu_lora.jobs.request.request import ErasureRequest

__all__ = ["retained_geometry"]

_log = logging.getLogger("piu_lora")
_MEASURED: WeakKeyDictionary[IdentityBank, dict[tuple[int, ...], Geometry]] = WeakKeyDictionary()


def retained_geometry(request: ErasureRequest) -> Geometry:
    """The geometry of everybody whom this request trains on; a shipped profile, with a warning, where they
    have too few photographs.
    """
    bank, rows = request.bank, tuple(sorted(request.retained.train))
    geometries = _MEASURED.setdefault(bank, {})
    if rows not in geometries:
        train = torch.isin(bank.labels, torch.tensor(rows, dtype=bank.labels.dtype))
        geometries[rows] = geometry_of(bank.embeddings[train], bank.labels[train])
        if geometries[rows].name != "measured":
            _log.warning(
                "too few people of the bank have several photographs to measure how these differ: "
                "the profile %r stands in",
                geometries[rows].name,
            )
    return geometries[rows]
