"""How many threads a process and a model can use, and waiting that takes nothing from others.

Between two operations the threads of OpenMP and of onnxruntime spin, each on a core of its own. Alone, that
costs nothing; beside another process it takes the core that the other one needs.
"""

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["idle", "limited", "usable", "wait_briefly", "without_spinning"]

# Turns of GNU's OpenMP before a thread sleeps: microseconds instead of the milliseconds of its default.
_TURNS = "10000"
_STATED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def usable() -> int:
    """Cores that this process may use: by its affinity, and by the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota() or cores))


def idle(seconds: float = 0.3) -> int:
    """Cores that this process may use and that nobody keeps busy now; 1 at least.

    Args:
        seconds: for which it looks.
    """
    import psutil

    cores: int = psutil.cpu_count() or 1
    free = round(cores * (1 - psutil.cpu_percent(seconds) / 100))
    return max(1, min(usable(), int(free)))


def _quota(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole cores that a control group grants, of version 2 or 1; 0 where it sets no limit."""
    try:
        if (root / "cpu.max").is_file():
            granted, period = (root / "cpu.max").read_text().split()
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            granted, period = ((root / "cpu" / name).read_text().strip() for name in names)
        return max(1, round(int(granted) / int(period))) if granted != "max" and int(granted) > 0 else 0
    except (OSError, ValueError, ZeroDivisionError):
        return 0


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """For a program, before it imports torch: threads sleep soon, and there are no more than the quota has
    cores; whatever the user has set stays.
    """
    if not any(name in environment for name in _STATED):
        environment["GOMP_SPINCOUNT"] = _TURNS
    cores = usable()
    if "OMP_NUM_THREADS" not in environment and cores < (os.cpu_count() or 1):
        environment["OMP_NUM_THREADS"] = str(cores)


@contextmanager
def limited(count: int) -> Iterator[None]:
    """While open, torch computes on at most ``count`` threads; 0 leaves it as it is."""
    import torch

    before = torch.get_num_threads()
    if not 0 < count < before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def without_spinning(options: Any, threads: int = 0) -> Any:
    """Options of an onnxruntime session whose threads sleep while they wait.

    Args:
        threads: 0 for as many as torch has, which heeds OMP_NUM_THREADS and the quota.
    """
    import torch

    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
