"""What follows from the findings: which commands can run."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from piu_lora.jobs.doctor.finding import Finding, Status
from piu_lora.jobs.doctor.models import ARC2FACE_LABEL, PACK, RECOGNIZER, SD15_LABEL, TOKEN
from piu_lora.jobs.doctor.models import SECTION as MODELS

__all__ = ["command_findings"]

SECTION = "Commands"
_LIBRARIES = tuple(
    ("Python", name)
    for name in ("torch", "diffusers", "peft", "transformers", "safetensors", "huggingface_hub", "accelerate")
)
_RUN = (*_LIBRARIES, ("Device", "torch"), ("Disk", "out"))
_MINI = (*_RUN, ("onnxruntime", "import"), (MODELS, "mini"))
_ARC2FACE = (*_RUN, (MODELS, ARC2FACE_LABEL), (MODELS, SD15_LABEL))
_FACES = (("Python", "insightface"), ("onnxruntime", "import"), (PACK, "detector"), (PACK, RECOGNIZER))


class _Command(NamedTuple):
    """A command, what it cannot do without, and what a part of it needs."""

    name: str
    needs: tuple[tuple[str, str], ...]
    partly: tuple[tuple[str, str], ...] = ()
    otherwise: str = ""


_PHOTOS = "only from a bank or embeddings, not from photos"
_EMBEDDED = (
    _Command("forget mini", _MINI),
    _Command("generate mini", _MINI),
    _Command("evaluate mini", _MINI),
)
_REAL = (
    _Command("forget arc2face", _ARC2FACE, _FACES, "only with --no-evaluate, and not from photos"),
    _Command("generate arc2face", _ARC2FACE, _FACES, _PHOTOS),
    _Command("evaluate arc2face", (*_ARC2FACE, *_FACES)),
)
_OTHERS = (
    _Command("bank build", (*_FACES, ("Disk", "out"))),
    _Command("stack mini", _MINI),
    _Command("push", (("Python", "huggingface_hub"), (TOKEN, "Hub token"))),
    _Command(
        "bank models", (("Python", "huggingface_hub"), ("Python", "insightface"), ("onnxruntime", "import"))
    ),
)


def command_findings(findings: Sequence[Finding], base: str | None) -> Iterator[Finding]:
    """Each command: ready, or what it lacks. Whether the network is up is not looked at.

    Args:
        findings: of all other sections.
        base: ``mini`` leaves Arc2Face out.
    """
    states = {(finding.section, finding.name): finding.status for finding in findings}
    for command in (*_EMBEDDED, *(() if base == "mini" else _REAL), *_OTHERS):
        lacking, partly = _lacking(command.needs, states), _lacking(command.partly, states)
        if lacking:
            yield Finding(SECTION, command.name, "missing", f"needs {_list(lacking)}")
        elif partly:
            yield Finding(
                SECTION, command.name, "warning", f"{command.otherwise}; for more it needs {_list(partly)}"
            )
        else:
            yield Finding(SECTION, command.name, "ok", "ready")


def _lacking(
    needs: Sequence[tuple[str, str]], states: dict[tuple[str, str], Status]
) -> list[tuple[str, str]]:
    """Needs that are missing, or that nothing is known of because their section failed."""
    return [need for need in needs if states.get(need, "missing") == "missing"]


def _list(needs: Sequence[tuple[str, str]]) -> str:
    """At most three, by section and name."""
    shown = ", ".join(f"{name} ({section})" for section, name in needs[:3])
    return f"{shown} and {len(needs) - 3} more" if len(needs) > 3 else shown
