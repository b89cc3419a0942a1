"""What was found out about this machine, and which commands can run by it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Finding", "Report", "command_findings", "first_line", "guarded", "size"]

_MINI = ("torch (Device)", "import (onnxruntime)", "mini (Models)", "out (Disk)")
_ARC2FACE = ("torch (Device)", "Arc2Face (Models)", "Stable Diffusion 1.5 (Models)", "out (Disk)")
_FACES = ("import (onnxruntime)", "detector (Face pack)", "arcface.onnx (Face pack)")
# A command, what it cannot do without, and what it needs to read faces.
_COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **{f"{verb} mini": (_MINI, ()) for verb in ("forget", "generate", "evaluate", "stack")},
    **{f"{verb} arc2face": (_ARC2FACE, _FACES) for verb in ("forget", "generate")},
    "evaluate arc2face": ((*_ARC2FACE, *_FACES), ()),
    "bank build": ((*_FACES, "out (Disk)"), ()),
    "push": (("Hub token (Token)",), ()),
}


@dataclass(frozen=True)
class Finding:
    """``missing`` stops something, ``warning`` does not; ``advice`` holds one step or command a line."""

    section: str
    name: str
    status: Literal["ok", "warning", "missing"]
    value: str
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """All findings, section by section."""

    findings: tuple[Finding, ...]

    @property
    def ready(self) -> bool:
        """Whether every command works on the embedded base."""
        mini = [
            entry.status for entry in self.findings if entry.section == "Commands" and "mini" in entry.name
        ]
        return bool(mini) and "missing" not in mini

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON knows it."""
        return {"format": 1, "ready": self.ready, "findings": [asdict(finding) for finding in self.findings]}


def guarded(section: str, name: str, probe: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of a probe; where it raises, those made before, and one that says so."""
    findings: list[Finding] = []
    try:
        for finding in probe():
            findings.append(finding)
    except Exception as error:
        findings.append(Finding(section, name, "warning", f"could not be determined: {first_line(error)}"))
    return findings


def command_findings(findings: Sequence[Finding], *, with_arc2face: bool) -> Iterator[Finding]:
    """Each command: ready, or what it lacks. A need of which nothing is known is lacking."""
    at_hand = {f"{entry.name} ({entry.section})" for entry in findings if entry.status != "missing"}
    for name, (needs, faces) in _COMMANDS.items():
        lacking = [need for need in needs if need not in at_hand]
        faceless = [need for need in faces if need not in at_hand]
        if "arc2face" in name and not with_arc2face:
            continue
        if lacking:
            yield Finding("Commands", name, "missing", f"needs {', '.join(lacking)}")
        elif faceless:
            limits = "only with embeddings, not photographs, and with evaluate=False"
            yield Finding("Commands", name, "warning", f"{limits}; else it needs {', '.join(faceless)}")
        else:
            yield Finding("Commands", name, "ok", "ready")


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def size(count: float) -> str:
    """A number of bytes, in the decimal units of disks and downloads."""
    for unit, scale, digits in (("GB", 1e9, 2), ("MB", 1e6, 1), ("kB", 1e3, 1)):
        if count >= scale:
            return f"{count / scale:.{digits}f} {unit}"
    return f"{count:.0f} bytes"
