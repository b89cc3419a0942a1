"""``piu-lora doctor``."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from piu_lora.cli.messages import translated
from piu_lora.cli.options import Json, Pack
from piu_lora.cli.output import print_result

if TYPE_CHECKING:
    from piu_lora.jobs.doctor import Report

__all__ = ["command", "report_lines"]

NOT_READY = 3


def command(
    base: Annotated[
        str | None, typer.Option(help="Look at one base only, mini or arc2face. By default at both.")
    ] = None,
    pack: Pack = None,
    out: Annotated[
        Path, typer.Option(help="Folder to search for what killed runs left; by default this one.")
    ] = Path(),
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what killed runs left in the folder of --out.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check what this machine can do, and show the command that mends what it lacks.

    The exit code is 3 when not even the embedded base can be used.
    """
    from piu_lora.jobs.doctor import examine

    report = examine(base, pack=pack, out=out, clean=clean)
    print_result(report.to_dict(), map(translated, report_lines(report)), as_json)
    if not report.ready:
        raise typer.Exit(NOT_READY)


def report_lines(report: "Report") -> Iterator[str]:
    """The report for people. Advice is never wrapped, so that commands can be copied; what two findings of a
    section need alike is shown once.
    """
    for section, group in groupby(report.findings, key=lambda finding: finding.section):
        findings = list(group)
        width = max(len(finding.name) for finding in findings)
        yield section
        advised = {""}
        for finding in findings:
            yield f"  {finding.status:7}  {finding.name:{width}}  {finding.value}"
            if finding.advice not in advised:
                yield from (f"{'':{width + 13}}> {line}" for line in finding.advice.splitlines())
            advised.add(finding.advice)
        yield ""
    yield "the embedded base is ready" if report.ready else "the embedded base cannot be used yet"
