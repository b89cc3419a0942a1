"""One folder, one report about one adapter: report.json, report.md, report.html. It names nobody."""

import logging
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from piu_lora.adapter import Adapter, disk_errors, library_versions, weights_digest, write_file
from piu_lora.adapter.folder import DIFFUSERS_FILE
from piu_lora.errors import BadInput
from piu_lora.evidence import Evaluation, Policy, verdict_of
from piu_lora.evidence.report import (
    REPORT_FORMAT,
    Pictures,
    Report,
    junit_xml,
    merged,
    publishable,
    read_report,
    report_html,
    report_markdown,
    report_of,
    to_json,
)
from piu_lora.evidence.report.document import AdapterFacts
from piu_lora.jobs.evaluation.scoring import REFERENCES, photographs_of
from piu_lora.jobs.request.request import ErasureRequest
from piu_lora.jobs.request.session import Session
from piu_lora.writing import check_target, make_folder

__all__ = [
    "REPORT_FILE",
    "Reported",
    "adapter_report",
    "document_of",
    "earlier_pictures",
    "earlier_report",
    "finished",
    "new_document",
    "warn_of_others",
    "write_junit",
    "write_report",
]

_log = logging.getLogger("piu_lora")
REPORT_FILE = "report.json"
_HTML, _MARKDOWN, _SHEET = "report.html", "report.md", "before_after.png"


@dataclass(frozen=True)
class Reported:
    """A finished job: the report with its verdict, and the files that were written."""

    report: Report
    files: tuple[Path, ...]

    @property
    def document(self) -> dict[str, Any]:
        """The report as plain values, as report.json holds it."""
        return self.report.to_dict()


def new_document(
    adapter: Adapter, session: Session, request: ErasureRequest, references: int = 0
) -> dict[str, Any]:
    """A report without sections.

    Args:
        references: photographs given to verify the forgotten people against; 0 where the usual ones are
            taken.
    """
    facts = AdapterFacts(
        id=adapter.id,
        method=adapter.receipt.method,
        weights_sha256=weights_digest(adapter),
        bytes=(adapter.path / DIFFUSERS_FILE).stat().st_size,
        people=adapter.receipt.people,
    )
    return document_of(facts, session, request, references)


