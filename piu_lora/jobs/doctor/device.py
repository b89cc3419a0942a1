"""What the models run on."""

import os
import platform
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from piu_lora.jobs.doctor.finding import Finding, first_line, size

__all__ = ["dtype_for", "host_findings", "import_torch", "torch_findings"]

SECTION = "Device"
# First compute capability with bf16 arithmetic: Ampere.
_BF16_FROM = (8, 0)


def import_torch() -> tuple[Any, Finding | None]:
    """torch, or why it cannot be imported."""
    try:
        import torch
    except Exception as error:
        return None, Finding(
            SECTION, "torch", "missing", f"cannot be imported: {first_line(error)}", _reinstall()
        )
    return torch, None


def torch_findings(torch: Any, driver: str | None) -> Iterator[Finding]:
    """The build of torch and what it can reach.

    Args:
        torch: the module.
        driver: path of nvidia-smi, which comes with NVIDIA's driver; None without one.
    """
    yield _build(torch, driver)
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        major, minor = torch.cuda.get_device_capability(index)
        free, total = torch.cuda.mem_get_info(index)
        text = f"{torch.cuda.get_device_name(index)}, {size(free)} free of {size(total)}, compute capability {major}.{minor}"
        yield Finding(SECTION, f"cuda:{index}", "ok", text)
    if torch.backends.mps.is_available():
        yield Finding(SECTION, "mps", "ok", "Apple GPU")
    yield Finding(SECTION, "dtype", "ok", dtype_for(torch))


def _build(torch: Any, driver: str | None) -> Finding:
    """A driver that torch cannot use is the commonest reason for a slow run."""
    cuda = torch.version.cuda or getattr(torch.version, "hip", None)
    value = f"{torch.__version__}, {f'built for CUDA {cuda}' if torch.version.cuda else f'built for ROCm {cuda}' if cuda else 'CPU build'}"
    if driver and not cuda:
        return Finding(
            SECTION,
            "torch",
            "warning",
            f"{value}, although {driver} says that there is an NVIDIA driver: the GPU lies idle",
            _reinstall(),
        )
    if driver and not torch.cuda.is_available():
        advice = "run nvidia-smi: it must list a GPU, and the CUDA version it prints must not be below that of torch; else update the driver"
        return Finding(SECTION, "torch", "warning", f"{value}, but no device can be used", advice)
    return Finding(SECTION, "torch", "ok", value)


def dtype_for(torch: Any) -> str:
    """The dtype to choose: bf16 where the GPU computes in it, fp16 on older ones, fp32 elsewhere."""
    if not torch.cuda.is_available():
        return "fp32"
    total = torch.cuda.mem_get_info(0)[1]
    return f"{'bf16' if tuple(torch.cuda.get_device_capability(0)) >= _BF16_FROM else 'fp16'} with {total / 1e9:.0f} GB on cuda:0"


def host_findings() -> Iterator[Finding]:
    """Threads and memory of the machine itself."""
    yield Finding(SECTION, "cpu", "ok", f"{_threads()} threads")
    free, total = _memory()
    yield Finding(SECTION, "memory", "ok", f"{size(free)} free of {size(total)}")


def _threads() -> int:
    """Those this process may use: a container often grants fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> tuple[int, int]:
    """Bytes free and in all."""
    try:
        psutil = import_module("psutil")
    except ImportError:
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")
    memory = psutil.virtual_memory()
    return int(memory.available), int(memory.total)


def _reinstall() -> str:
    # On Linux the default wheels are the CUDA builds; on Windows they are CPU builds.
    where = " from the CUDA index that PyTorch's install page names" if platform.system() == "Windows" else ""
    return f'pip install --force-reinstall "torch{_torch_range()}"{where}'


def _torch_range() -> str:
    from piu_lora.jobs.doctor.packages import demands

    try:
        return str(demands().get("torch", ""))
    except ImportError:
        return ""
