"""A change tried out: made, rounded as an adapter stores it, and mounted, without an adapter folder."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Change, OutputFolder, mounted
from piu_lora.jobs.request.request import ErasureRequest
from piu_lora.jobs.training.bank_statistics import measure_bank
from piu_lora.jobs.training.cost import Measured, measured
from piu_lora.jobs.training.run_method import run_method
from piu_lora.progress import silent
from piu_lora.unlearn import SingleProcess, find_method

__all__ = ["Trial", "tried"]


@dataclass(frozen=True)
class Trial:
    """The change as it is stored, what making it took, and what is worth knowing of it."""

    change: Change
    cost: Measured
    facts: dict[str, Any]

    @property
    def rank(self) -> int:
        """Of the largest layer."""
        return max(factors.rank for factors in self.change.values())

    @property
    def stored_bytes(self) -> int:
        """In half precision."""
        return 2 * sum(factors.down.numel() + factors.up.numel() for factors in self.change.values())


@contextlib.contextmanager
def tried(pipe: StableDiffusionPipeline, request: ErasureRequest) -> Iterator[Trial]:
    """Answer a request by the method of its settings; while open, the pipeline carries the change.

    What is measured once for a bank and a base is no person's cost and is not counted.
    """
    method = find_method(request.config.method)
    if method.solve or method.complete or request.config.train.start:
        measure_bank(pipe, request, silent)
    with tempfile.TemporaryDirectory() as folder, measured(pipe.device) as cost:
        solution, _ = run_method(
            pipe, method, request, OutputFolder(Path(folder) / "out"), None, SingleProcess(), silent
        )
    stored = {
        module: factors.to(torch.float16).to(torch.float32) for module, factors in solution.change.items()
    }
    with mounted(pipe, stored):
        yield Trial(stored, cost, solution.facts)
