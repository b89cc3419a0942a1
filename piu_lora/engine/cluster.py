"""A cluster, by Ray (https://docs.ray.io): actors that open a job once and run its tasks."""

import logging
import os
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from piu_lora.engine.job import ATTEMPTS, Job, opened
from piu_lora.errors import EnvironmentProblem

__all__ = ["Cluster"]

_PATIENCE = 5.0  # seconds
_log = logging.getLogger("piu_lora")
Task = TypeVar("Task")
Result = TypeVar("Result")
# Neither usage reports nor the driver's arguments leave this machine.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_DEDUP_LOGS": "0"}


class _Worker:
    """A job, opened on some machine of the cluster. Objects and actors have no names, so that logs have none
    either.
    """

    def __init__(self, job: Job[Any, Any], threads: int) -> None:
        self._run = opened(job, threads)

    def run(self, task: Any) -> Any:
        return self._run(task)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster.

    Attributes:
        workers: at once; 0 is one for every processor.
        address: of a running cluster; without one, Ray is started here and ends with the tasks.
    """

    workers: int = 0
    address: str = ""

    def run(self, job: Job[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """As ``Engine.run``; a task whose worker or node died is run again by another."""
        if not tasks:
            return
        with _connected(self.address) as ray:
            count = min(self.workers or int(ray.cluster_resources().get("CPU", 1)), len(tasks))
            actor = ray.remote(num_cpus=1, max_restarts=0)(_Worker)
            shared = ray.put(job)

            def hired() -> Any:
                return actor.remote(shared, 1)

            yield from _run_all(ray, [hired() for _ in range(count)], hired, list(tasks))


def _run_all(ray: Any, workers: list[Any], hired: Any, tasks: list[Any]) -> Iterator[tuple[int, Any]]:
    waiting, deaths = list(range(len(tasks)))[::-1], Counter[int]()
    running: dict[Any, tuple[int, Any]] = {}

    def give(worker: Any) -> None:
        if waiting:
            index = waiting.pop()
            running[worker.run.remote(tasks[index])] = (index, worker)

    for worker in workers:
        give(worker)
    while running:
        (reference, *_), _ = ray.wait(list(running))
        index, worker = running.pop(reference)
        try:
            result = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            deaths[index] += 1
            if deaths[index] >= ATTEMPTS:
                raise EnvironmentProblem(
                    f"workers of the cluster died {ATTEMPTS} times over one task, perhaps for want of "
                    "memory; use fewer workers"
                ) from error
            _log.warning("a worker of the cluster died; its task is run again")
            waiting.append(index)
            give(hired())
            continue
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        give(worker)
        yield index, result


def _require_reachable(address: str) -> None:
    """Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except OSError as error:
        raise EnvironmentProblem(
            f"the Ray cluster {address!r} cannot be reached: {error}; look at `ray status` there"
        ) from error


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise EnvironmentProblem(
            "engine = 'ray' needs Ray, which is not installed: pip install 'piu-lora[cluster]'"
        ) from error
    options: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
    if not address or address.startswith("127."):
        # Nothing listens on the machine's outer address, which Ray would take otherwise.
        options["_node_ip_address"] = address.rpartition(":")[0] or "127.0.0.1"
    owned = not ray.is_initialized()
    if owned:
        _require_reachable(address)
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"the Ray cluster {address!r} cannot be reached" if address else "Ray cannot be started"
            raise EnvironmentProblem(f"{where}: {error}; look at `ray status`") from error
    try:
        yield ray
    finally:
        if owned:
            ray.shutdown()  # with its object store
