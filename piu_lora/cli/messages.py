"""The library's messages in the words of the command line.

The library names settings and arguments: ``closed.retained=3``, ``bank=FILE``, ``force=True``, ``out = 'x'``,
or an argument alone in backticks. People who type commands read the options instead: ``--set
closed.retained=3``, ``--bank FILE``, ``--force``, ``--out 'x'``. Quoted text stays as it is.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

__all__ = ["OptionFormatter", "option_names", "translated"]

_MENTION = re.compile(
    r"(?<!\w)'[^'\n]*'(?!\w)"  # quoted: a value of somebody's
    r"|`(?P<alone>[a-z]\w*)`"
    r"|`[^`\n]*`"  # a command to type
    r"|(?<![^\s(])(?P<setting>[a-z]\w*(?:\.\w+)+=[^\s,;)]+)"
    r"|(?<![^\s(])(?P<argument>[a-z]\w*)(?P<equals> = |=)(?P<value>'[^'\n]*'|\"[^\"\n]*\"|[^\s,;:)]+)"
)


def option_names(app: Any) -> dict[str, tuple[str, str]]:
    """The options of all commands by the argument that they set: the option, and the one that turns it off.

    Args:
        app: the Typer application.
    """
    import typer

    options = (option for option in _parameters(typer.main.get_command(app)) if option.opts[0][0] == "-")
    return {option.name: (option.opts[-1], (*option.secondary_opts, "")[0]) for option in options}


def _parameters(command: Any) -> Iterator[Any]:
    yield from command.params
    for part in getattr(command, "commands", {}).values():
        yield from _parameters(part)


@cache
def _options() -> Mapping[str, tuple[str, str]]:
    from piu_lora.cli.app import app

    return option_names(app)


def translated(message: str, options: Mapping[str, tuple[str, str]] | None = None) -> str:
    """The message with options in the place of settings and arguments.

    Args:
        options: see ``option_names``; those of ``piu-lora`` by default.
    """
    return _MENTION.sub(partial(_option, options=_options() if options is None else options), message)


def _option(mention: re.Match[str], options: Mapping[str, tuple[str, str]]) -> str:
    if mention["setting"]:
        return f"--set {mention['setting']}"
    name = mention["alone"] or mention["argument"]
    if name not in options:
        return mention[0]
    on, off = options[name]
    if mention["alone"] or mention["value"] == "True":
        return on
    if mention["value"] == "False" and off:
        return off
    return f"{on} {mention['value']}"


class OptionFormatter(logging.Formatter):
    """Log lines in the words of the command line."""

    def format(self, record: logging.LogRecord) -> str:
        return translated(super().format(record))
