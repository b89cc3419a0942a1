"""A change tried out: made, rounded as an adapter stores it, and mounted, without an adapter folder."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piu_lora.adapter import Change, OutputFolder, mounted
from piu_lora.jobs.request.request import ErasureRequest
from piu_lora.jobs.request.session import Session
from piu_lora.jobs.training.bank_statistics import measure_bank
from piu_lora.jobs.training.cost import Cost, measure_cost
from piu_lora.jobs.training.run_method import as_stored, run_method
from piu_lora.jobs.training.train import TrainingRun
from piu_lora.unlearn import find_method

__all__ = ["Trial", "made_trial", "tried"]


@dataclass(frozen=True)
class Trial:
    """A change tried out.

    Attributes:
        change: as it is stored.
        cost: what making it took.
        facts: what the method says of it.
    """

    change: Change
    cost: Cost
    facts: dict[str, Any]

    @property
    def rank(self) -> int:
        """Of the largest layer."""
        return max(factors.rank for factors in self.change.values())

    @property
    def stored_bytes(self) -> int:
        """In half precision."""
        return 2 * sum(factors.down.numel() + factors.up.numel() for factors in self.change.values())


def made_trial(session: Session, request: ErasureRequest) -> Trial:
    """Answer a request by the method of its settings; the pipeline stays bare.

    What is measured once for a bank and a base is no person's cost and is not counted.
    """
    method, pipe = find_method(request.config.method), session.pipe
    if method.solve or method.complete or request.config.train.start:
        measure_bank(session, request)
    scratch = tempfile.TemporaryDirectory(prefix=f"piu-lora-{os.getpid()}-")
    with scratch as folder, measure_cost(pipe.device) as cost:
        solution, _ = run_method(session, request, TrainingRun(OutputFolder(Path(folder) / "out")))
    return Trial(as_stored(solution.change), cost, solution.facts)


@contextlib.contextmanager
def tried(session: Session, request: ErasureRequest) -> Iterator[Trial]:
    """A trial; while open, the pipeline carries its change."""
    trial = made_trial(session, request)
    with mounted(session.pipe, trial.change):
        yield trial
