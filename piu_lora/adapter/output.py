"""Writing a folder so that it is complete or absent, by one run at a time."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from piu_lora.adapter.names import shows_person
from piu_lora.errors import BadInput, Busy
from piu_lora.writing import ORDINARY, PRIVATE, check_target, disk_errors, make_folder, replacing, write_file

__all__ = ["OutputFolder", "claimed", "disk_errors", "refuse_existing", "replacing", "write_file"]


_log = logging.getLogger("piu_lora")


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise ``BadInput`` if ``path`` is there already, unless ``force``, or could never be written."""
    check_target(path)
    if path.exists() and not force:
        raise BadInput(
            f"{str(path)!r} exists already; choose another `out`, or pass force=True to replace it"
        )


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """While open, no other run may write ``path``, whose folder exists.

    Raises:
        Busy: another run holds it.
        EnvironmentProblem: nothing can be written there.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0, mode=ORDINARY)
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
        self._staging, self._retired = self._sibling("partial"), self._sibling("replaced")

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
            make_folder(self.path.parent)
        with claimed(self.path):
            try:
                self._restore()
                # A run that ended between the check and the lock has left its folder there.
                self._check_free()
                shutil.rmtree(self._staging, ignore_errors=True)
                yield self
            finally:
                shutil.rmtree(self._staging, ignore_errors=True)

    def _restore(self) -> None:
        """Bring the earlier folder back where a run was killed between its two renames."""
        if self._retired.is_dir() and not self.path.exists():
            _log.warning("%s was being replaced when its run was killed: the earlier one is back", self.path)
            self._retired.rename(self.path)

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
            self._staging.mkdir(mode=0o700)
            yield self._staging
            self._check_free()
            _set_modes(self._staging)
            shutil.rmtree(self._retired, ignore_errors=True)
            if self.path.exists():
                self.path.rename(self._retired)
            self._staging.rename(self.path)
            shutil.rmtree(self._retired, ignore_errors=True)
            self.checkpoint.unlink(missing_ok=True)


def _set_modes(folder: Path) -> None:
    """Whatever wrote the files: others may read all of them but the pictures that show the person."""
    for path in (*folder.rglob("*"), folder):
        private = shows_person(path.relative_to(folder).as_posix())
        path.chmod(0o755 if path.is_dir() else PRIVATE if private else ORDINARY)
