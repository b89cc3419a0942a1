"""Python and the libraries against what piu-lora asks for; and onnxruntime, which comes in two packages.

``onnxruntime`` and ``onnxruntime-gpu`` install the same module. With both, the files are of the one that
was installed last, and removing either takes them from the other; ``pip check`` says nothing.
"""

import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distributions
from typing import Any

from piu_lora.jobs.doctor.finding import Finding, first_line
from piu_lora.telemetry import import_onnxruntime

__all__ = ["package_findings", "runtime_findings", "working_onnxruntime"]

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")  # either brings the module


def _installed(paths: Sequence[str] | None, *names: str) -> list[Distribution]:
    path = sys.path if paths is None else list(paths)
    return [package for name in names for package in list(distributions(name=name, path=path))[:1]]


def package_findings(paths: Sequence[str] | None = None) -> Iterator[Finding]:
    """The version of Python, and of each library that piu-lora asks for.

    Args:
        paths: where to look for packages; ``sys.path`` by default.
    """
    from packaging.requirements import Requirement

    python = f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    yield Finding("Python", "python", "ok", python)
    (own,) = _installed(paths, "piu-lora")
    yield Finding("Python", "piu-lora", "ok", own.version)
    for wanted in map(Requirement, own.requires or []):
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        names, bounds = _RUNTIMES if wanted.name in _RUNTIMES else (wanted.name,), wanted.specifier
        package = next(iter(_installed(paths, *names)), None)
        if package is not None and bounds.contains(package.version, prereleases=True):
            yield Finding(
                "Python", wanted.name, "ok", f"{package.version}{' (GPU)' * ('gpu' in package.name)}"
            )
            continue
        value = "not installed" if package is None else f"{package.version}, but piu-lora needs {bounds}"
        # A version above the bounds is untested; one below is known not to work.
        newer = package is not None and all(
            bound.contains(package.version, prereleases=True) for bound in bounds if bound.operator == ">="
        )
        fetch = f'pip install "{wanted.name}{bounds}"'
        yield Finding("Python", wanted.name, "warning" if newer else "missing", value, fetch)


def working_onnxruntime() -> Any:
    """The module. What a removal leaves behind imports as an empty namespace: the class is asked for too."""
    module = import_onnxruntime()
    return module.InferenceSession and module


def runtime_findings(paths: Sequence[str] | None = None, gpu: bool | None = None) -> Iterator[Finding]:
    """Whether onnxruntime works, and whether its two packages are in each other's way.

    Args:
        paths: where to look for packages; ``sys.path`` by default.
        gpu: whether there is an NVIDIA GPU to mend for; whether its driver is installed by default.
    """
    present = [package.name for package in _installed(paths, *_RUNTIMES)]
    chosen = _RUNTIMES[shutil.which("nvidia-smi") is not None if gpu is None else gpu]
    mend = f"pip uninstall -y {' '.join(_RUNTIMES)}\npip install --force-reinstall --no-deps {chosen}"
    if len(present) > 1:
        clash = f"{' and '.join(present)} are both installed and write the same files"
        yield Finding("onnxruntime", "packages", "warning", clash, mend)
    try:
        module = working_onnxruntime()
    except Exception as error:
        yield Finding("onnxruntime", "import", "missing", f"fails: {first_line(error)}", mend)
        return
    providers = module.get_available_providers()
    value = f"version {module.__version__}: {', '.join(providers)}"
    if "onnxruntime-gpu" in present and "CUDAExecutionProvider" not in providers:
        value = f"{value}; no CUDAExecutionProvider, although onnxruntime-gpu is installed"
        yield Finding("onnxruntime", "import", "warning", value, mend)
    else:
        yield Finding("onnxruntime", "import", "ok", value)
