"""One folder, one report about one adapter: report.json, report.md, report.html. It names nobody."""

import platform
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Adapter, disk_errors, library_versions, weights_digest, write_file
from piu_lora.adapter.folder import DIFFUSERS_FILE
from piu_lora.errors import BadInput
from piu_lora.evidence import Policy, verdict_of
from piu_lora.evidence.report import (
    REPORT_FORMAT,
    Pictures,
    junit_xml,
    merged,
    publishable,
    read_report,
    report_html,
    report_markdown,
    to_json,
)
from piu_lora.jobs.case import Case
from piu_lora.jobs.scoring import REFERENCES, photographs_of
from piu_lora.model import describe

__all__ = ["REPORT_FILE", "earlier_pictures", "earlier_report", "finished", "new_document", "write_junit", "write_report"]

REPORT_FILE = "report.json"
_HTML, _MARKDOWN, _SHEET = "report.html", "report.md", "before_after.png"


def new_document(adapter: Adapter, pipe: StableDiffusionPipeline, case: Case, references: int = 0) -> dict[str, Any]:
    """A report without sections.

    Args:
        references: photographs given to verify the forgotten people against; 0 where the usual ones are taken.
    """
    usual = sum(REFERENCES if photographs_of(each, case, 1) is not None else len(each.held_out) for each in case.people)
    info = describe(pipe)
    return {
        "format": REPORT_FORMAT, "public": False, "seed": case.config.seed, "settings": case.public_settings, "verdict": None,
        "adapter": {
            "id": adapter.id, "method": adapter.receipt.method, "weights_sha256": weights_digest(adapter),
            "bytes": (adapter.path / DIFFUSERS_FILE).stat().st_size, "people": len(case.people),
        },
        "base": {"id": info.id, "family": info.family, "revision": info.revision or None},
        "environment": {
            "libraries": library_versions(), "device": str(pipe.device), "dtype": str(pipe.unet.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(), "platform": f"{platform.system()} {platform.machine()}",
        },
        "person": {
            "people": len(case.people), "train": sum(len(each.train) for each in case.people),
            "held_out": sum(len(each.held_out) for each in case.people), "references": references or usual,
        },
    }  # fmt: skip


def earlier_report(out: Path, section: str, adapter: Adapter, *, force: bool) -> dict[str, Any] | None:
    """The report that a folder holds already; None where there is none.

    Raises:
        BadInput: it has this section already, or is about another adapter, and ``force`` is not given.
    """
    path = out / REPORT_FILE
    if not path.exists():
        return None
    try:
        found = read_report(path)
    except BadInput:
        if force:
            return None
        raise
    same = found["adapter"]["weights_sha256"] == weights_digest(adapter)
    if same and found.get(section) is None:
        return found
    if not force:
        what = f"has an {section} already" if same else "is about another adapter"
        raise BadInput(f"the report {str(path)!r} {what}; choose another --out, or pass --force to replace it")
    return found if same else None


def finished(document: dict[str, Any], earlier: dict[str, Any] | None, policy: Policy) -> dict[str, Any]:
    """The document with the earlier report's other section, judged."""
    whole = merged(earlier, document) if earlier else document
    verdict = verdict_of(whole, policy)
    return {**whole, "verdict": verdict if verdict["lines"] else None}


def write_report(out: Path, document: dict[str, Any], pictures: Pictures, *, public: bool) -> list[Path]:
    """Write the report's files; all are made before the first is written.

    Args:
        pictures: their sheet is kept beside the report, so that a later section can show it again; a public report has none.
    """
    shown = publishable(document) if public else document
    files = {
        REPORT_FILE: to_json(shown), _MARKDOWN: report_markdown(shown), _HTML: report_html(shown, Pictures() if public else pictures),
    }  # fmt: skip
    with disk_errors(f"the report to {str(out)!r}"):
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_file(out / name, text.encode())
        if public:
            (out / _SHEET).unlink(missing_ok=True)
        elif pictures.sheet is not None:
            write_file(out / _SHEET, pictures.sheet, mode=0o600)
    return [out / name for name in files]


def earlier_pictures(out: Path) -> Pictures:
    """The pictures of the report that a folder holds."""
    sheet = out / _SHEET
    return Pictures(sheet.read_bytes() if sheet.is_file() else None)


def write_junit(path: Path, document: dict[str, Any]) -> None:
    """Write the verdict for systems that read JUnit XML."""
    with disk_errors(f"the verdict to {str(path)!r}"):
        write_file(path, junit_xml(document["verdict"], f"piu-lora {document['adapter']['id']}").encode())
