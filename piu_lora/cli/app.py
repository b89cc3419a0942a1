"""The ``piu-lora`` command."""

import typer

from piu_lora.cli import (
    audit,
    bank,
    compare,
    convert,
    doctor,
    evaluate,
    forget,
    generate,
    hub,
    inspect,
    ledger,
    release,
    stack,
    studio,
    tune,
    verify,
)
from piu_lora.cli.terminal import run

__all__ = ["app", "main"]

app = typer.Typer(
    name="piu-lora",
    help="Make the face generator Arc2Face forget people: one small LoRA adapter for each of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 the job ran and the evidence falls short, 2 bad input, 3 environment. "
    "With --debug, errors show their traceback.",
)
app.command("forget")(forget.command)
app.command("generate")(generate.command)
app.command("evaluate")(evaluate.command)
app.command("audit")(audit.command)
app.command("compare")(compare.command)
app.command("tune")(tune.command)
app.command("convert")(convert.convert)
app.command("resize")(convert.resize)
app.command("extract")(convert.extract)
app.command("inspect")(inspect.command)
app.command("verify")(verify.command)
app.command("push")(hub.push)
app.command("pull")(hub.pull)
app.command("list")(inspect.list_command)
app.command("studio")(studio.command)
app.command("doctor")(doctor.command)
app.add_typer(bank.app, name="bank")
app.add_typer(stack.app, name="stack")
app.add_typer(ledger.app, name="ledger")
app.add_typer(release.app, name="release")


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        from piu_lora import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of the console script."""
    run(app)
