"""The engines, by name."""

import os
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, TypeVar, get_args

from piu_lora.engine.job import Job
from piu_lora.engine.processes import Processes
from piu_lora.engine.serial import Serial
from piu_lora.errors import BadInput
from piu_lora.threads import usable

__all__ = ["ENGINES", "Engine", "EngineName", "find_engine"]

Task = TypeVar("Task")
Result = TypeVar("Result")
EngineName = Literal["processes", "ray"]
ENGINES: tuple[str, ...] = get_args(EngineName)


class Engine(Protocol):
    """Runs tasks."""

    def run(self, job: Job[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Run every task; a worker that dies is replaced, and its task run again.

        Yields:
            The index of a task and its result, as soon as it is there.

        Raises:
            EnvironmentProblem: workers died again and again over one task.
            Exception: whatever a task raises.
        """


def find_engine(name: str = "processes", workers: int = 1, address: str = "") -> Engine:
    """The engine of that name.

    Args:
        name: ``processes`` on this machine, or ``ray`` on a cluster.
        workers: at once; of ``processes``, 1 runs everything in this one. Of ``ray``, 0 is one for every
            processor of the cluster.
        address: of a Ray cluster; without one, Ray is started on this machine for as long as the tasks take.

    Raises:
        BadInput: unknown, or an address that nobody asked for.
        EnvironmentProblem: Ray is not installed.
    """
    if name not in ENGINES:
        raise BadInput(f"engine = {name!r} is unknown; known: {', '.join(ENGINES)}")
    if name == "ray":
        from piu_lora.engine.cluster import Cluster

        return Cluster(workers, address)
    if address:
        raise BadInput(f"address = {address!r} is of a Ray cluster; pass engine='ray' with it")
    return Processes(workers, _threads(workers)) if workers > 1 else Serial()


def _threads(workers: int) -> int:
    """An equal share of what this process may use."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    available = int(stated) if stated.isdigit() else usable()
    return max(available // workers, 1)
