"""What the models run on: torch and its devices, threads, memory, room on the disks."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from piu_lora.jobs.doctor.finding import Finding, first_line, size
from piu_lora.threads import usable

__all__ = ["device_findings", "host_findings", "leftover_findings", "room", "torch_findings"]


def device_findings() -> Iterator[Finding]:
    """The build of torch, and what it can reach."""
    try:
        import torch
    except Exception as error:
        value, advice = f"cannot be imported: {first_line(error)}", "pip install --force-reinstall torch"
        yield Finding("Device", "torch", "missing", value, advice)
    else:
        yield from torch_findings(torch, driver=shutil.which("nvidia-smi") is not None)


def torch_findings(torch: Any, *, driver: bool) -> Iterator[Finding]:
    """The build of torch, and its GPUs with the dtype that suits them.

    Args:
        torch: the module.
        driver: whether NVIDIA's driver is installed; with one that torch cannot use, the GPU lies idle.
    """
    build = f"{torch.__version__}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'no CUDA build'}"
    if torch.cuda.is_available():
        yield Finding("Device", "torch", "ok", build)
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            # bf16 arithmetic begins with Ampere.
            dtype = "bf16" if torch.cuda.get_device_capability(index) >= (8, 0) else "fp16"
            text = f"{torch.cuda.get_device_name(index)}, {size(free)} free of {size(total)}, dtype {dtype}"
            yield Finding("Device", f"cuda:{index}", "ok", text)
    elif driver:
        advice = "run nvidia-smi: it must list a GPU; else mend the driver"
        if not torch.version.cuda:
            advice = "install the CUDA build of torch: https://pytorch.org/get-started"
        yield Finding("Device", "torch", "warning", f"{build}: the NVIDIA GPU lies idle", advice)
    else:
        yield Finding("Device", "torch", "ok", f"{build}, dtype fp32")


def host_findings() -> Iterator[Finding]:
    """Threads that this process may use (a container often grants fewer than the machine has), and memory."""
    import psutil

    yield Finding("Device", "cpu", "ok", f"{usable()} threads")
    memory = psutil.virtual_memory()
    yield Finding("Device", "memory", "ok", f"{size(memory.available)} free of {size(memory.total)}")


def room(name: str, folder: Path, advice: str, needed: int = 100_000_000) -> Iterator[Finding]:
    """Whether ``needed`` bytes can be written into a folder, which need not exist yet."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free, writable = shutil.disk_usage(there).free, there.is_dir() and os.access(there, os.W_OK)
    value = f"{size(free)} free at {folder.absolute()}{'' if writable else ', which cannot be written'}"
    enough = writable and free >= needed
    yield Finding("Disk", name, "ok" if enough else "missing", value, "" if enough else advice)


def leftover_findings(folder: Path, *, clean: bool) -> Iterator[Finding]:
    """What killed runs left in a folder, perhaps pictures or embeddings; ``clean`` removes it."""
    from piu_lora.adapter.leftovers import find_leftovers, remove_leftover

    for leftover in find_leftovers(folder):
        text = f"{leftover.path}: {leftover.what}"
        if clean:
            remove_leftover(leftover)
            done = f"put back to {leftover.restore}" if leftover.restore else "removed"
            yield Finding("Disk", "left-overs", "ok", f"{text}, {done}")
        else:
            advice = f'piu-lora doctor --clean --out "{folder}"'
            yield Finding("Disk", "left-overs", "warning", text, advice)
