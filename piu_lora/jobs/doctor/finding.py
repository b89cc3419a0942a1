"""What is known about this machine."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Finding", "Report", "first_line", "guarded"]


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


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
