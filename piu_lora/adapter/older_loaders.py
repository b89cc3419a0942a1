"""What the loaders of diffusers since 2023 want of a LoRA file, beyond what the newest one does.

Older ones read no settings from the header and take one rank for alpha everywhere, so a file has one rank.
And for a text encoder they look up layers whether or not they are there: the projections of every
attention, and both layers of every MLP as soon as there is one. Zeros stand in for these; what reads the
file drops the padding.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from piu_lora.model.factors import Change, Factors, component, padded

__all__ = ["evened", "trimmed", "without_zeros", "zeros_for", "zeros_of"]

_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
_MLP = ("fc1", "fc2")


def zeros_for(change: Change, text_encoder: torch.nn.Module) -> dict[str, Factors]:
    """A zero of rank 1 for every layer of the text encoder that older loaders look up and the change lacks.

    Args:
        change: by module of the pipeline; one that leaves the text encoder alone needs none.
        text_encoder: of the base.
    """
    changed = [module for module in change if component(module) == "text_encoder"]
    endings = (*_ATTENTION, *(_MLP if any(module.endswith(_MLP) for module in changed) else ()))
    return {
        f"text_encoder.{name}": Factors(torch.zeros(1, layer.in_features), torch.zeros(layer.out_features, 1))
        for name, layer in text_encoder.named_modules()
        if changed and isinstance(layer, torch.nn.Linear) and name.endswith(endings)
        if f"text_encoder.{name}" not in change
    }


def evened(change: Change) -> dict[str, Factors]:
    """The same change with one rank in each component, that of its widest layer."""
    ranks: dict[str, int] = {}
    for module, factors in change.items():
        ranks[component(module)] = max(ranks.get(component(module), 0), factors.rank)
    return {module: padded(factors, ranks[component(module)]) for module, factors in change.items()}


def zeros_of(change: Change) -> dict[str, Factors]:
    """The layers that are zeros through and through; none where every layer is."""
    zeros = {m: factors for m, factors in change.items() if not (factors.down.any() or factors.up.any())}
    return zeros if len(zeros) < len(change) else {}


def without_zeros(change: Change) -> dict[str, Factors]:
    """The layers that are more than a stand-in."""
    zeros = zeros_of(change)
    return {module: factors for module, factors in change.items() if module not in zeros}


def trimmed(change: Mapping[str, Factors]) -> dict[str, Factors]:
    """The same change without the zeros that ``evened`` put behind the factors."""
    return {module: _trimmed(factors) for module, factors in change.items()}


def _trimmed(factors: Factors) -> Factors:
    used = (factors.down != 0).any(dim=1) | (factors.up != 0).any(dim=0)
    rank = max(int(used.nonzero().max()) + 1 if used.any() else 0, 1)
    if rank == factors.rank:
        return factors
    return replace(factors, down=factors.down[:rank], up=factors.up[:, :rank].contiguous())
