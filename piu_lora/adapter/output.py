"""Writing a folder so that it is complete or absent, by one run at a time."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from piu_lora.errors import BadInput, Busy, EnvironmentProblem

__all__ = ["OutputFolder", "claimed", "disk_errors", "refuse_existing", "replacing", "write_file"]


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn the system's errors of writing into one that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BadInput | EnvironmentProblem):
            raise
        # safetensors reports a full disk as text only.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        reason = (
            "the disk is full; free some room"
            if full
            else f"{error.strerror or error}; choose a folder you may write to"
        )
        raise EnvironmentProblem(f"cannot write {what}: {reason}") from error


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise ``BadInput`` if ``path`` is there already, unless ``force``."""
    if path.exists() and not force:
        raise BadInput(
            f"{str(path)!r} exists already; choose another `out`, or pass force=True to replace it"
        )


def write_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write one file whole, by way of a temporary name in the same folder."""
    with replacing(path, mode=mode) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """An empty file in the same folder, to be written; it takes the place of ``path`` when all went well, and
    goes when it did not.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(repr(str(path))):
        try:
            temporary.touch(mode=mode)
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """While open, no other run may write ``path``, whose folder exists.

    Raises:
        Busy: another run holds it.
        EnvironmentProblem: nothing can be written there.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    with disk_errors(f"to {str(path.parent)!r}"):
        try:
            lock.acquire()
        except Timeout as error:
            raise Busy(
                f"another run is writing to {str(path)!r}; wait for it or choose another `out`"
            ) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


class OutputFolder:
    """The destination of one run.

    Hidden siblings of the folder hold the lock, the checkpoint and the half-written folder; only the finished
    folder is renamed into place.

    Args:
        path: the folder to create.
        force: replace an existing one.
        mark: the file by which a folder of this kind is known; another one is never replaced.
    """

    def __init__(self, path: Path | str, *, force: bool = False, mark: str = "forget.json") -> None:
        self.path, self._mark = Path(path).absolute(), mark
        self.force = force
        self.checkpoint = self._sibling("checkpoint")
        self._staging = self._sibling("partial")

    def _sibling(self, suffix: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{suffix}")

    @contextmanager
    def claimed(self) -> Iterator["OutputFolder"]:
        """Hold the folder for this run.

        Raises:
            BadInput: it exists and ``force`` is off.
            Busy: another run holds it.
            EnvironmentProblem: nothing can be written there.
        """
        self._check_free()
        with disk_errors(f"to {str(self.path.parent)!r}"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with claimed(self.path):
            try:
                # A run that ended between the check and the lock has left its folder there.
                self._check_free()
                shutil.rmtree(self._staging, ignore_errors=True)
                yield self
            finally:
                shutil.rmtree(self._staging, ignore_errors=True)

    def _check_free(self) -> None:
        refuse_existing(self.path, force=self.force)
        if self.path.exists() and not (self.path / self._mark).exists():
            raise BadInput(
                f"output {str(self.path)!r} exists and holds no {self._mark}; it is never replaced, "
                "choose another `out`"
            )

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A folder to fill; it takes its place when the block ends without an error."""
        with disk_errors(f"the folder {str(self.path)!r}"):
            self._staging.mkdir()
            yield self._staging
            self._check_free()
            retired = self._sibling("replaced")
            shutil.rmtree(retired, ignore_errors=True)
            if self.path.exists():
                self.path.rename(retired)
            self._staging.rename(self.path)
            shutil.rmtree(retired, ignore_errors=True)
            self.checkpoint.unlink(missing_ok=True)
