"""The portrait renderer of the embedded base: faces of people who do not exist, from numbers alone."""

from piu_lora.model.mini.render.parameters import (
    IDENTITY,
    NUISANCE,
    Parameter,
    sample_identities,
    sample_nuisance,
)
from piu_lora.model.mini.render.portrait import SIZE, render, surface

__all__ = [
    "IDENTITY",
    "NUISANCE",
    "SIZE",
    "Parameter",
    "render",
    "sample_identities",
    "sample_nuisance",
    "surface",
]
