"""Processes that are killed: forked children, which need no second to import anything, at a random moment
or just before one of their own changes to the files of a folder.
"""

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

__all__ = ["Trial", "file_events", "in_child", "killed_at_event", "killed_at_moment", "seeded"]

FORK = multiprocessing.get_context("fork")
Work = Callable[[], object]
_CHANGES = (
    *("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "shutil.rmtree"),
)


def seeded(name: str) -> random.Random:
    """Another sequence every day; its seed is printed, and ``PIU_LORA_KILLS`` repeats it."""
    seed = int(os.environ.get("PIU_LORA_KILLS", time.time_ns() % 1_000_000))
    sys.stdout.write(f"{name}: PIU_LORA_KILLS={seed}\n")
    return random.Random(f"{name} {seed}")


class _Watch:
    """Counts the changes to what lies in a folder, and kills the process just before one of them."""

    def __init__(self, folder: Path, fatal: int) -> None:
        self.folder, self.fatal, self.count = str(folder), fatal, 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or not self._concerns(event, arguments):
            return
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def _concerns(self, event: str, arguments: tuple[Any, ...]) -> bool:
        path = arguments[0] if arguments else None
        if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(self.folder):
            return False
        return event != "open" or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _run(work: Work, folder: Path, fatal: int, pipe: Any) -> None:
    """In the child. Its talk goes nowhere, and no fixture of the parent is torn down here."""
    torch.set_num_threads(1)
    watch = _Watch(folder, fatal)
    sys.addaudithook(watch)
    pipe.send("begun")
    try:
        work()
        pipe.send(watch.count)
    except BaseException as error:
        pipe.send(repr(error))
    finally:
        os._exit(0)


class Trial:
    """A forked child at work."""

    def __init__(self, work: Work, folder: Path, fatal: int = -1) -> None:
        self._receive, send = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=_run, args=(work, folder, fatal, send))
        self.process.start()
        send.close()
        assert self._receive.recv() == "begun"

    def outcome(self, seconds: float = 60) -> int | str | None:
        """The number of changes where the work was done, its error, or None where it was killed."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, "it hangs"
        try:
            answer: int | str = self._receive.recv()
        except EOFError:
            return None
        return answer

    def kill(self) -> None:
        """At once."""
        self.process.kill()


def in_child(work: Work, folder: Path) -> tuple[int, float]:
    """Do it unharmed: how many changes to the folder's files it makes, and how many seconds it takes."""
    begun = time.perf_counter()
    count = Trial(work, folder).outcome()
    assert isinstance(count, int), count
    return count, time.perf_counter() - begun


def killed_at_event(work: Work, folder: Path, number: int) -> bool:
    """Whether the work was killed, just before the change of this number."""
    outcome = Trial(work, folder, number).outcome()
    assert not isinstance(outcome, str), outcome
    return outcome is None


def killed_at_moment(work: Work, folder: Path, seconds: float) -> bool:
    """Whether the work was killed, after so many seconds, or was done before."""
    trial = Trial(work, folder)
    trial.process.join(seconds)
    trial.kill()
    outcome = trial.outcome()
    assert not isinstance(outcome, str), outcome
    return outcome is None


def file_events(count: int, chance: random.Random, seconds: float) -> Iterator[int]:
    """The numbers of all changes, in random order, for as long as there is time."""
    end = time.monotonic() + seconds
    for number in chance.sample(range(count), count):
        if time.monotonic() > end:
            return
        yield number
