"""Running the cells of an arena: one after the other, or in several processes."""

import contextlib
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from queue import Empty, Queue
from typing import NamedTuple

import torch

from piu_lora.config import ForgetConfig
from piu_lora.evidence import Cell
from piu_lora.jobs.arena.arena import Arena
from piu_lora.jobs.arena.round import Contender, Round
from piu_lora.jobs.request.request import open_request

__all__ = ["Task", "run_cells"]

_SECONDS = 1.0  # between two looks at whether a process has failed


class Task(NamedTuple):
    """A cell to run: the person's index among those drawn, their id in the bank, the seed, and the method."""

    person: int
    identity: str
    seed: int
    contender: Contender


class _Runner:
    """Runs cells in a session of its own; contenders of the same person and seed share their rounds."""

    def __init__(self, arena: Arena) -> None:
        self._arena, self._session = arena, arena.open_session()
        self._rounds: dict[tuple[str, ForgetConfig], Round] = {}

    def run(self, task: Task) -> Cell:
        """The finished cell."""
        settings = task.contender.request_settings(self._arena.config, self._arena.family)
        config = settings.updated({"seed": task.seed})
        return self._round(task.identity, config).play(task.contender, task.person)

    def _round(self, identity: str, config: ForgetConfig) -> Round:
        # The contenders of one person and seed come one after the other: only theirs are held in memory.
        if any((person, other.seed) != (identity, config.seed) for person, other in self._rounds):
            self._rounds.clear()
        if (identity, config) not in self._rounds:
            session = self._session
            request = open_request(identity, session.bank, config, session.reader)
            self._rounds[identity, config] = Round(session, request)
        return self._rounds[identity, config]


def run_cells(arena: Arena, tasks: Sequence[Task], processes: int) -> Iterator[tuple[Task, Cell]]:
    """Run every task and yield its cell as soon as it is finished.

    Args:
        processes: run at once, with an equal share of the processor's threads; each opens a session once.
    """
    if not tasks:
        return
    if processes <= 1:
        runner = _Runner(arena)
        for task in tasks:
            yield task, runner.run(task)
        return
    threads = max(torch.get_num_threads() // processes, 1)
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting, finished = manager.Queue(), manager.Queue()
        for task in tasks:
            waiting.put(task)
        workers = [pool.submit(_work, arena, threads, waiting, finished) for _ in range(processes)]
        try:
            for _ in tasks:
                yield _next_cell(workers, finished)
        finally:
            with contextlib.suppress(Empty):
                while True:  # leaves nothing for the workers to begin
                    waiting.get_nowait()


def _next_cell(workers: Sequence[Future[None]], finished: "Queue[tuple[Task, Cell]]") -> tuple[Task, Cell]:
    while True:
        try:
            return finished.get(timeout=_SECONDS)
        except Empty:
            for worker in workers:
                if worker.done():
                    worker.result()  # raises what has ended it


def _work(arena: Arena, threads: int, waiting: "Queue[Task]", finished: "Queue[tuple[Task, Cell]]") -> None:
    torch.set_num_threads(threads)
    runner = None
    with contextlib.suppress(Empty):
        while True:
            task = waiting.get_nowait()
            runner = runner or _Runner(arena)
            finished.put((task, runner.run(task)))
