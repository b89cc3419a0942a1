"""A change that is more than an adapter's: a baseline's dense weights. Linear layers that an adapter could
sit in are factors of full rank, so that every attack reads them; all other tensors are added as they are.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Change
from piu_lora.errors import BadInput
from piu_lora.model import BaseFamily
from piu_lora.model.factors import Factors, component

__all__ = ["DenseChange", "add_rest", "dense_change", "rest_added", "rest_of"]


class DenseChange(dict[str, Factors]):
    """Factors by module, and ``rest``: what is added to other tensors, by ``component.name``."""

    def __init__(self, factors: Change, rest: Mapping[str, torch.Tensor]) -> None:
        super().__init__(factors)
        self.rest = dict(rest)


def rest_of(change: Change, part: str = "", weight: float = 1.0) -> dict[str, torch.Tensor]:
    """What a change adds beyond its factors, times a weight; of one component where it is named."""
    if not isinstance(change, DenseChange):
        return {}
    return {name: weight * value for name, value in change.rest.items() if part in ("", component(name))}


def dense_change(
    pipe: StableDiffusionPipeline, part: str, difference: Mapping[str, torch.Tensor], family: BaseFamily
) -> DenseChange:
    """A change that adds a difference to the tensors of one component.

    Raises:
        BadInput: it has tensors that the base does not have.
    """
    known, layers = getattr(pipe, part).state_dict(), re.compile(family.components.get(part, "(?!)"))
    factors, rest = dict[str, Factors](), dict[str, torch.Tensor]()
    for name, value in difference.items():
        module = name.removesuffix(".weight")
        if name not in known:
            raise BadInput(
                f"this artefact adds a part to the base ({name}), which is no change of its weights; "
                "attacks work on changed weights"
            )
        if module != name and value.ndim == 2 and layers.fullmatch(module):
            factors[f"{part}.{module}"] = _full_rank(value)
        else:
            rest[f"{part}.{name}"] = value
    return DenseChange(factors, rest)


def _full_rank(value: torch.Tensor) -> Factors:
    out, into = value.shape
    identity = torch.eye(min(out, into))
    return Factors(value, identity) if out <= into else Factors(identity, value)


@torch.no_grad()
def add_rest(pipe: StableDiffusionPipeline, change: Change) -> None:
    """Add what is beyond the factors to the pipeline's tensors, for good."""
    for name, value in rest_of(change).items():
        part, _, key = name.partition(".")
        tensor = getattr(pipe, part).state_dict()[key]
        tensor += value.to(tensor)


@contextmanager
def rest_added(pipe: StableDiffusionPipeline, change: Change) -> Iterator[None]:
    """While open, the pipeline's tensors carry what is beyond the factors; afterwards they are as before, bit
    for bit.
    """
    before = {}
    for name in rest_of(change):
        part, _, key = name.partition(".")
        before[name] = getattr(pipe, part).state_dict()[key].clone()
    try:
        add_rest(pipe, change)
        yield
    finally:
        for name, value in before.items():
            part, _, key = name.partition(".")
            getattr(pipe, part).state_dict()[key].copy_(value)
