"""Around every command: the ledger it opens, the verdict it ends with, and how errors are shown."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from piu_lora import interrupts
from piu_lora.cli.messages import OptionFormatter, translated
from piu_lora.errors import PiuLoraError

if TYPE_CHECKING:
    from piu_lora.evidence.report import Report

__all__ = ["judged", "opened_ledger", "run"]


@contextmanager
def opened_ledger(name: str | None) -> Iterator[Any]:
    """The ledger of ``--ledger``; None for ``none``."""
    if name == "none":
        yield None
        return
    from piu_lora.adapter import Ledger

    with Ledger(name) as ledger:
        yield ledger


def judged(report: "Report", junit: Path | None, *, binding: bool) -> None:
    """Say how a report was judged, on stderr; exit 1 where it falls short of a policy that was asked for.

    Args:
        junit: where to write the verdict as JUnit XML.
        binding: a policy was asked for; the default one only informs.
    """
    from piu_lora.jobs.evaluation.report import write_junit

    verdict = report.verdict
    if junit is not None:
        write_junit(junit, report)
    if verdict is None:
        return
    for line in verdict.lines:
        if not line.passed:
            recognizer = f"{line.recognizer}: " if line.recognizer else ""
            value = f"was not measured: {line.reason}" if line.value is None else f"is {line.value:.4g}"
            typer.echo(
                f"missed: {recognizer}{line.text} {value}; expected {line.relation} {line.limit:g}", err=True
            )
    if binding and not verdict.passed:
        raise typer.Exit(1)
    typer.echo(f"policy {verdict.policy}: {'passed' if verdict.passed else 'falls short'}", err=True)


def run(app: typer.Typer) -> None:
    """Run the application and turn what goes wrong into one line and an exit code; a traceback only with
    --debug.
    """
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    _quieten(debug)
    try:
        app()
    except BaseException as error:
        # Whatever comes of an interruption: Typer makes an exit of it, an import may make an ImportError.
        if isinstance(error, KeyboardInterrupt) or interrupts.was_asked():
            interrupts.leave()
        if debug or not isinstance(error, PiuLoraError):
            raise
        typer.echo(f"error: {translated(str(error))}", err=True)
        raise SystemExit(error.exit_code) from None


def _quieten(debug: bool) -> None:
    """Third-party chatter off, our own warnings on, both before those libraries are imported."""
    # Of several processes of one launch, the first one talks.
    level = logging.WARNING if os.environ.get("RANK", "0") == "0" else logging.ERROR
    talk = logging.StreamHandler(sys.stderr)
    talk.setFormatter(OptionFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else level, handlers=[talk])
    logging.addLevelName(logging.WARNING, "warning")
    if not debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
        warnings.simplefilter("ignore")
