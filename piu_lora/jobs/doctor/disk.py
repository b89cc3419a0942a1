"""Room for downloads and for what the commands write."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from piu_lora.jobs.doctor.finding import Finding, size

__all__ = ["cache_findings", "out_findings"]

SECTION = "Disk"
# An adapter takes a few megabytes; its checkpoint and the pictures of the report come on top.
_OUT_BYTES = 100_000_000


def cache_findings(cache: Path, to_download: int) -> Iterator[Finding]:
    """Free room at the Hub cache, against what is still to come."""
    value, enough = _room(cache, to_download)
    coming = f"; about {size(to_download)} still to download" if to_download else ""
    advice = "" if enough else "make room, or set HF_HOME to a folder on another disk that you may write to"
    yield Finding(SECTION, "Hub cache", "ok" if enough else "missing", value + coming, advice)


def out_findings(out: Path) -> Iterator[Finding]:
    """Free room where adapters and reports are to go."""
    value, enough = _room(out, _OUT_BYTES)
    yield Finding(
        SECTION,
        "out",
        "ok" if enough else "missing",
        value,
        "" if enough else "make room, or choose another folder with --out",
    )


def _room(folder: Path, needed: int) -> tuple[str, bool]:
    """What to say of a folder, which need not exist yet, and whether so much can be written there."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    writable = there.is_dir() and os.access(there, os.W_OK)
    return (
        f"{size(free)} free at {folder.absolute()}{'' if writable else ', which cannot be written'}",
        writable and free >= needed,
    )
