"""Who is trained on and who is kept back for evaluation."""

import math
from dataclasses import dataclass

import torch

from piu_lora.config import SplitConfig
from piu_lora.errors import BadInput

__all__ = ["Split", "split_embeddings", "split_identities"]


@dataclass(frozen=True)
class Split:
    """Rows of the forgotten person's embeddings, and rows of the bank's identities, on either side."""

    forget_train: tuple[int, ...]
    forget_held_out: tuple[int, ...]
    retain_train: tuple[int, ...]
    retain_held_out: tuple[int, ...]


def split_identities(
    embeddings: int, retained: list[int], config: SplitConfig, generator: torch.Generator
) -> Split:
    """Hold out a share of the forgotten person's embeddings and of the retained identities (PIU, section
    4.1).

    A single embedding is on both sides: there is nothing else to evaluate on.

    Args:
        embeddings: how many embeddings of the forgotten person there are.
        retained: bank rows of everybody else.

    Raises:
        BadInput: too few identities to have both sides.
    """
    if len(retained) < 2:
        raise BadInput(
            f"the bank holds {len(retained)} other identities; at least 2 are needed, "
            "one to train on and one to evaluate"
        )
    train, held_out = split_embeddings(embeddings, config, generator)
    return Split(train, held_out, *_cut(retained, config.retain_held_out, generator))


def split_embeddings(
    count: int, config: SplitConfig, generator: torch.Generator
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows of one forgotten person's embeddings to train on, and to evaluate on."""
    if config.forget_held_out == 0 or count < 2:
        everything = tuple(range(count))
        return everything, everything
    return _cut(list(range(count)), config.forget_held_out, generator)


def _cut(
    rows: list[int], share: float, generator: torch.Generator
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    order = torch.randperm(len(rows), generator=generator).tolist()
    count = min(max(math.floor(share * len(rows)), 1), len(rows) - 1)
    return tuple(sorted(rows[i] for i in order[count:])), tuple(sorted(rows[i] for i in order[:count]))
