"""onnxruntime, whose two distributions write the same files.

``onnxruntime`` and ``onnxruntime-gpu`` both install the module ``onnxruntime``. With both, the files are
those of the one installed last; ``pip check`` says nothing; and removing either takes the files from the
other, whose metadata stays.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from piu_lora.jobs.doctor.finding import Finding, first_line
from piu_lora.jobs.doctor.packages import installed

__all__ = ["Files", "compare_files", "import_onnxruntime", "mend", "runtime_findings"]

SECTION = "onnxruntime"
NAMES = ("onnxruntime", "onnxruntime-gpu")
_CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Files:
    """How many files of a distribution's RECORD are there, gone, or of another size."""

    total: int
    gone: int
    changed: int

    @property
    def whole(self) -> bool:
        """Whether every file is the one that was installed."""
        return self.total > 0 and not (self.gone or self.changed)


def compare_files(distribution: Distribution) -> Files | None:
    """Compare the module's files with the RECORD by size; None without a RECORD.

    The RECORD is read here, because ``Distribution.files`` leaves out what is gone since Python 3.12.
    """
    text = distribution.read_text("RECORD")
    if text is None:
        return None
    # Only files with a stated size; scripts and bytecode have none, or are rewritten at installation.
    rows = [
        row
        for row in csv.reader(text.splitlines())
        if len(row) == 3 and row[0].startswith("onnxruntime/") and row[2]
    ]
    found = [(Path(str(distribution.locate_file(path))), int(count)) for path, _, count in rows]
    there = [(path, count) for path, count in found if path.is_file()]
    return Files(
        len(found), len(found) - len(there), sum(path.stat().st_size != count for path, count in there)
    )


def import_onnxruntime() -> Any:
    """The module. What remains after a removal imports as an empty namespace, so the class is asked for too."""
    import onnxruntime

    return onnxruntime.InferenceSession and onnxruntime


def runtime_findings(
    gpu: bool, paths: Sequence[str] | None = None, load: Callable[[], Any] = import_onnxruntime
) -> Iterator[Finding]:
    """Distributions, their files, the import, the providers.

    Args:
        gpu: whether there is an NVIDIA GPU to mend for.
        paths: where to look for distributions, ``sys.path`` by default.
        load: imports the module.
    """
    present = {name: found for name in NAMES if (found := installed(name, paths)) is not None}
    files = {name: compare_files(found) for name, found in present.items()}
    yield _distributions(present, files, gpu)
    yield from (_files(name, counts, gpu) for name, counts in files.items() if counts is not None)
    try:
        module = load()
    except Exception as error:
        yield Finding(SECTION, "import", "missing", _import_failure(error, present), mend(gpu))
        return
    yield Finding(SECTION, "import", "ok", f"version {module.__version__}")
    yield _providers(list(module.get_available_providers()), "onnxruntime-gpu" in present, gpu)


def _distributions(present: dict[str, Distribution], files: dict[str, Files | None], gpu: bool) -> Finding:
    names = " and ".join(f"{name} {found.version}" for name, found in present.items())
    if len(present) < 2:
        return Finding(
            SECTION,
            "distributions",
            "ok" if present else "missing",
            names or "none installed",
            "" if present else mend(gpu),
        )
    last = [name for name, counts in files.items() if counts is not None and counts.whole]
    state = f"the files are those of {last[0]}" if len(last) == 1 else "the files are a mixture"
    value = f"{names}: both write the same files; {state}; pip check does not see it, and removing one breaks the other"
    return Finding(SECTION, "distributions", "warning", value, mend(gpu))


def _files(name: str, files: Files, gpu: bool) -> Finding:
    if files.whole:
        return Finding(SECTION, f"files of {name}", "ok", f"{files.total}, all as installed")
    value = (
        f"of {files.total}, {files.gone} are gone and {files.changed} have another size than the RECORD says"
    )
    return Finding(SECTION, f"files of {name}", "warning", value, mend(gpu))


def _import_failure(error: Exception, present: dict[str, Distribution]) -> str:
    if not present:
        return f"fails: {first_line(error)}"
    return f"fails although {' and '.join(present)} counts as installed: {first_line(error)}"


def _providers(providers: list[str], gpu_wheel: bool, gpu: bool) -> Finding:
    value = ", ".join(providers) or "none"
    if gpu_wheel and _CUDA not in providers:
        return Finding(
            SECTION,
            "providers",
            "warning",
            f"{value}: no {_CUDA}, although onnxruntime-gpu is installed",
            mend(gpu),
        )
    return Finding(
        SECTION, "providers", "ok" if providers else "missing", value, "" if providers else mend(gpu)
    )


def mend(gpu: bool) -> str:
    """The two commands that leave one whole distribution."""
    chosen = "onnxruntime-gpu" if gpu else "onnxruntime"
    lines = [
        "pip uninstall -y onnxruntime onnxruntime-gpu",
        f"pip install --force-reinstall --no-deps {chosen}",
    ]
    note = "pip check will then miss onnxruntime, which insightface asks for by that name: harmless, the module is there"
    return "\n".join([*lines, note] if gpu else lines)
