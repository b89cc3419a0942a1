"""What killed runs left in a folder: half-written files and folders, locks that nobody holds."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from piu_lora.adapter.names import RECEIPT_FILE
from piu_lora.writing import is_abandoned

__all__ = ["Leftover", "find_leftovers", "remove_leftover"]

_SIBLING = re.compile(r"\.(.+)\.(partial|replaced|lock)")
_RESUMED = re.compile(r"\.(.+)\.(checkpoint|photos)")
_SCRATCH = re.compile(r"piu-lora-(\d+)-.+")
_STAYS = ".cells.jsonl.gz.lock"  # of an arena, whose processes wait for it


@dataclass(frozen=True)
class Leftover:
    """A file or folder of a killed run, and what it is.

    Attributes:
        restore: where it belongs, if it is what a killed run was about to replace.
    """

    path: Path
    kind: str
    restore: Path | None = None


def find_leftovers(folder: Path) -> Iterator[Leftover]:
    """Those directly in a folder, and the scratch folders among the system's temporary files.

    What a run goes on from when it is repeated (``.NAME.checkpoint``, ``.NAME.photos``, ``.measured``) is
    none, unless that run is done. Nothing that a living process may own is named.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _SIBLING.fullmatch(path.name)
        if is_abandoned(path):
            yield Leftover(path, "a half-written file")
        elif match is not None and path.name != _STAYS and not _is_held(folder, match[1]):
            yield _sibling(path, folder / match[1], match[2])
        elif _is_done(path):
            yield Leftover(path, "what a run went on from that is done since")
    for path in sorted(Path(tempfile.gettempdir()).iterdir()):
        match = _SCRATCH.fullmatch(path.name)
        if match is not None and path.is_dir() and not psutil.pid_exists(int(match[1])):
            yield Leftover(path, "a scratch folder")


def _sibling(path: Path, target: Path, kind: str) -> Leftover:
    if kind == "replaced" and not target.exists():
        return Leftover(path, "what a killed run was about to replace", target)
    return Leftover(path, "the lock of no run" if kind == "lock" else "a half-written folder")


def _is_done(path: Path) -> bool:
    """Whether what a checkpoint or a cache was for is there, and younger: its run was killed in the end."""
    match = _RESUMED.fullmatch(path.name)
    if match is None or not path.is_file() or _is_held(path.parent, match[1]):
        return False
    output = next((file for file in _made_by(path.with_name(match[1])) if file.is_file()), None)
    return output is not None and output.stat().st_mtime_ns >= path.stat().st_mtime_ns


def _made_by(target: Path) -> tuple[Path, ...]:
    """The last file that a run writes: the receipt of an adapter, or the bank."""
    return target / RECEIPT_FILE, target


def _is_held(folder: Path, name: str) -> bool:
    """Whether a run holds the lock of this name."""
    path = folder / f".{name}.lock"
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def remove_leftover(leftover: Leftover) -> None:
    """Delete it, or put it back where it belongs."""
    if leftover.restore is not None:
        leftover.path.rename(leftover.restore)
    elif leftover.path.is_dir():
        shutil.rmtree(leftover.path)
    else:
        leftover.path.unlink(missing_ok=True)
