"""Equal shares of a batch."""

import torch

__all__ = ["shares"]


def shares(parts: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """(count,) places among ``parts``, each as often as the others but for one, in random order; drawn only
    where there is a choice.
    """
    if parts == 1:
        return torch.zeros(count, dtype=torch.long)
    order = torch.randperm(parts, generator=generator)
    return order.repeat(-(-count // parts))[:count][torch.randperm(count, generator=generator)]
