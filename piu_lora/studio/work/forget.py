"""Forgetting somebody, with a first look before the figures."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from piu_lora.studio.bench import Bench
from piu_lora.studio.queue import Job
from piu_lora.studio.visitors import FROM_PHOTOGRAPHS, MadeAdapter, Visitor
from piu_lora.studio.work.pictures import Draw, Pair, draw_pairs, neighbours_of

if TYPE_CHECKING:
    from piu_lora.evidence.report import Report
    from piu_lora.jobs.forget import ForgetResult
    from piu_lora.jobs.request.request import ErasureRequest
    from piu_lora.jobs.request.session import Session

__all__ = ["Forgotten", "Wish", "forget_work"]

_LOOKS, _NEIGHBOURS = 3, 4
_PERSON = "person.npy"  # beside an adapter, not in it


@dataclass(frozen=True)
class Wish:
    """Whom to forget, and how.

    Attributes:
        person: an id of the bank; empty where photographs say who is meant.
        settings: ``section.key=value`` pairs over the preset of base and method.
    """

    person: str
    photographs: tuple[Path, ...]
    method: str
    seed: int = 42
    evaluate: bool = True
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Forgotten:
    """What there is to see.

    Attributes:
        looks: the forgotten person.
        anchor: who replaces them, as the base draws them.
        neighbours: the people of the bank most like them.
        report: of the evaluation, judged; None before it is done.
        adapter: its id; empty before it is written.
    """

    person: str
    method: str
    looks: tuple[Pair, ...]
    anchor: Pair
    neighbours: tuple[Pair, ...]
    report: "Report | None" = None
    adapter: str = ""
    bytes: int = 0


def forget_work(bench: Bench, visitor: Visitor, wish: Wish) -> Callable[[Job], None]:
    """The job; cancelled or failed, it leaves nothing in the visitor's folder."""

    def work(job: Job) -> None:
        from piu_lora.config import ForgetConfig
        from piu_lora.jobs.forget import forget

        with job.progress("open the base", 1):
            session = bench.session(job.progress)
        preset = ForgetConfig.preset(session.family, wish.method)
        stated = {"method": wish.method, "seed": wish.seed}
        config = preset.updated_from_pairs(list(wish.settings)).updated(stated)
        folder = visitor.new_folder("adapter")
        folder.mkdir(mode=0o700)

        def look(session: "Session", request: "ErasureRequest") -> None:
            if not wish.person:  # the photographs may go before the adapter does
                _write_person(folder / _PERSON, request)
            job.show(_first_look(bench, session, request, wish, job))

        try:
            with job.progress("solve", 0):
                result = forget(
                    _identity(wish),
                    session.pipe,
                    folder / "adapter",
                    bank=session.bank,
                    pack=bench.choice.pack,
                    config=config,
                    evaluate=wish.evaluate,
                    progress=job.progress,
                    preview=look,
                )
        except BaseException:
            job.result = None
            shutil.rmtree(folder, ignore_errors=True)
            raise
        bench.times.took(wish.method, result.receipt.seconds["train"])
        _keep(visitor, wish, wish.person or str(folder / _PERSON), result, job)
        job.show(
            replace(
                job.result,
                report=_judged(result),
                adapter=result.receipt.adapter_id,
                bytes=sum(path.stat().st_size for path in result.path.rglob("*") if path.is_file()),
            )
        )

    return work


def _identity(wish: Wish) -> "Sequence[str | Path]":
    if wish.person:
        return [wish.person]
    # The folder of a visitor's photographs: one person in several pictures.
    return [wish.photographs[0].parent if len(wish.photographs) > 1 else wish.photographs[0]]


def _write_person(path: Path, request: "ErasureRequest") -> None:
    import numpy as np

    from piu_lora.writing import replacing

    with replacing(path, mode=0o600) as temporary, temporary.open("wb") as file:
        np.save(file, request.people[0].subject.embeddings.numpy())


def _keep(visitor: Visitor, wish: Wish, identity: str, result: "ForgetResult", job: Job) -> None:
    who = wish.person or FROM_PHOTOGRAPHS
    key = result.receipt.adapter_id
    visitor.adapters[key] = MadeAdapter(result.path, identity, f"{who}, {wish.method}")
    visitor.downloads[job.key] = (result.path, f"adapter-{key}")


def _first_look(
    bench: Bench, session: "Session", request: "ErasureRequest", wish: Wish, job: Job
) -> Forgotten:
    """The forgotten person, the anchor and the nearest neighbours, while the new adapter is active."""
    from piu_lora.identity import centroid

    person, bank = request.people[0], request.bank
    shown = person.subject.embeddings[list(person.held_out)]
    centre = centroid(person.subject.embeddings)
    rows = neighbours_of(request, centre, _NEIGHBOURS)
    name = wish.person or "forgotten"
    faces = [(name, shown[place % len(shown)], 1 + place) for place in range(_LOOKS)]
    faces.append(("anchor", person.anchor.embedding, 1))
    faces += [(bank.ids[row], bank.centroid(row), 1) for row in rows]
    cosines = [None] * (_LOOKS + 1) + [float(bank.centroid(row) @ centre) for row in rows]
    evaluation = request.config.evaluation
    how = Draw(evaluation.steps, evaluation.guidance)
    pairs = draw_pairs(session.pipe, faces, how, job.progress, cosines, session.reader)
    for row, pair in zip(rows, pairs[_LOOKS + 1 :], strict=True):
        bench.remember(row, pair.before)
    return Forgotten(
        wish.person, wish.method, tuple(pairs[:_LOOKS]), pairs[_LOOKS], tuple(pairs[_LOOKS + 1 :])
    )


def _judged(result: "ForgetResult") -> "Report | None":
    """The folder's report with a verdict on what this evaluation measures; image quality is evaluate's."""
    if result.evaluation is None:
        return None
    from piu_lora.evidence import Policy, verdict_of
    from piu_lora.evidence.report import read_report
    from piu_lora.jobs.evaluation.report import REPORT_FILE

    report = read_report(result.path / "report" / REPORT_FILE)
    limits = Policy().evaluation.updated({"sharpness": "off", "doubles": "off"})
    verdict = verdict_of(report, Policy(name="default, without image quality", evaluation=limits))
    return report.model_copy(update={"verdict": verdict})
