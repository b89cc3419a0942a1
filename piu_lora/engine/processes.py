"""Several processes on this machine, by joblib."""

import logging
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from piu_lora.engine.job import ATTEMPTS, Job, opened
from piu_lora.errors import EnvironmentProblem

__all__ = ["Processes"]

_log = logging.getLogger("piu_lora")
Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """Processes of joblib's ``loky``.

    Attributes:
        workers: at once.
        threads: of each.
    """

    workers: int
    threads: int

    def run(self, job: Job[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """As ``Engine.run``; a task whose process died is run again, three times at most."""
        import joblib
        from joblib.externals.loky import get_reusable_executor
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        waiting, deaths = dict(enumerate(tasks)), Counter[int]()
        pickled = pickle.dumps(job)
        try:
            while waiting:
                parallel = joblib.Parallel(
                    self.workers, "loky", return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs"
                )
                calls = [
                    joblib.delayed(_run)(pickled, self.threads, index, task)
                    for index, task in waiting.items()
                ]
                try:
                    for index, result in parallel(calls):
                        del waiting[index]
                        yield index, result
                except TerminatedWorkerError as error:
                    # Which task it was is not said: all that were under way are suspects.
                    suspects = list(waiting)[: self.workers]
                    deaths.update(suspects)
                    if max(deaths[index] for index in suspects) >= ATTEMPTS:
                        raise EnvironmentProblem(
                            f"a worker process died {ATTEMPTS} times over the same tasks, perhaps for want "
                            "of memory; use fewer processes"
                        ) from error
                    _log.warning("a worker process died; its task is run again")
        finally:
            get_reusable_executor().shutdown(wait=True, kill_workers=True)


@cache
def _worker(pickled: bytes, threads: int) -> Callable[[Any], Any]:
    """In a worker: what runs the tasks of a job, opened once."""
    return opened(pickle.loads(pickled), threads)


def _run(pickled: bytes, threads: int, index: int, task: Any) -> tuple[int, Any]:
    return index, _worker(pickled, threads)(task)
