"""What a baseline has changed: the tensors of one component that differ from the base, as they are kept."""

import copy
from collections.abc import Mapping

import torch
from diffusers import StableDiffusionPipeline

__all__ = ["changed_tensors", "copied"]


def copied(pipe: StableDiffusionPipeline, component: str) -> StableDiffusionPipeline:
    """The same pipeline but for one component, which is a copy and may be changed."""
    twin = copy.copy(pipe)
    setattr(twin, component, copy.deepcopy(getattr(pipe, component)))
    return twin


def changed_tensors(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Of a state dict, what differs from an earlier one: the difference where the earlier has it, else the
    tensor itself.
    """
    changed: dict[str, torch.Tensor] = {}
    for name, value in after.items():
        if name not in before:
            changed[name] = value
        elif not torch.equal(value, before[name]):
            changed[name] = value - before[name]
    return changed
