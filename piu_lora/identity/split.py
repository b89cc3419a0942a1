"""Who is trained on and who is kept back for evaluation."""

import math
from dataclasses import dataclass

import torch

from piu_lora.config import SplitConfig
from piu_lora.errors import BadInput

__all__ = ["Split", "split_identities"]


@dataclass(frozen=True)
class Split:
    """Rows of the forgotten person's embeddings, and rows of the bank's identities, on either side."""

    forget_train: tuple[int, ...]
    forget_held_out: tuple[int, ...]
    retain_train: tuple[int, ...]
    retain_held_out: tuple[int, ...]


def split_identities(embeddings: int, retained: list[int], config: SplitConfig, generator: torch.Generator) -> Split:
    """Hold out a share of the forgotten person's embeddings and of the retained identities (PIU, section 4.1).

    A single embedding is on both sides: there is nothing else to evaluate on.

    Args:
        embeddings: how many embeddings of the forgotten person there are.
        retained: bank rows of everybody else.

    Raises:
        BadInput: too few identities to have both sides.
    """
    if len(retained) < 2:
        raise BadInput(f"the bank holds {len(retained)} other identities; at least 2 are needed, one to train on and one to evaluate")
    if config.forget_held_out == 0 or embeddings < 2:
        everything = tuple(range(embeddings))
        train, held = everything, everything
    else:
        train, held = _cut(list(range(embeddings)), config.forget_held_out, generator)
    return Split(train, held, *_cut(retained, config.retain_held_out, generator))


def _cut(rows: list[int], share: float, generator: torch.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    order = torch.randperm(len(rows), generator=generator).tolist()
    held = min(max(math.floor(share * len(rows)), 1), len(rows) - 1)
    return tuple(sorted(rows[i] for i in order[held:])), tuple(sorted(rows[i] for i in order[:held]))
