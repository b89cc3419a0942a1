"""Running the cells of an arena, by an engine."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from piu_lora.config import ForgetConfig
from piu_lora.engine import Engine
from piu_lora.evidence import Cell
from piu_lora.jobs.arena.arena import Arena
from piu_lora.jobs.arena.contender import Contender
from piu_lora.jobs.arena.round import Round
from piu_lora.jobs.request.request import open_request

__all__ = ["CellJob", "Task", "run_cells"]


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
            self._rounds[identity, config] = Round(
                session, request, sweep=self._arena.sweep, keep=self._arena.keep
            )
        return self._rounds[identity, config]


@dataclass(frozen=True)
class CellJob:
    """The cells of an arena, for an engine: every worker opens a session once."""

    arena: Arena

    def open(self) -> Callable[[Task], Cell]:
        """As ``engine.Job``."""
        return _Runner(self.arena).run


def run_cells(arena: Arena, tasks: Sequence[Task], engine: Engine) -> Iterator[tuple[Task, Cell]]:
    """Run every task and yield its cell as soon as it is finished."""
    for index, cell in engine.run(CellJob(arena), tasks):
        yield tasks[index], cell
