"""One task after the other, in this process."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from piu_lora.engine.job import Job

__all__ = ["Serial"]

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Serial:
    """No engine at all."""

    def run(self, job: Job[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """As ``Engine.run``; the job is opened at the first task."""
        run = None
        for index, task in enumerate(tasks):
            run = run or job.open()
            yield index, run(task)
