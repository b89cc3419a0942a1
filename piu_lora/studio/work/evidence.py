"""Evidence: an adapter evaluated or audited, with the report that both write."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from piu_lora.errors import BadInput
from piu_lora.studio.bench import Bench
from piu_lora.studio.queue import Job
from piu_lora.studio.visitors import Visitor

if TYPE_CHECKING:
    from piu_lora.evidence.report.document import Verdict

__all__ = ["QUICK", "Examined", "evidence_work"]

# Fewer pictures and no sweeps: a first answer, not evidence for a release.
QUICK = (
    "evaluation.forget_images=8",
    "evaluation.retain_images=8",
    "evaluation.nearest=4",
    "report.leak_images=16",
    "report.sweep_images=0",
    "report.precision=false",
    "report.mixtures=false",
)


@dataclass(frozen=True)
class Examined:
    """A finished report: the key by which the browser asks for it, and its verdict."""

    name: str
    report: str
    verdict: "Verdict | None"


def evidence_work(
    bench: Bench, visitor: Visitor, key: str, person: str, kind: Literal["evaluate", "audit"], *, quick: bool
) -> Callable[[Job], None]:
    """The job; an evaluation and an audit of one adapter share a report."""

    def work(job: Job) -> None:
        from piu_lora.jobs.auditing.audit import audit
        from piu_lora.jobs.evaluation.evaluate import evaluate
        from piu_lora.jobs.evaluation.report import REPORT_FILE

        session = bench.session(job.progress)
        adapter = visitor.adapter(key)
        identity = person or adapter.person
        if not identity:
            raise BadInput("whom this adapter forgets is not known; write the person's id")
        people = (
            [Path(identity)] if adapter.person == identity and identity not in session.bank else [identity]
        )
        out = visitor.folder / f"report-{key}"
        shared: dict[str, Any] = {
            "bank": session.bank,
            "pack": bench.choice.pack,
            "force": True,
            "progress": job.progress,
        }
        if kind == "evaluate":
            settings = QUICK if quick else ()
            result = evaluate(
                adapter.path, people, session.pipe, out, settings=settings, images=True, **shared
            ).report
        else:
            budget = "quick" if quick else "default"
            result = audit(adapter.path, people, session.pipe, out, budget=budget, **shared).report
        assert (out / REPORT_FILE).is_file()
        name = f"{adapter.name}, {result.adapter.id[:8]}"
        visitor.reports[key] = (name, out / "report.html")
        job.show(Examined(name, key, result.verdict))

    return work
