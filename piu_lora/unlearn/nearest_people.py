"""Real people near to the forgotten ones, for the retain batch of a training."""

import torch

from piu_lora.unlearn.registry import Problem, shares

__all__ = ["NearestPeople"]


class NearestPeople:
    """Real people who are much like a forgotten one, for the retain batch; nothing is looked for or drawn
    where the share is 0.
    """

    def __init__(self, problem: Problem, share: float, pool: int) -> None:
        self.problem, self.share = problem, share
        self.places = problem.nearest(pool) if share else None

    def count(self, batch: int) -> int:
        """How many there are in a batch."""
        return round(self.share * batch)

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """(count, d) embeddings, near the targets in equal shares."""
        if self.places is None or not count:
            return self.problem.centres[:0]
        whose = shares(len(self.places), count, generator)
        return self.problem.retain[
            self.places[whose, torch.randint(self.places.shape[1], (count,), generator=generator)]
        ]