def document_of(
    adapter: AdapterFacts, session: Session, request: ErasureRequest, references: int = 0
) -> dict[str, Any]:
    """The same of what is in no adapter folder."""
    usual = sum(
        REFERENCES if photographs_of(person.subject.row, request, 1) is not None else len(person.held_out)
        for person in request.people
    )
    info, pipe = session.info, session.pipe
    return {
        "format": REPORT_FORMAT,
        "public": False,
        "seed": request.config.seed,
        "settings": request.public_settings,
        "verdict": None,
        "adapter": adapter.to_dict(),
        "base": {"id": info.id, "family": info.family.name, "revision": info.revision or None},
        "environment": {
            "libraries": library_versions(),
            "device": str(pipe.device),
            "dtype": str(pipe.unet.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "platform": f"{platform.system()} {platform.machine()}",
        },
        "person": {
            "people": len(request.people),
            "train": sum(len(person.train) for person in request.people),
            "held_out": sum(len(person.held_out) for person in request.people),
            "references": references or usual,
        },
    }


def adapter_report(
    adapter: AdapterFacts, session: Session, request: ErasureRequest, evaluation: Evaluation, seconds: float
) -> Report:
    """The report that an adapter folder carries, of the evaluation at the end of ``forget``: its public form,
    since the folder may be published as a whole.

    Args:
        evaluation: of this adapter.
        seconds: what it took.
    """
    section = {
        "seconds": seconds,
        "images": 2 * len(evaluation.plan.shots),
        "recognizers": evaluation.figures,
        "agreement": None,
        "quality": None,
        "expected": evaluation.expected,
        "sweeps": [],
        "notes": [],
    }
    return publishable(report_of({**document_of(adapter, session, request), "evaluation": section}))


def warn_of_others(adapter: Adapter, request: ErasureRequest) -> None:
    """Warn where an adapter forgets more people than are named: the others would count as retained."""
    people = adapter.receipt.people
    if people > len(request.people):
        _log.warning(
            "the adapter forgets %d people, and %d named: the others count as people who stay; name them all",
            people,
            len(request.people),
        )


def earlier_report(out: Path, section: str, adapter: Adapter, *, force: bool) -> Report | None:
    """The report that a folder holds already; None where there is none.

    Args:
        section: the one that is to be added, ``evaluation`` or ``audit``.
        force: replace that section, or a report about another adapter.

    Raises:
        BadInput: it has this section already, or is about another adapter, and ``force`` is not given;
            ``out`` is no place for a report.
    """
    check_target(out)
    if out.exists() and not out.is_dir():
        raise BadInput(f"out = {str(out)!r} is a file; name a folder for the report")
    if out.resolve().is_relative_to(adapter.path.resolve()):
        raise BadInput(
            f"out = {str(out)!r} lies in the adapter folder, whose receipt lists every file; "
            "choose a folder elsewhere"
        )
    path = out / REPORT_FILE
    if not path.exists():
        return None
    try:
        report = read_report(path)
    except BadInput as error:
        if force:
            return None
        raise BadInput(f"{error}; pass force=True to replace it") from error
    same_adapter = report.adapter.weights_sha256 == weights_digest(adapter)
    if same_adapter and getattr(report, section) is None:
        return report
    if not force:
        fault = f"has an {section} already" if same_adapter else "is about another adapter"
        raise BadInput(
            f"the report {str(path)!r} {fault}; choose another folder, or pass force=True to replace it"
        )
    return report if same_adapter else None


def finished(document: dict[str, Any], earlier: Report | None, policy: Policy, *, public: bool) -> Report:
    """The report with the earlier one's other section, judged; then what is about the person is left out
    where it is public.

    Args:
        document: plain values of a report with one section.
        earlier: the report that is there already, if any.
    """
    report = report_of(document)
    complete = merged(earlier, report) if earlier else report
    if policy.audit and complete.audit is None:
        _log.warning(
            "policy %s has limits on an audit, which this report lacks: "
            "run `piu-lora audit` into the same folder",
            policy.name,
        )
    verdict = verdict_of(complete, policy)
    judged = complete.model_copy(update={"verdict": verdict if verdict.lines else None})
    return publishable(judged) if public else judged


def write_report(out: Path, report: Report, pictures: Pictures) -> list[Path]:
    """Write the report's files; all are made before the first is written. Only the owner can read those that
    are not public.

    Args:
        pictures: their sheet is kept beside the report, so that a later section can show it again; a public
            report has none.
    """
    public = report.public
    files = {
        REPORT_FILE: to_json(report),
        _MARKDOWN: report_markdown(report),
        _HTML: report_html(report, pictures),
    }
    with disk_errors(f"the report to {str(out)!r}"):
        make_folder(out)
        for name, text in files.items():
            write_file(out / name, text.encode(), mode=0o644 if public else 0o600)
        if public:
            (out / _SHEET).unlink(missing_ok=True)
        elif pictures.sheet is not None:
            write_file(out / _SHEET, pictures.sheet, mode=0o600)
    return [out / name for name in (*files, _SHEET) if (out / name).exists()]


def earlier_pictures(out: Path) -> Pictures:
    """The pictures of the report that a folder holds."""
    sheet = out / _SHEET
    return Pictures(sheet.read_bytes() if sheet.is_file() else None)


def write_junit(path: Path, report: Report) -> None:
    """Write the verdict for systems that read JUnit XML."""
    with disk_errors(f"the verdict to {str(path)!r}"):
        write_file(path, junit_xml(report.verdict, f"piu-lora {report.adapter.id}").encode())
