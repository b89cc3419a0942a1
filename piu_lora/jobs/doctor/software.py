"""Python, the libraries against what piu-lora asks for, what torch computes on; and onnxruntime.

``onnxruntime`` and ``onnxruntime-gpu`` install the same module. With both, the files are of the one that
was installed last, and removing either takes them from the other; ``pip check`` says nothing.
"""

import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distributions
from typing import Any

from rich.filesize import decimal

from piu_lora.jobs.doctor.finding import Finding, first_line
from piu_lora.telemetry import import_onnxruntime
from piu_lora.threads import usable

__all__ = ["package_findings", "runtime_findings", "torch_findings"]

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
    (piu_lora,) = _installed(paths, "piu-lora")
    yield Finding("Python", "piu-lora", "ok", piu_lora.version)
    for requirement in map(Requirement, piu_lora.requires or []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, bounds = requirement.name, requirement.specifier
        package = next(iter(_installed(paths, *(_RUNTIMES if name in _RUNTIMES else (name,)))), None)
        if package is not None and bounds.contains(package.version, prereleases=True):
            value = f"{package.version}{' (GPU)' * ('gpu' in package.name)}"
            yield Finding("Python", name, "ok", value)
            continue
        value = "not installed" if package is None else f"{package.version}, but piu-lora needs {bounds}"
        # A version above the bounds is untested; one below is known not to work.
        lowest = [bound for bound in bounds if bound.operator == ">="]
        newer = package is not None and all(bound.contains(package.version, True) for bound in lowest)
        yield Finding(
            "Python", name, "warning" if newer else "missing", value, f'pip install "{name}{bounds}"'
        )


def torch_findings(torch: Any = None, *, driver: bool | None = None) -> Iterator[Finding]:
    """The build of torch, and its GPUs with the dtype that suits them.

    Args:
        torch: the module; imported by default.
        driver: whether NVIDIA's driver is installed; with one that torch cannot use, the GPU lies idle.
    """
    try:
        if torch is None:
            import torch
    except Exception as error:
        value, advice = f"cannot be imported: {first_line(error)}", "pip install --force-reinstall torch"
        yield Finding("Device", "torch", "missing", value, advice)
        return
    build = f"{torch.__version__}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'no CUDA build'}"
    if torch.cuda.is_available():
        yield Finding("Device", "torch", "ok", build)
        for index in range(torch.cuda.device_count()):
            room = "{} free of {}".format(*(decimal(n, precision=2) for n in torch.cuda.mem_get_info(index)))
            # bf16 arithmetic begins with Ampere.
            dtype = "bf16" if torch.cuda.get_device_capability(index) >= (8, 0) else "fp16"
            text = f"{torch.cuda.get_device_name(index)}, {room}, dtype {dtype}"
            yield Finding("Device", f"cuda:{index}", "ok", text)
    elif shutil.which("nvidia-smi") if driver is None else driver:
        advice = "run nvidia-smi: it must list a GPU; else mend the driver"
        if not torch.version.cuda:
            advice = "install the CUDA build of torch: https://pytorch.org/get-started"
        yield Finding("Device", "torch", "warning", f"{build}: the NVIDIA GPU lies idle", advice)
    else:
        yield Finding("Device", "torch", "ok", f"{build}, dtype fp32, {usable()} threads")


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
        module = import_onnxruntime()
        # What a removal leaves behind imports as an empty namespace: the class is asked for too.
        providers = module.InferenceSession and module.get_available_providers()
    except Exception as error:
        yield Finding("onnxruntime", "import", "missing", f"fails: {first_line(error)}", mend)
        return
    value = f"version {module.__version__}: {', '.join(providers)}"
    if "onnxruntime-gpu" in present and "CUDAExecutionProvider" not in providers:
        value = f"{value}; no CUDAExecutionProvider, although onnxruntime-gpu is installed"
        yield Finding("onnxruntime", "import", "warning", value, mend)
    else:
        yield Finding("onnxruntime", "import", "ok", value)
