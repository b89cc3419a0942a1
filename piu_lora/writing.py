"""Writing files: whole or not at all, with a mode that says whom they are for, and nothing left of a kill.

A file is written to a hidden name in the same folder, ``.NAME.PID.tmp``, and renamed.
"""

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from piu_lora.errors import BadInput, EnvironmentProblem

__all__ = [
    "ORDINARY",
    "PRIVATE",
    "check_target",
    "disk_errors",
    "is_abandoned",
    "make_folder",
    "replacing",
    "write_file",
]

ORDINARY, PRIVATE = 0o644, 0o600  # whatever the umask: what is published, and what shows or measures a face
_LONGEST = 220  # bytes of a name, so that the hidden ones beside it fit into the 255 of file systems
_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")
_QUIET = 60.0  # seconds; of a process on another machine nothing is known but that it goes on writing


@contextmanager
def disk_errors(target: str) -> Iterator[None]:
    """Turn the system's errors of writing into one that says what to do.

    Args:
        target: what is written, as the message calls it.

    Raises:
        EnvironmentProblem: a full disk, a read-only or missing folder, a name that is too long.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, BadInput | EnvironmentProblem):
            raise
        # safetensors reports a full disk as text only.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        if full:
            reason = "the disk is full; free some room"
        elif error.errno == errno.ENAMETOOLONG:
            reason = "the name is too long; choose a shorter one"
        else:
            reason = f"{error.strerror or error}; choose a folder you may write to"
        raise EnvironmentProblem(f"cannot write {target}: {reason}") from error


def check_target(path: Path) -> None:
    """Raise ``BadInput`` or ``EnvironmentProblem`` for a path that could not be written after the work."""
    if len(os.fsencode(path.name)) > _LONGEST:
        raise BadInput(
            f"the name {path.name[:40]!r}... has {len(os.fsencode(path.name))} bytes, and at most {_LONGEST} "
            "can be written; choose a shorter `out`"
        )
    if path.is_symlink() and not path.exists():
        raise BadInput(
            f"{str(path)!r} is a link to {str(path.readlink())!r}, which is not there; remove the link, "
            "or choose another `out`"
        )
    folder = next((parent for parent in path.absolute().parents if parent.exists()), path.parent)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise EnvironmentProblem(
            f"cannot write {str(path)!r}: {str(folder)!r} is "
            f"{'not writable' if folder.is_dir() else 'a file'}; choose a folder you may write to"
        )


def write_file(path: Path, content: bytes, *, mode: int = ORDINARY) -> None:
    """Write one file whole, by way of a temporary name in the same folder."""
    with replacing(path, mode=mode) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path, *, mode: int = ORDINARY) -> Iterator[Path]:
    """An empty file in the same folder, which is made where there is none, to be written; it takes the place
    of ``path`` when all went well, and goes when it did not.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(repr(str(path))):
        make_folder(path.parent)
        _remove_abandoned(path)
        try:
            temporary.touch(mode=PRIVATE)
            yield temporary
            temporary.chmod(mode)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def make_folder(path: Path, mode: int = 0o755) -> None:
    """Create a folder, and those above it, which others may read but never write, whatever the umask."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=mode)
        path.chmod(mode)


def is_abandoned(path: Path) -> bool:
    """Whether this is a temporary file of ours whose process is gone."""
    import psutil

    match = _TEMPORARY.fullmatch(path.name)
    try:
        quiet = time.time() - path.lstat().st_mtime > _QUIET
    except OSError:
        return False
    return match is not None and quiet and path.is_file() and not psutil.pid_exists(int(match[1]))


def _remove_abandoned(path: Path) -> None:
    """What killed runs left of the same file."""
    for other in path.parent.iterdir():
        if other.name.startswith(f".{path.name}.") and is_abandoned(other):
            other.unlink(missing_ok=True)
