"""What is known about this machine, and which commands can run by it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from piu_lora.model.family import BaseFamily

__all__ = ["Finding", "Report", "command_findings", "command_needs", "first_line", "guarded", "size"]

_FACES = ("import (onnxruntime)", "detector (Face pack)", "arcface.onnx (Face pack)")
# What a command cannot do without, and what it needs to read faces.
Needs = tuple[tuple[str, ...], tuple[str, ...]]


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
    """All findings, section by section; and whether every command works on a base inside the package."""

    findings: tuple[Finding, ...]
    ready: bool = False

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


def command_needs(families: Iterable["BaseFamily"]) -> dict[str, Needs]:
    """What each command needs, by findings; a base without a recognizer of its own needs the face pack."""
    commands: dict[str, Needs] = {}
    for family in families:
        labels = [download.label for download in family.source.downloads] if family.source else []
        weights = [f"{label} (Models)" for label in ([family.name] if family.folder else labels)]
        if family.companions:
            needs: tuple[str, ...] = ("torch (Device)", "import (onnxruntime)", *weights, "out (Disk)")
            verbs = ("forget", "generate", "evaluate", "stack")
            commands |= {f"{verb} {family.name}": (needs, ()) for verb in verbs}
        else:
            needs = ("torch (Device)", *weights, "out (Disk)")
            commands |= {f"{verb} {family.name}": (needs, _FACES) for verb in ("forget", "generate")}
            commands[f"evaluate {family.name}"] = ((*needs, *_FACES), ())
    return commands | {"bank build": ((*_FACES, "out (Disk)"), ()), "push": (("Hub token (Token)",), ())}


def command_findings(findings: Sequence[Finding], families: Iterable["BaseFamily"]) -> Iterator[Finding]:
    """Each command: ready, or what it lacks. A need of which nothing is known is lacking."""
    present = {f"{entry.name} ({entry.section})" for entry in findings if entry.status != "missing"}
    for name, (needs, faces) in command_needs(families).items():
        lacking = [need for need in needs if need not in present]
        faceless = [need for need in faces if need not in present]
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
