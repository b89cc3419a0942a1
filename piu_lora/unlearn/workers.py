"""Several processes that train one adapter together; the loop sees only this."""

from typing import Protocol

import torch

__all__ = ["SingleProcess", "Workers"]


class Workers(Protocol):
    """The processes of one run. Every one draws the same samples and takes its share of them."""

    @property
    def rank(self) -> int:
        """Of this process, from 0."""

    @property
    def count(self) -> int:
        """How many there are."""

    def sum(self, tensors: list[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; the same answer everywhere."""


class SingleProcess:
    """One process."""

    rank, count = 0, 1

    def sum(self, tensors: list[torch.Tensor]) -> None:
        """Nothing to add."""

    def any(self, flag: bool) -> bool:
        """Its own flag."""
        return flag
