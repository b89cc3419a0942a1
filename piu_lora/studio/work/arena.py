"""An arena's methods side by side: where each stands, and the faces behind a point."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from piu_lora.errors import BadInput
from piu_lora.studio.bench import BaseChoice, Bench
from piu_lora.studio.queue import Job
from piu_lora.studio.work.pictures import Draw, Pair, draw_pairs, neighbours_of

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from piu_lora.evidence import Cell
    from piu_lora.evidence.comparison import Row
    from piu_lora.jobs.arena.arena import Arena
    from piu_lora.jobs.request.request import ErasureRequest
    from piu_lora.jobs.request.session import Session

__all__ = ["ArenaFaces", "ArenaView", "arena_work", "faces_work"]

_LOOKS, _NEIGHBOURS = 3, 4


@dataclass(frozen=True)
class ArenaFaces:
    """What a contender did to the person who is nearest to its median.

    Attributes:
        note: what sets these faces apart from those that were measured; empty where nothing does.
    """

    variant: str
    person: str
    looks: tuple[Pair, ...]
    neighbours: tuple[Pair, ...]
    note: str = ""


@dataclass(frozen=True)
class ArenaView:
    """An arena that was read.

    Attributes:
        cells: as they were read.
        rows: by recognizer, the one that only evaluates first; a row for each contender.
    """

    folder: Path
    cells: "tuple[Cell, ...]"
    rows: "dict[str, list[Row]]"
    faces: ArenaFaces | None = None

    @property
    def people(self) -> int:
        """How many were forgotten."""
        return len({cell.person for cell in self.cells})

    @property
    def seeds(self) -> int:
        """With how many seeds each."""
        return len({cell.seed for cell in self.cells})

    @property
    def variants(self) -> list[str]:
        """The contenders, in the order of their numbers."""
        return [row.variant for row in next(iter(self.rows.values()))]


def arena_work(folder: Path) -> Callable[[Job], None]:
    """Read an arena."""

    def work(job: Job) -> None:
        with job.progress("read the arena", 0):
            job.show(_view(folder))

    return work


def _view(folder: Path) -> ArenaView:
    from piu_lora.evidence.comparison import evaluating_first, rows_of

    cells = _cells(folder)
    rows: dict[str, list[Row]] = {}
    for row in rows_of(cells):
        rows.setdefault(row.recognizer, []).append(row)
    return ArenaView(folder, tuple(cells), {name: rows[name] for name in evaluating_first(rows)})


def _cells(folder: Path) -> "list[Cell]":
    from piu_lora.jobs.arena.arena import read_arena
    from piu_lora.jobs.arena.cells import CellStore

    read_arena(folder)  # refuses whatever is none
    cells = CellStore(folder).all()
    if not cells:
        raise BadInput("that arena has no cells yet; `piu-lora compare` runs them")
    return cells


def faces_work(bench: Bench, view: ArenaView, variant: str) -> Callable[[Job], None]:
    """Run a contender once more on one person, and draw the faces before and after."""

    def work(job: Job) -> None:
        from piu_lora.jobs.arena.arena import drawn_people
        from piu_lora.jobs.arena.contender import Contender
        from piu_lora.jobs.arena.making import Maker
        from piu_lora.jobs.request.request import open_request

        session = bench.session(job.progress)
        arena = _arena(bench.choice, view.folder, session)
        cell = _typical(view, variant)
        method, *pairs = variant.split()
        contender = Contender(method, tuple(pairs))
        current = contender.settings(arena.config, arena.family) == cell.settings
        person = drawn_people(session.bank, arena.family, cell.person + 1)[cell.person]
        config = contender.request_settings(arena.config, arena.family).updated({"seed": cell.seed})
        request = open_request(person, session.bank, config, session.reader)
        maker = Maker(session, request)
        with job.progress(f"run {contender.name}; it cannot be stopped on the way", 0):
            maker.make(contender)
        job.check()
        with maker.carried(contender) as pipe:
            faces = _faces(session, request, pipe, job)
        note = "" if current else "Drawn by the settings of today; those of the arena were others."
        job.show(
            replace(
                view, faces=ArenaFaces(variant, person, tuple(faces[:_LOOKS]), tuple(faces[_LOOKS:]), note)
            )
        )

    return work


def _arena(choice: BaseChoice, folder: Path, session: "Session") -> "Arena":
    """The arena of a folder.

    Raises:
        BadInput: it is not one of this base and bank.
    """
    from piu_lora.jobs.arena.arena import Arena, read_arena, shared_settings

    digest, settings = read_arena(folder)
    config = shared_settings(session.family).updated(settings)
    arena = Arena(choice.base, choice.bank, choice.pack, None, None, choice.device, config)
    if arena.digest(session.bank, None) != digest:
        raise BadInput(
            "that arena was made on another base or bank, or with a second recognizer, so its faces cannot "
            "be drawn here; open the studio on its base and bank"
        )
    return arena


def _typical(view: ArenaView, variant: str) -> "Cell":
    """The cell of a contender that is nearest to its median of forgetting."""
    recognizer, rows = next(iter(view.rows.items()))
    middle = next((row.figures["forget"] for row in rows if row.variant == variant), None)
    cells = [cell for cell in view.cells if cell.variant == variant]
    if not cells:
        raise BadInput(f"{variant!r} is not in that arena; choose one of its points")

    def distance(cell: "Cell") -> float:
        value = cell.figures[recognizer]["forget"]
        return float("inf") if value is None or middle is None else abs(value - middle[0])

    return min(cells, key=distance)


def _faces(
    session: "Session", request: "ErasureRequest", pipe: "StableDiffusionPipeline", job: Job
) -> Sequence[Pair]:
    from piu_lora.identity import centroid

    person, bank = request.people[0], request.bank
    shown = person.subject.embeddings[list(person.held_out)]
    centre = centroid(person.subject.embeddings)
    rows = neighbours_of(request, centre, _NEIGHBOURS)
    faces = [(f"picture {place + 1}", shown[place % len(shown)], 1 + place) for place in range(_LOOKS)]
    faces += [(bank.ids[row], bank.centroid(row), 1) for row in rows]
    evaluation = request.config.evaluation
    how = Draw(evaluation.steps, evaluation.guidance)
    bare = None if pipe is session.pipe else session.pipe
    return draw_pairs(pipe, faces, how, job.progress, reader=session.reader, bare=bare)
