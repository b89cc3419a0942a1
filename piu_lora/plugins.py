"""How a registry fills: the modules of a folder are imported, and what other packages announce as entry
points.
"""

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Iterable, Sequence

from piu_lora.errors import EnvironmentProblem

__all__ = ["import_entry_points", "import_folder"]


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
