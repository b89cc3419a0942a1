"""What an engine runs."""

import os
from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["ATTEMPTS", "Job", "opened"]

Task = TypeVar("Task", contravariant=True)
Result = TypeVar("Result", covariant=True)
ATTEMPTS = 3  # of a task whose worker died


class Job(Protocol[Task, Result]):
    """Work on many tasks that share what is opened once; it is sent to other processes, and so are its tasks
    and results. It names nobody: engines log its type.
    """

    def open(self) -> Callable[[Task], Result]:
        """What a worker does once, before its first task.

        Returns:
            What runs one task.
        """


def opened(job: Job[Task, Result], threads: int) -> Callable[[Task], Result]:
    """A worker's share of the processor, and what runs its tasks.

    Args:
        threads: of the worker.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    return job.open()
