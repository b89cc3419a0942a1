"""What a piece of work takes: wall seconds, and the most memory at once."""

import contextlib
import ctypes
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Cost", "measure_cost"]


@dataclass
class Cost:
    """Filled in when the work is done.

    Attributes:
        seconds: wall time.
        peak_bytes: the most that was taken at once on top of what was there before: of the GPU's memory where
            there is one, else of the process's resident memory as Linux counts it; None where neither is
            known.
    """

    seconds: float = 0.0
    peak_bytes: int | None = None


@contextlib.contextmanager
def measure_cost(device: torch.device | str = "cpu") -> Iterator[Cost]:
    """Measure what happens inside.

    Args:
        device: where the work is done, and whose memory counts.

    On the CPU, memory that was freed before goes back to the system first: used again, it would not be seen.
    The peak is the kernel's own high-water mark, which misses nothing short-lived; two of these at a time
    would spoil each other's.
    """
    result = Cost()
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    resting = torch.cuda.memory_allocated() if on_gpu else _lowered()
    begun = time.perf_counter()
    try:
        yield result
    finally:
        if on_gpu:
            torch.cuda.synchronize()
        result.seconds = time.perf_counter() - begun
        highest = torch.cuda.max_memory_allocated() if on_gpu else _status("VmHWM")
        if resting is not None and highest is not None:
            result.peak_bytes = max(highest - resting, 0)


def _lowered() -> int | None:
    """Resident bytes after everything free was given back and the high-water mark was set to them."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc's; others give back on their own
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
