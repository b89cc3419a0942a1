"""closed-kv: the keys and values of the cross-attention take the forgotten person's condition for the
anchor's.
"""

from collections.abc import Iterable, Sequence

import torch

from piu_lora.model.factors import Factors
from piu_lora.unlearn.closed.solve import Edit, SecondMoments

__all__ = ["condition_second_moments", "kv_modules", "shared_edit"]


def condition_second_moments(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], eta: float) -> SecondMoments:
    """What the condition should change by, ``(1 + eta) (c_a - c_f)``, against what it is.

    Args:
        pairs: conditions of a forgotten person's mixtures (n, tokens, hidden) and of their anchor (1, tokens,
            hidden), identity-bearing tokens only; at least one pair.
        eta: how far beyond the anchor.
    """
    moments: SecondMoments | None = None
    for forget, anchor in pairs:
        moments = moments or SecondMoments.empty(forget.shape[-1], forget.shape[-1])
        moments.add(forget.flatten(0, 1), ((1 + eta) * (anchor - forget)).flatten(0, 1))
    if moments is None:
        raise ValueError("nobody to forget")
    return moments


def shared_edit(edit: Edit, weights: Iterable[tuple[str, torch.Tensor]]) -> dict[str, Factors]:
    """``dW_l = W_l M`` for every layer that sees the condition: M's ``down`` is shared, ``up_l = W_l U``.

    Args:
        edit: of the condition, ``M = U V``.
        weights: layers and their base weights, (out, hidden).
    """
    up = edit.factors.up.double()
    return {
        module: Factors(edit.factors.down, (weight.cpu().double() @ up).float()) for module, weight in weights
    }


def kv_modules(modules: Iterable[str], blocks: Sequence[str]) -> list[str]:
    """The key and value projections of the cross-attention in those blocks, with ``unet.`` in front."""
    starts = tuple(f"{block}." for block in blocks)
    return [
        f"unet.{name}"
        for name in modules
        if name.startswith(starts) and name.endswith(("attn2.to_k", "attn2.to_v"))
    ]
