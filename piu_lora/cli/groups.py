"""Groups of options that commands share: a dataclass whose fields become options."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from piu_lora.cli import options
from piu_lora.cli.terminal import opened_ledger

__all__ = ["Compressing", "Examined", "Making", "Opening", "Reporting", "grouped"]


@dataclass(frozen=True)
class Opening:
    """Which base to open, with which bank and face pack, and where."""

    base: options.Base = "mini"
    bank: options.Bank = None
    pack: options.Pack = None
    device: options.Device = "auto"

    @property
    def keywords(self) -> dict[str, Any]:
        """The options as the keywords of a job."""
        return {"base": self.base, "bank": self.bank, "pack": self.pack, "device": self.device}


@dataclass(frozen=True)
class Examined:
    """The adapter to examine, and whom it forgets."""

    adapter: options.AdapterArgument
    identity: options.Identities


@dataclass(frozen=True)
class Compressing:
    """How small the factors of a layer become."""

    rank: options.Rank = 0
    tolerance: options.Tolerance = 0.0

    @property
    def keywords(self) -> dict[str, Any]:
        """The options as the keywords of a job."""
        return vars(self)


@dataclass(frozen=True)
class Making:
    """Where an adapter is written, and the ledger that it is entered in."""

    out: options.AdapterFolder
    ledger: options.LedgerFile = None
    force: options.Force = False

    @contextmanager
    def recorded(self, *, first: bool = True) -> Iterator[dict[str, Any]]:
        """The open ledger, and whether to replace the folder, as the keywords of a job.

        Args:
            first: whether this process, of several, is the one that keeps the ledger.
        """
        with opened_ledger(self.ledger if first else "none") as ledger:
            yield {"ledger": ledger, "force": self.force}


@dataclass(frozen=True)
class Reporting:
    """Where a report goes, and what it has to show."""

    out: options.ReportFolder = None
    policy: options.PolicyFile = None
    junit: options.Junit = None
    public: options.Public = False

    def check(self) -> None:
        """Raise ``BadInput`` before anything runs where the verdict could not be written afterwards."""
        from piu_lora.errors import BadInput
        from piu_lora.writing import check_target

        path: Path | None = self.junit
        if path is not None:
            check_target(path)
        if path is not None and (path.is_dir() or not path.resolve().parent.is_dir()):
            raise BadInput(f"junit = {str(path)!r} cannot be written: name a file in a folder that is there")


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command of Typer that may take groups: a parameter of a dataclass type stands for all its fields."""
    signature = inspect.signature(command, eval_str=True)
    annotations: dict[str, Any] = {name: entry.annotation for name, entry in signature.parameters.items()}
    groups: dict[str, Any] = {name: kind for name, kind in annotations.items() if is_dataclass(kind)}
    listed: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        group = groups.get(parameter.name)
        listed += inspect.signature(group, eval_str=True).parameters.values() if group else [parameter]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    parameters = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in listed]
    run.__annotations__ = {option.name: option.annotation for option in listed}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run
