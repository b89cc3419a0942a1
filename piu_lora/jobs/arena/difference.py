"""What a baseline has changed: the tensors of one component that differ from the base, as they are kept."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.errors import BadInput
from piu_lora.unlearn.baselines import insert_stored

__all__ = ["changed_tensors", "copied", "with_difference"]


def copied(pipe: StableDiffusionPipeline, component: str) -> StableDiffusionPipeline:
    """The same pipeline but for one component, which is a copy and may be changed."""
    twin = copy.copy(pipe)
    setattr(twin, component, copy.deepcopy(getattr(pipe, component)))
    return twin


@torch.no_grad()
def changed_tensors(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Of a state dict, what differs from an earlier one: the difference where the earlier has it, else the
    tensor itself.
    """
    changed: dict[str, torch.Tensor] = {}
    for name, value in after.items():
        if name not in before:
            changed[name] = value.clone()
        elif not torch.equal(value, before[name]):
            changed[name] = value - before[name]
    return changed


@torch.no_grad()
def with_difference(
    pipe: StableDiffusionPipeline, component: str, difference: Mapping[str, torch.Tensor], weight: float = 1.0
) -> StableDiffusionPipeline:
    """A copy of a pipeline to whose component a difference is added.

    Args:
        weight: what the difference is multiplied by; of an inserted low-rank map, its ``up``.

    Raises:
        BadInput: a weight other than 1 for an inserted part that has none.
    """
    twin = copied(pipe, component)
    model: Any = getattr(twin, component)
    weights = model.state_dict()
    inserted = {name: value for name, value in difference.items() if name not in weights}
    for name, value in difference.items():
        if name in weights:
            weights[name] += weight * value.to(weights[name])
    if weight != 1 and inserted:
        scaled = {name: weight * value for name, value in inserted.items() if name.endswith(".up")}
        if not scaled:
            raise BadInput("what this baseline inserts cannot be weighed; vary its own dial")
        inserted |= scaled
    insert_stored(model, inserted)
    return twin
