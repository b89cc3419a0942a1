"""One thing found out about this machine, and all of them together."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal

__all__ = ["Finding", "Report", "Status", "first_line", "guarded", "size"]

Status = Literal["ok", "warning", "missing"]


@dataclass(frozen=True)
class Finding:
    """What was found: ``missing`` stops something, ``warning`` does not; ``advice`` holds one step or command
    per line.
    """

    section: str
    name: str
    status: Status
    value: str
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """All findings, section by section."""

    findings: tuple[Finding, ...]

    @property
    def ready(self) -> bool:
        """Whether every command works on the embedded base."""
        commands = [
            finding
            for finding in self.findings
            if finding.section == "Commands" and finding.name.endswith(" mini")
        ]
        return bool(commands) and all(finding.status != "missing" for finding in commands)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON knows it."""
        return {"format": 1, "ready": self.ready, "findings": [asdict(finding) for finding in self.findings]}

    def table(self) -> str:
        """The report for people. Advice is never wrapped, so that commands can be copied."""
        lines: list[str] = []
        for section, rows in groupby(self.findings, key=lambda finding: finding.section):
            lines += [section, *_rows(list(rows)), ""]
        return "\n".join(
            [*lines, "the embedded base is ready" if self.ready else "the embedded base cannot be used yet"]
        )


def _rows(findings: Sequence[Finding]) -> Iterator[str]:
    """Two rows of a section often need the same cure: it is shown once."""
    width = max(len(finding.name) for finding in findings)
    given = set()
    for finding in findings:
        yield f"  {finding.status:7}  {finding.name:{width}}  {finding.value}"
        if finding.advice not in given:
            yield from (f"{'':{width + 13}}> {line}" for line in finding.advice.splitlines())
        given.add(finding.advice)


def guarded(section: str, name: str, probe: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The probe's findings; if it raises, those made before and one that says so: a doctor who faints helps
    nobody.
    """
    findings: list[Finding] = []
    try:
        for finding in probe():
            findings.append(finding)
    except Exception as error:
        findings.append(Finding(section, name, "warning", f"could not be determined: {first_line(error)}"))
    return findings


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def size(count: float) -> str:
    """A number of bytes, in the decimal units of disks and downloads."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}" if unit == "GB" else f"{count / scale:.1f} {unit}"
    return f"{count:.0f} bytes"
