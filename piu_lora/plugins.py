"""How a registry fills: the modules of a folder are imported, and what other packages announce as entry
points.
"""

import importlib
import importlib.metadata
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from piu_lora.errors import BadInput, EnvironmentProblem

__all__ = ["announced_names", "import_entry_points", "import_folder", "registered_as"]

T = TypeVar("T")


def import_folder(package: str, path: Iterable[str], skip: Sequence[str] = ()) -> None:
    """Import every module of a package and of its subpackages, in alphabetical order; each registers itself.

    Args:
        package: ``__name__`` of the package.
        path: its ``__path__``.
        skip: names of modules and subpackages to leave out.
    """
    for module in pkgutil.iter_modules(path):
        if module.name in skip:
            continue
        imported = importlib.import_module(f"{package}.{module.name}")
        if module.ispkg:
            import_folder(imported.__name__, imported.__path__)


def import_entry_points(group: str) -> None:
    """Import the modules that installed packages announce under ``[project.entry-points."GROUP"]``.

    Raises:
        EnvironmentProblem: one of them cannot be imported.
    """
    for entry in importlib.metadata.entry_points(group=group):
        try:
            entry.load()
        except Exception as error:
            raise EnvironmentProblem(
                f"the plugin {entry.name} = {entry.value!r} ({group}) cannot be imported: {error}; "
                "repair or uninstall the package that announces it"
            ) from error


def registered_as(name: str, registry: Mapping[str, T], kind: str) -> T:
    """The entry of that name.

    Args:
        kind: what the entries are, for the message.

    Raises:
        BadInput: there is none; the message lists the known names.
    """
    if name not in registry:
        raise BadInput(f"unknown {kind} {name!r}; known: {', '.join(sorted(registry))}")
    return registry[name]


def announced_names(folder: Path, decorator: str) -> list[str]:
    """The names that the modules of a folder register, read from their text: importing them may load torch.

    Args:
        decorator: what registers, with the name as its first argument.
    """
    pattern = re.compile(rf'^@{decorator}\(\s*"([^"]+)"', re.MULTILINE)
    files = sorted(folder.glob("*.py"))
    return [name for file in files for name in pattern.findall(file.read_text(encoding="utf-8"))]
